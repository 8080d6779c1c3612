//! The PersistentVolumeClaims of a StatefulSet's pods, and who owns them (KEP-1847). Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::shared::owned::controller_reference;

pub fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    format!("{}-{}-{ordinal}", name(&template.metadata.name), name(&set.metadata.name))
}

/// The claims that the pod with an ordinal has.
pub fn claims_at(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        claim.status = None;
        if let Some(selected) = &spec.selector.match_labels {
            claim.metadata.labels.get_or_insert_default().extend(selected.clone());
        }
        claim
    };
    spec.volume_claim_templates.iter().flatten().map(claim).collect()
}

/// What is to be done about the owners of a claim.
#[derive(Debug, PartialEq)]
pub enum Owners {
    AreRight,
    Become(Vec<OwnerReference>),
}

/// The owners that a claim should have for a pod, which is `condemned` if the set has become too small for it.
pub fn owners(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod, condemned: bool) -> Owners {
    if is_stale(claim, &controller_reference(set)) || is_stale(claim, &controller_reference(pod)) {
        return Owners::AreRight;
    }
    let (set, pod, wanted) = wanted(set, pod, condemned);
    let known = claim.metadata.owner_references.clone().unwrap_or_default();
    let ours = |one: &OwnerReference| one.uid == set.uid || one.uid == pod.uid;
    let others = || known.iter().filter(|one| !ours(one)).cloned();
    if has_other_controller(claim, &set, &pod) && !wanted.is_empty() {
        return if known.iter().any(ours) { Owners::Become(others().collect()) } else { Owners::AreRight };
    }
    let has = |one: &OwnerReference| known.iter().any(|known| known.uid == one.uid && known.controller == Some(true));
    let right = known.iter().filter(|one| ours(one)).count() == wanted.len() && wanted.iter().all(has);
    if right { Owners::AreRight } else { Owners::Become(others().chain(wanted).collect()) }
}

/// Whether another controller owns the claim, so that the retention policy does not hold for it.
pub fn conflicts(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    policy.is_some_and(|policy| deletes(policy.when_deleted.as_ref()) || deletes(policy.when_scaled.as_ref()))
        && has_other_controller(claim, &controller_reference(set), &controller_reference(pod))
}

/// References to the set and the pod, and which of them the policy wants.
fn wanted(set: &StatefulSet, pod: &Pod, condemned: bool) -> (OwnerReference, OwnerReference, Vec<OwnerReference>) {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    let when_deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let when_scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let (set, pod) = (controller_reference(set), controller_reference(pod));
    let by_pod = when_scaled && condemned;
    let mut wanted = Vec::new();
    wanted.extend((when_deleted && !by_pod).then(|| set.clone()));
    wanted.extend(by_pod.then(|| pod.clone()));
    (set, pod, wanted)
}

/// Whether the claim is still owned by an earlier object of this name: it is about to go.
pub fn is_stale(claim: &PersistentVolumeClaim, owner: &OwnerReference) -> bool {
    let mut known = claim.metadata.owner_references.iter().flatten();
    known.any(|one| is_named(one, owner) && one.uid != owner.uid)
}

fn is_named(one: &OwnerReference, other: &OwnerReference) -> bool {
    (&one.api_version, &one.kind, &one.name) == (&other.api_version, &other.kind, &other.name)
}

fn has_other_controller(claim: &PersistentVolumeClaim, set: &OwnerReference, pod: &OwnerReference) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|one| match is_named(one, set) || is_named(one, pod) {
        true => one.uid != set.uid && one.uid != pod.uid,
        false => one.controller == Some(true),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "s"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {},
                     "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
                     "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"own": "x"}}}]},
        }))
        .unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "uid": "p"}})).unwrap()
    }

    fn owner(kind: &str, name: &str, uid: &str) -> Value {
        let version = if kind == "Pod" { "v1" } else { "apps/v1" };
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true})
    }

    fn look(set: &StatefulSet, condemned: bool, owners: Value) -> Option<Vec<String>> {
        let claim = serde_json::from_value(json!({"metadata": {"ownerReferences": owners}})).unwrap();
        match super::owners(&claim, set, &pod(), condemned) {
            Owners::AreRight => None,
            Owners::Become(owners) => Some(owners.into_iter().map(|one| one.uid).collect()),
        }
    }

    #[test]
    fn claims_go_with_whom_the_policy_says() {
        let (ours, pods) = (owner("StatefulSet", "web", "s"), owner("Pod", "web-0", "p"));
        let uids = |uids: &[&str]| Some(uids.iter().map(|uid| (*uid).to_owned()).collect::<Vec<_>>());
        let retain = set("Retain", "Retain");
        assert_eq!(look(&retain, false, json!([])), None);
        assert_eq!(look(&retain, false, json!([ours])), uids(&[]));
        let deleted = set("Delete", "Retain");
        assert_eq!(look(&deleted, false, json!([])), uids(&["s"]));
        assert_eq!(look(&deleted, true, json!([ours])), None);
        let scaled = set("Retain", "Delete");
        assert_eq!(look(&scaled, false, json!([])), None);
        assert_eq!(look(&scaled, true, json!([])), uids(&["p"]));
        assert_eq!(look(&scaled, false, json!([pods])), uids(&[]), "the set has grown again");
        let both = set("Delete", "Delete");
        assert_eq!(look(&both, false, json!([])), uids(&["s"]));
        assert_eq!(look(&both, true, json!([ours])), uids(&["p"]));
    }

    #[test]
    fn others_owners_are_left_alone() {
        let other = owner("Other", "o", "o");
        let both = set("Delete", "Delete");
        assert_eq!(look(&both, false, json!([other])), None, "another controller has it");
        assert_eq!(look(&both, false, json!([owner("StatefulSet", "web", "old")])), None, "it is about to go");
        let mut plain = other.clone();
        plain["controller"] = json!(false);
        assert_eq!(look(&both, false, json!([plain])), Some(vec!["o".to_owned(), "s".to_owned()]));
        let claim = serde_json::from_value(json!({"metadata": {"ownerReferences": [other]}})).unwrap();
        assert!(conflicts(&claim, &both, &pod()) && !conflicts(&claim, &set("Retain", "Retain"), &pod()));
    }

    #[test]
    fn a_claim_is_made_of_its_template() {
        let claims = claims_at(&set("Retain", "Retain"), 4);
        let got = serde_json::to_value(&claims[0].metadata).unwrap();
        assert_eq!(got, json!({"name": "data-web-4", "namespace": "n", "labels": {"app": "web", "own": "x"}}));
    }
}
