//! What a namespace that is being deleted says of how far that is. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// What was found when everything in a namespace had been told to go.
#[derive(Debug, Default)]
pub struct Progress {
    /// Why resources could not be deleted.
    pub failures: Vec<String>,
    /// How many objects are left, by `plural.group`.
    pub remaining: BTreeMap<String, u64>,
    /// How many of them each finalizer holds.
    pub finalizers: BTreeMap<String, u64>,
}

/// A condition: its type, and its reason and message when all is well.
struct Kind(&'static str, &'static str, &'static str);

const DISCOVERY: Kind =
    Kind("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered");
const PARSING: Kind = Kind(
    "NamespaceDeletionGroupVersionParsingFailure",
    "ParsedGroupVersions",
    "All legacy kube types successfully parsed",
);
const CONTENT: Kind = Kind(
    "NamespaceDeletionContentFailure",
    "ContentDeleted",
    "All content successfully deleted, may be waiting on finalization",
);
const REMAINING: Kind = Kind("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed");
const FINALIZERS: Kind =
    Kind("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished");

impl Progress {
    /// The conditions that follow those `known`.
    pub fn conditions(&self, known: &[NamespaceCondition], now: Timestamp) -> Vec<NamespaceCondition> {
        let listed = |of: &BTreeMap<String, u64>, what: &str| {
            let listed: Vec<String> =
                of.iter().map(|(name, count)| format!("{name} {what} {count} resource instances")).collect();
            (!listed.is_empty()).then(|| listed.join(", "))
        };
        let failed = (!self.failures.is_empty()).then(|| {
            let mut failures = self.failures.clone();
            failures.sort();
            let count = failures.len();
            format!("Failed to delete all resource types, {count} remaining: {}", failures.join(", "))
        });
        let remaining = listed(&self.remaining, "has").map(|left| format!("Some resources are remaining: {left}"));
        let held = listed(&self.finalizers, "in")
            .map(|left| format!("Some content in the namespace has finalizers remaining: {left}"));
        let mut conditions = known.to_vec();
        for (kind, reason, message) in [
            (DISCOVERY, "DiscoveryFailed", None),
            (PARSING, "GroupVersionParsingFailed", None),
            (CONTENT, "ContentDeletionFailed", failed),
            (REMAINING, "SomeResourcesRemain", remaining),
            (FINALIZERS, "SomeFinalizersRemain", held),
        ] {
            put(&mut conditions, kind.condition(reason, message, now));
        }
        conditions
    }
}

impl Kind {
    /// With a message it is True, and otherwise all is well.
    fn condition(&self, reason: &str, message: Option<String>, now: Timestamp) -> NamespaceCondition {
        let Kind(type_, fine, all_is_well) = *self;
        let status = if message.is_some() { "True" } else { "False" };
        let reason = if message.is_some() { reason } else { fine };
        NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.unwrap_or_else(|| all_is_well.to_owned())),
            last_transition_time: Some(Time(now)),
        }
    }
}

/// The time of a condition that stays what it is stays too.
fn put(conditions: &mut Vec<NamespaceCondition>, mut new: NamespaceCondition) {
    match conditions.iter_mut().find(|known| known.type_ == new.type_) {
        Some(known) => {
            if known.status == new.status {
                new.last_transition_time = known.last_transition_time.take();
            }
            *known = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(conditions: &[NamespaceCondition]) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let line = |one: &NamespaceCondition| {
            format!("{} {} {}: {}", one.type_, one.status, text(&one.reason), text(&one.message))
        };
        conditions.iter().map(line).collect()
    }

    #[test]
    fn what_is_left_is_told_and_then_that_nothing_is() {
        let progress = Progress {
            failures: vec!["widgets: no".to_owned(), "gadgets: no".to_owned()],
            remaining: BTreeMap::from([("pods.".to_owned(), 2), ("widgets.example.com".to_owned(), 1)]),
            finalizers: BTreeMap::from([("example.com/hold".to_owned(), 1)]),
        };
        let stuck = progress.conditions(&[], Timestamp::UNIX_EPOCH);
        assert_eq!(
            shown(&stuck),
            [
                "NamespaceDeletionDiscoveryFailure False ResourcesDiscovered: All resources successfully discovered",
                "NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions: All legacy kube types \
                 successfully parsed",
                "NamespaceDeletionContentFailure True ContentDeletionFailed: Failed to delete all resource types, 2 \
                 remaining: gadgets: no, widgets: no",
                "NamespaceContentRemaining True SomeResourcesRemain: Some resources are remaining: pods. has 2 resource \
                 instances, widgets.example.com has 1 resource instances",
                "NamespaceFinalizersRemaining True SomeFinalizersRemain: Some content in the namespace has finalizers \
                 remaining: example.com/hold in 1 resource instances",
            ]
        );
        let later = Timestamp::from_second(60).unwrap();
        let done = Progress::default().conditions(&stuck, later);
        assert!(done.iter().all(|condition| condition.status == "False"));
        let changed: Vec<bool> = done.iter().map(|one| one.last_transition_time == Some(Time(later))).collect();
        assert_eq!(changed, [false, false, true, true, true]);
        assert_eq!(Progress::default().conditions(&done, Timestamp::UNIX_EPOCH), done, "nothing new, nothing to write");
    }
}
