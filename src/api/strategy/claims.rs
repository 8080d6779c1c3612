//! PersistentVolumeClaims: what their volume is filled with is said in two fields, an old and a new one (KEP-1495).

use serde_json::{Value, json};

use super::isolate_status;
use crate::fields::Fields;

const SNAPSHOTS: &str = "snapshot.storage.k8s.io";

pub fn prepare_create(claim: &mut Value) {
    claim.set("status", json!({"phase": "Pending"}));
    sources(claim, &Value::Null);
}

pub fn prepare_update(claim: &mut Value, old: &Value, subresource: Option<&str>) {
    isolate_status(claim, old, subresource);
    if subresource.is_none() {
        sources(claim, old.part("spec"));
    }
}

/// Drops a source that is for other clusters, or for nobody, and says the others in both fields.
fn sources(claim: &mut Value, before: &Value) {
    let Some(spec) = claim.at_mut("spec") else { return };
    // Sources in other namespaces are an alpha upstream, which is off.
    if !before.has("dataSourceRef") && !spec.part("dataSourceRef").text("namespace").is_empty() {
        spec.unset("dataSourceRef");
    }
    let known = before.has("dataSource") || before.has("dataSourceRef");
    if !known && !spec.has("dataSourceRef") && !is_claim_or_snapshot(spec.part("dataSource")) {
        spec.unset("dataSource");
    }
    // One that was stored when there was one field only stays as it is: it does not change.
    if before.has("dataSource") != before.has("dataSourceRef") {
        return;
    }
    match (spec.at("dataSource").cloned(), spec.at("dataSourceRef").cloned()) {
        (Some(source), None) => spec.set("dataSourceRef", local(&source)),
        (None, Some(source)) if source.text("namespace").is_empty() => spec.set("dataSource", local(&source)),
        _ => {}
    }
}

/// Anything else was ignored before there was the newer field, and still is.
fn is_claim_or_snapshot(source: &Value) -> bool {
    match source.text("kind") {
        "PersistentVolumeClaim" => source.text("apiGroup").is_empty(),
        "VolumeSnapshot" => source.text("apiGroup") == SNAPSHOTS,
        _ => false,
    }
}

/// The reference without a namespace.
fn local(source: &Value) -> Value {
    let mut copy = json!({"kind": source.text("kind"), "name": source.text("name")});
    if let Some(group) = source.at("apiGroup") {
        copy.set("apiGroup", group.clone());
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(spec: Value) -> Value {
        let mut claim = json!({"spec": spec});
        prepare_create(&mut claim);
        claim["spec"].clone()
    }

    #[test]
    fn a_source_is_said_in_both_fields() {
        let other = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let both = json!({"dataSource": other, "dataSourceRef": other});
        assert_eq!(created(json!({"dataSource": other})), both);
        assert_eq!(created(json!({"dataSourceRef": other})), both);
        let populator = json!({"apiGroup": "x.example", "kind": "Thing", "name": "a"});
        assert_eq!(created(json!({"dataSource": populator})), json!({}));
        assert_eq!(
            created(json!({"dataSourceRef": populator})),
            json!({"dataSource": populator, "dataSourceRef": populator})
        );
        assert_eq!(created(json!({"dataSourceRef": {"kind": "Thing", "name": "a", "namespace": "n"}})), json!({}));
    }

    #[test]
    fn a_source_that_was_taken_stays() {
        let odd = json!({"kind": "Thing", "name": "a"});
        let old = json!({"spec": {"dataSource": odd}, "status": {"phase": "Bound"}});
        let mut new = json!({"spec": {"dataSource": odd}});
        prepare_update(&mut new, &old, None);
        assert_eq!(new["spec"], json!({"dataSource": odd}));
        assert_eq!(new["status"]["phase"], "Bound");
    }
}
