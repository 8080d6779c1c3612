//! The smaller peculiarities of other kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{clear_status, isolate_status, keep, keep_all_but};
use crate::{fields::Fields, meta};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A namespace is active and goes only when its content is gone.
pub fn namespace_create(object: &mut Value) {
    object.set("status", json!({"phase": "Active"}));
    if let Some(spec) = object.object("spec") {
        let finalizers = spec.list("finalizers");
        if !finalizers.iter().any(|one| one == "kubernetes") {
            let mut all = finalizers.to_vec();
            all.push(json!("kubernetes"));
            spec.set("finalizers", all);
        }
    }
}

pub fn namespace_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        Some("finalize") => keep_all_but(object, old, &["metadata", "spec"]),
        Some("status") => keep_all_but(object, old, &["metadata", "status"]),
        _ => {
            keep(object, old, "status");
            if let Some(spec) = object.object("spec") {
                keep(spec, old.part("spec"), "finalizers");
            }
        }
    }
}

/// A new volume has been pending since it was made.
pub fn volume_create(object: &mut Value) {
    let created = object.part("metadata").part("creationTimestamp").clone();
    object.set("status", json!({"phase": "Pending", "lastPhaseTransitionTime": created}));
}

pub fn ingress_create(object: &mut Value) {
    object.set("status", json!({"loadBalancer": {}}));
}

/// The labels of a Deployment are its author's, not those of who writes its status.
pub fn deployment_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    isolate_status(object, old, subresource);
    keep_metadata(object, old, subresource, &["labels"]);
}

/// For kinds whose status is written without touching anything else (upstream's `ResetObjectMetaForStatus`).
pub fn strict_status_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    isolate_status(object, old, subresource);
    keep_metadata(object, old, subresource, &["labels", "annotations", "finalizers", "ownerReferences"]);
}

fn keep_metadata(object: &mut Value, old: &Value, subresource: Option<&str>, names: &[&str]) {
    if subresource != Some("status") {
        return;
    }
    if let Some(metadata) = object.object("metadata") {
        for name in names {
            keep(metadata, old.part("metadata"), name);
        }
    }
}

/// Of a secret that an account may use, the name alone counts.
pub fn service_account(object: &mut Value) {
    for secret in object.list_mut("secrets") {
        if let Some(fields) = secret.as_object_mut() {
            fields.retain(|name, _| name == "name");
        }
    }
}

pub fn service_account_update(object: &mut Value, _old: &Value, _subresource: Option<&str>) {
    service_account(object);
}

pub fn daemon_set_create(object: &mut Value) {
    clear_status(object);
    template_generation(object, 1);
}

/// Counts the changes of the template, which pods carry as a label.
pub fn daemon_set_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    isolate_status(object, old, subresource);
    let before = old.part("metadata").part("annotations").text(TEMPLATE_GENERATION).parse().unwrap_or(1);
    let changed = object.part("spec").part("template") != old.part("spec").part("template");
    template_generation(object, before + i64::from(changed));
}

fn template_generation(object: &mut Value, generation: i64) {
    if let Some(annotations) = object.object("metadata").and_then(|metadata| metadata.object("annotations")) {
        annotations.set(TEMPLATE_GENERATION, generation.to_string());
    }
}

pub fn job_create(object: &mut Value) {
    clear_status(object);
    job_selector(object);
}

/// A Job that is not selected by hand selects by its own uid, with which it labels its pods. One that has no uid
/// yet gets this when it does ([`identified`]).
fn job_selector(object: &mut Value) {
    let uid = object.part("metadata").text("uid").to_owned();
    let name = object.part("metadata").text("name").to_owned();
    let given = object.part("metadata").part("labels").clone();
    let Some(spec) = object.object("spec") else { return };
    if spec.flag("manualSelector") || uid.is_empty() {
        return;
    }
    // Labels that a Job has from its template are those of the template ever after.
    let shared = given == *spec.part("template").part("metadata").part("labels");
    let labels = spec
        .object("template")
        .and_then(|template| template.object("metadata"))
        .and_then(|metadata| metadata.object("labels"));
    if let Some(labels) = labels {
        for key in ["controller-uid", "batch.kubernetes.io/controller-uid"] {
            labels.set(key, uid.as_str());
        }
        for key in ["job-name", "batch.kubernetes.io/job-name"] {
            labels.set(key, name.as_str());
        }
    }
    if let Some(labels) = spec.object("selector").and_then(|selector| selector.object("matchLabels")) {
        labels.set("batch.kubernetes.io/controller-uid", uid);
    }
    let labels = spec.part("template").part("metadata").part("labels").clone();
    if let Some(metadata) = object.object("metadata").filter(|_| shared) {
        metadata.set("labels", labels);
    }
}

/// What follows from a new object's uid and name, whether they are given before or after the object is prepared.
pub(crate) fn identified(object: &mut Value) {
    match (object.text("apiVersion"), object.text("kind")) {
        ("batch/v1", "Job") => job_selector(object),
        ("v1", "Namespace") => crate::defaults::config::namespace(object),
        (version, "DeviceTaintRule" | "ResourceSlice") if version.starts_with("resource.k8s.io/") => {
            let now = object.part("metadata").part("creationTimestamp").clone();
            tainted_at(object, &now);
        }
        _ => {}
    }
}

/// Taints of devices hold from when they are written, if they do not say otherwise.
fn tainted_at(object: &mut Value, now: &Value) {
    let Some(spec) = object.at_mut("spec") else { return };
    if let Some(taint) = spec.at_mut("taint") {
        taint.fill("timeAdded", now.clone());
    }
    for device in spec.list_mut("devices") {
        // Where the first beta has them.
        let holder = if device.has("basic") { device.at_mut("basic") } else { Some(device) };
        for taint in holder.map(|holder| holder.list_mut("taints")).unwrap_or_default() {
            taint.fill("timeAdded", now.clone());
        }
    }
}

