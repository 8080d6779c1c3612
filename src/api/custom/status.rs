//! The status of a CustomResourceDefinition: which names it got, and its conditions.
//!
//! Upstream has a controller for each condition; here one function says what the status is to be.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schema::structural::{self, Structural};
use serde_json::{Value, json};

use crate::{fields::Fields, meta};

pub const ESTABLISHED: &str = "Established";
pub const NAMES_ACCEPTED: &str = "NamesAccepted";
pub const TERMINATING: &str = "Terminating";
const NON_STRUCTURAL: &str = "NonStructuralSchema";
const API_APPROVAL: &str = "KubernetesAPIApprovalPolicyConformant";
/// The annotation by which groups of the Kubernetes community are approved.
pub const APPROVED_ANNOTATION: &str = "api-approved.kubernetes.io";

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn new(
        kind: &'static str,
        status: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Condition {
        Condition { kind, status, reason, message: message.into() }
    }
}

/// The condition of a definition.
pub fn find<'v>(definition: &'v Value, kind: &str) -> Option<&'v Value> {
    definition.part("status").list("conditions").iter().find(|one| one.text("type") == kind)
}

pub fn is_true(definition: &Value, kind: &str) -> bool {
    find(definition, kind).is_some_and(|one| one.text("status") == "True")
}

/// Sets a condition; its time is that of the last change of its status.
pub fn set(definition: &mut Value, condition: &Condition, now: Timestamp) {
    let Some(status) = definition.object("status") else { return };
    if !status.part("conditions").is_array() {
        status.set("conditions", json!([]));
    }
    let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    let Condition { kind, status, reason, message } = condition;
    let now = meta::time(now);
    match conditions.iter_mut().find(|one| one.text("type") == *kind) {
        Some(known) => {
            if known.text("status") != *status || !known.has("lastTransitionTime") {
                known.set("lastTransitionTime", now);
            }
            known.set("status", *status);
            known.set("reason", *reason);
            known.set("message", message.as_str());
        }
        None => conditions.push(json!({
            "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
        })),
    }
}

fn unset(definition: &mut Value, kind: &str) {
    let conditions = definition.get_mut("status").and_then(|status| status.get_mut("conditions"));
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|one| one.text("type") != kind);
    }
}

/// The definition with the status that it is to have; `others` are those of the same group. Equal to what it was when
/// there is nothing to do.
pub fn next(definition: &Value, others: &[&Value], now: Timestamp) -> Value {
    let mut next = definition.clone();
    accept_names(&mut next, others, now);
    establish(&mut next, now);
    let is_as_before = |condition: &Condition| {
        find(definition, condition.kind).is_some_and(|known| {
            known.text("status") == condition.status
                && known.text("reason") == condition.reason
                && known.text("message") == condition.message
        })
    };
    match non_structural(definition) {
        Some(condition) if is_as_before(&condition) => {}
        Some(condition) => set(&mut next, &condition, now),
        None => unset(&mut next, NON_STRUCTURAL),
    }
    if let Some(condition) = approval(definition).filter(|condition| !is_as_before(condition)) {
        set(&mut next, &condition, now);
    }
    next
}

/// Takes the names that are wanted and free.
fn accept_names(definition: &mut Value, others: &[&Value], now: Timestamp) {
    let wanted = definition.part("spec").part("names").clone();
    let before = definition.part("status").part("acceptedNames").clone();
    if wanted == before {
        return;
    }
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in others {
        let names = other.part("status").part("acceptedNames");
        resources.extend([names.text("plural"), names.text("singular")]);
        resources.extend(names.list("shortNames").iter().filter_map(Value::as_str));
        kinds.extend([names.text("kind"), names.text("listKind")]);
    }
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut accepted = before.clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict: Option<(&'static str, String)> = None;
    let mut single = |field: &str, reason: &'static str, taken: &BTreeSet<&str>, accepted: &mut Value| {
        let name = wanted.text(field);
        if name != before.text(field) && taken.contains(name) {
            conflict = Some((reason, in_use(name)));
        } else {
            accepted.set(field, name);
        }
    };
    single("plural", "PluralConflict", &resources, &mut accepted);
    single("singular", "SingularConflict", &resources, &mut accepted);
    let mine = before.list("shortNames");
    let taken: Vec<String> = wanted
        .list("shortNames")
        .iter()
        .filter(|name| !mine.contains(name))
        .filter_map(Value::as_str)
        .filter(|name| resources.contains(name))
        .map(in_use)
        .collect();
    let short_names_conflict = match taken.as_slice() {
        [] => {
            copy(&mut accepted, &wanted, "shortNames");
            None
        }
        [one] => Some(("ShortNamesConflict", one.clone())),
        many => Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    };
    let mut later = short_names_conflict;
    let mut single = |field: &str, reason: &'static str, accepted: &mut Value| {
        let name = wanted.text(field);
        if name != before.text(field) && kinds.contains(name) {
            later = Some((reason, in_use(name)));
        } else {
            accepted.set(field, name);
        }
    };
    single("kind", "KindConflict", &mut accepted);
    single("listKind", "ListKindConflict", &mut accepted);
    copy(&mut accepted, &wanted, "categories");
    let names = match later.or(conflict) {
        Some((reason, message)) => Condition::new(NAMES_ACCEPTED, "False", reason, message),
        None => Condition::new(NAMES_ACCEPTED, "True", "NoConflicts", "no conflicts found"),
    };
    if let Some(status) = definition.object("status") {
        status.set("acceptedNames", accepted);
    }
    set(definition, &names, now);
    if find(definition, ESTABLISHED).is_none() && names.status != "True" {
        let condition = Condition::new(ESTABLISHED, "False", "NotAccepted", "not all names are accepted");
        set(definition, &condition, now);
    }
}