/// What follows from the time of an update: taints that are new, or do something else than before.
pub(crate) fn updated(object: &mut Value, old: &Value, now: Timestamp) {
    if !matches!(object.text("kind"), "DeviceTaintRule" | "ResourceSlice")
        || !object.text("apiVersion").starts_with("resource.k8s.io/")
    {
        return;
    }
    let before = old.part("spec").part("taint");
    if let Some(taint) = object.at_mut("spec").and_then(|spec| spec.at_mut("taint"))
        && taint.text("effect") != before.text("effect")
        && taint.text("timeAdded") == before.text("timeAdded")
    {
        taint.unset("timeAdded");
    }
    tainted_at(object, &meta::time(now).into());
}

/// Approval and denial have their own subresource; the status has the certificate.
pub fn signing_request_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    let decides = |condition: &Value| matches!(condition.text("type"), "Approved" | "Denied");
    match subresource {
        Some("approval") => {
            let conditions = object.part("status").list("conditions").to_vec();
            keep_all_but(object, old, &["metadata"]);
            if let Some(status) = object.object("status") {
                status.set("conditions", conditions);
            }
        }
        Some("status") => {
            keep_all_but(object, old, &["metadata", "status"]);
            if let Some(status) = object.object("status") {
                let mut conditions: Vec<Value> =
                    old.part("status").list("conditions").iter().filter(|one| decides(one)).cloned().collect();
                conditions.extend(status.list("conditions").iter().filter(|one| !decides(one)).cloned());
                if !conditions.is_empty() {
                    status.set("conditions", conditions);
                }
            }
        }
        _ => {
            keep(object, old, "spec");
            keep(object, old, "status");
        }
    }
}

/// The versions that are stored begin with the one that is.
pub fn definition_create(object: &mut Value) {
    clear_status(object);
    crate::defaults::cluster::custom_resource_definition(object);
}

/// The version in which objects are stored from now on joins those in which some may lie.
pub fn definition_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    super::isolate_status(object, old, subresource);
    if subresource.is_some() {
        return;
    }
    let versions = object.part("spec").list("versions");
    let storage = versions.iter().find(|version| version.flag("storage")).map(|version| version.part("name").clone());
    let (Some(storage), Some(status)) = (storage, object.object("status")) else { return };
    let mut stored = status.list("storedVersions").to_vec();
    if !stored.contains(&storage) {
        stored.push(storage);
        status.set("storedVersions", stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_selects_its_own_pods() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u-1"}, "spec": {"template": {"spec": {}}}});
        job_create(&mut job);
        let mut late = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
            "spec": {"template": {"spec": {}}}});
        job_create(&mut late);
        late["metadata"]["uid"] = json!("u-1");
        identified(&mut late);
        assert_eq!(late["spec"], job["spec"]);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}));
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert_eq!((&labels["job-name"], &labels["controller-uid"]), (&json!("j"), &json!("u-1")));
    }

    #[test]
    fn a_status_writer_sets_no_labels() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {}});
        let new = json!({"metadata": {"labels": {"a": "2"}, "finalizers": ["x/y"]}, "spec": {}, "status": {"n": 1}});
        let mut deployment = new.clone();
        deployment_update(&mut deployment, &old, Some("status"));
        assert_eq!(deployment["metadata"], json!({"labels": {"a": "1"}, "finalizers": ["x/y"]}));
        let mut attachment = new.clone();
        strict_status_update(&mut attachment, &old, Some("status"));
        assert_eq!(attachment["metadata"], json!({"labels": {"a": "1"}}));
        let mut plain = new;
        deployment_update(&mut plain, &old, None);
        assert_eq!(plain["metadata"]["labels"], json!({"a": "2"}));
    }

    #[test]
    fn templates_are_counted() {
        let mut set = json!({"metadata": {"name": "d"}, "spec": {"template": 1}});
        daemon_set_create(&mut set);
        let mut new = set.clone();
        new["spec"]["template"] = json!(2);
        daemon_set_update(&mut new, &set, None);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }

    #[test]
    fn only_finalize_finalizes() {
        let mut namespace = json!({"metadata": {"name": "n"}});
        namespace_create(&mut namespace);
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
        let mut update = json!({"metadata": {"name": "n"}, "spec": {}});
        namespace_update(&mut update, &namespace, None);
        assert_eq!(update["spec"]["finalizers"], json!(["kubernetes"]));
        let mut end = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
        namespace_update(&mut end, &namespace, Some("finalize"));
        assert_eq!(end["spec"]["finalizers"], json!([]));
    }

    #[test]
    fn approval_and_certificate_do_not_mix() {
        let old = json!({"metadata": {}, "spec": {}, "status": {"conditions": [{"type": "Approved"}]}});
        let mut issued = json!({"metadata": {}, "spec": {"x": 1}, "status": {"certificate": "c", "conditions": []}});
        signing_request_update(&mut issued, &old, Some("status"));
        assert_eq!(issued["status"], json!({"certificate": "c", "conditions": [{"type": "Approved"}]}));
        let mut denied =
            json!({"metadata": {}, "status": {"certificate": "forged", "conditions": [{"type": "Denied"}]}});
        signing_request_update(&mut denied, &old, Some("approval"));
        assert_eq!(denied["status"], json!({"conditions": [{"type": "Denied"}]}));
    }
}