fn copy(to: &mut Value, from: &Value, name: &str) {
    match from.at(name) {
        Some(value) => to.set(name, value.clone()),
        None => to.unset(name),
    }
}

fn establish(definition: &mut Value, now: Timestamp) {
    if !is_true(definition, NAMES_ACCEPTED) || is_true(definition, ESTABLISHED) {
        return;
    }
    let bundle = definition.part("spec").part("conversion").part("webhook").part("clientConfig").text("caBundle");
    let condition = if is_ca_bundle(bundle) {
        Condition::new(ESTABLISHED, "True", "InitialNamesAccepted", "the initial names have been accepted")
    } else {
        Condition::new(ESTABLISHED, "False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
    };
    set(definition, &condition, now);
}

/// Whether base64 holds certificates in PEM, or nothing.
pub fn is_ca_bundle(base64: &str) -> bool {
    use base64::Engine;
    if base64.is_empty() {
        return true;
    }
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(base64) else { return false };
    let text = String::from_utf8_lossy(&pem);
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    text.trim().is_empty()
        || text.find(begin).is_some_and(|from| text.get(from..).is_some_and(|rest| rest.contains(end)))
}

fn non_structural(definition: &Value) -> Option<Condition> {
    let spec = definition.part("spec");
    let mut found = Vec::new();
    if spec.flag("preserveUnknownFields") {
        found.push("spec.preserveUnknownFields: Invalid value: true: must be false".to_owned());
    }
    for (index, version) in spec.list("versions").iter().enumerate() {
        let Some(json) = version.part("schema").at("openAPIV3Schema") else { continue };
        match Structural::parse(json) {
            Ok(schema) => {
                let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
                let problems = structural::check(&schema, &path).into_iter();
                found.extend(problems.map(|problem| crate::FieldError::from(problem).to_string()));
            }
            Err(error) => {
                let name = version.text("name");
                let message = format!("failed to check validation schema for version {name}: {error}");
                return Some(Condition::new(NON_STRUCTURAL, "Unknown", "StructuralError", message));
            }
        }
    }
    let message = match found.as_slice() {
        [] => return None,
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Some(Condition::new(NON_STRUCTURAL, "True", "Violations", message))
}

/// How a definition in a group of the Kubernetes community is approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

/// Groups of the Kubernetes community need an approval.
pub fn is_protected(group: &str) -> bool {
    group == "k8s.io" || group.ends_with(".k8s.io") || group == "kubernetes.io" || group.ends_with(".kubernetes.io")
}

/// The approval that a definition has, and what is to be said about it.
pub fn approval_of(definition: &Value) -> (Approval, String) {
    const MORE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let annotation = definition.part("metadata").part("annotations").text(APPROVED_ANNOTATION);
    if annotation.is_empty() {
        let text = format!("protected groups must have approval annotation {APPROVED_ANNOTATION:?}, {MORE}");
        return (Approval::Missing, text);
    }
    if annotation.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: {annotation:?}"));
    }
    let is_url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && rest.split(['/', '?', '#']).next().is_some_and(|host| !host.is_empty() && !host.contains(' '))
    });
    if is_url {
        return (Approval::Approved, format!("approved in {annotation}"));
    }
    let text = format!(
        "protected groups must have approval annotation {APPROVED_ANNOTATION:?} with either a URL or a reason starting \
         with \"unapproved\", {MORE}"
    );
    (Approval::Invalid, text)
}

fn approval(definition: &Value) -> Option<Condition> {
    if !is_protected(definition.part("spec").text("group")) {
        return None;
    }
    let (approval, message) = approval_of(definition);
    let (status, reason) = match approval {
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
    };
    Some(Condition::new(API_APPROVAL, status, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": ["w"], "categories": ["all"]}, "versions": []},
            "status": {"storedVersions": ["v1"]},
        })
    }

    fn shown(definition: &Value) -> Vec<String> {
        let show = |one: &Value| format!("{}={} {}", one.text("type"), one.text("status"), one.text("reason"));
        definition["status"]["conditions"].as_array().unwrap().iter().map(show).collect()
    }

    #[test]
    fn names_are_accepted_and_then_it_is_established() {
        let now = Timestamp::UNIX_EPOCH;
        let first = next(&definition("widgets", "Widget"), &[], now);
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert_eq!(shown(&first), ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
        assert_eq!(next(&first, &[], Timestamp::now()), first);
    }

    #[test]
    fn names_that_others_have_are_refused_until_they_are_free() {
        let now = Timestamp::UNIX_EPOCH;
        let first = next(&definition("widgets", "Widget"), &[], now);
        let second = next(&definition("gadgets", "Widget"), &[&first], now);
        assert_eq!(shown(&second), ["NamesAccepted=False ListKindConflict", "Established=False NotAccepted"]);
        assert_eq!(find(&second, NAMES_ACCEPTED).unwrap()["message"], "\"WidgetList\" is already in use");
        assert_eq!(second["status"]["acceptedNames"], json!({"plural": "gadgets", "categories": ["all"]}));
        let freed = next(&second, &[], now);
        assert_eq!(shown(&freed), ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
    }

    #[test]
    fn groups_of_the_community_show_their_approval() {
        for (annotation, state) in [
            ("", Approval::Missing),
            ("unapproved, trying", Approval::Bypassed),
            ("https://github.com/x/pull/1", Approval::Approved),
            ("yes", Approval::Invalid),
        ] {
            let definition = json!({"metadata": {"annotations": {APPROVED_ANNOTATION: annotation}}});
            assert_eq!(approval_of(&definition).0, state, "{annotation}");
        }
        assert!(is_protected("x.k8s.io") && !is_protected("x.k8s.io.example.com"));
    }
}
