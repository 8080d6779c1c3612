//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers, ControllerRevisions.

use serde_json::Value;

use super::{Check, is_zero, labels, pod, same};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const OF_REPLICAS: &[&str] = &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

pub fn deployment(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    check.not_negative(spec, &path, "replicas");
    labels::of_workload(check, spec, &path, "deployment");
    pod::lasting_template(check, spec, &path, "ReplicaSet");
    strategy(check, spec, &path);
    for name in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        check.not_negative(spec, &path, name);
    }
    if let Some(deadline) = spec.int("progressDeadlineSeconds")
        && deadline <= spec.int("minReadySeconds").unwrap_or_default()
    {
        let text = "must be greater than minReadySeconds";
        check.invalid(&path.field("progressDeadlineSeconds"), &deadline.into(), text);
    }
}

fn strategy(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let strategy = spec.part("strategy");
    let path = path.field("strategy");
    let rolling_path = path.field("rollingUpdate");
    match (strategy.text("type"), strategy.at("rollingUpdate")) {
        ("Recreate", Some(_)) => {
            check.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => check.required(&rolling_path, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            check.int_or_percent(rolling, &rolling_path, "maxUnavailable");
            check.int_or_percent(rolling, &rolling_path, "maxSurge");
            if is_zero(rolling.part("maxUnavailable")) && is_zero(rolling.part("maxSurge")) {
                let text = "may not be 0 when `maxSurge` is 0";
                check.invalid(&rolling_path.field("maxUnavailable"), rolling.part("maxUnavailable"), text);
            }
            check.at_most_100_percent(rolling, &rolling_path, "maxUnavailable");
        }
        _ => check.not_supported(&path, strategy, &["Recreate", "RollingUpdate"]),
    }
}

/// The selector is for good; a status does not claim more pods than there are.
pub fn deployment_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource == Some("status") {
        not_negative(
            object,
            errors,
            &["observedGeneration", "unavailableReplicas", "terminatingReplicas", "collisionCount"],
        );
        return counts(object, errors, &["updatedReplicas", "readyReplicas", "availableReplicas"], "readyReplicas");
    }
    deployment(object, errors);
    fixed_selector(object, old, errors);
}

fn fixed_selector(object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    Check { errors }.unchanged(object.part("spec"), old.part("spec"), &root.field("spec"), "selector");
}

fn not_negative(object: &Value, errors: &mut Vec<FieldError>, names: &[&str]) {
    let root = Path::Root;
    let path = root.field("status");
    for name in names {
        Check { errors }.not_negative(object.part("status"), &path, name);
    }
}

/// No more pods are anything than there are, nor available than ready, which upstream calls `ready`.
fn counts(object: &Value, errors: &mut Vec<FieldError>, names: &[&str], ready: &str) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("status");
    let status = object.part("status");
    check.not_negative(status, &path, "replicas");
    let replicas = status.int("replicas").unwrap_or_default();
    for name in names {
        check.not_negative(status, &path, name);
        let count = status.int(name).unwrap_or_default();
        if count > replicas {
            check.invalid(&path.field(name), &count.into(), "cannot be greater than status.replicas");
        }
    }
    let available = status.int("availableReplicas").unwrap_or_default();
    if available > status.int("readyReplicas").unwrap_or_default() {
        check.invalid(&path.field("availableReplicas"), &available.into(), &format!("cannot be greater than {ready}"));
    }
}

pub fn replica_set(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    check.not_negative(spec, &path, "replicas");
    check.not_negative(spec, &path, "minReadySeconds");
    labels::of_workload(check, spec, &path, "deployment");
    pod::lasting_template(check, spec, &path, "ReplicaSet");
}

pub fn replica_set_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource == Some("status") {
        not_negative(object, errors, &["observedGeneration", "terminatingReplicas"]);
        return counts(object, errors, OF_REPLICAS, "readyReplicas");
    }
    replica_set(object, errors);
    fixed_selector(object, old, errors);
}

pub fn stateful_set(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    match spec.text("podManagementPolicy") {
        "" => check.required(&path.field("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => {
            let text = "must be 'OrderedReady' or 'Parallel'";
            check.invalid(&path.field("podManagementPolicy"), &other.into(), text);
        }
    }
    let strategy = spec.part("updateStrategy");
    let strategy_path = path.field("updateStrategy");
    let rolling_path = strategy_path.field("rollingUpdate");
    match (strategy.text("type"), strategy.at("rollingUpdate")) {
        ("", _) => check.required(&strategy_path, ""),
        ("OnDelete", Some(rolling)) => {
            check.invalid(&rolling_path, rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            check.not_negative(rolling, &rolling_path, "partition");
            if let Some(unavailable) = rolling.at("maxUnavailable") {
                check.int_or_percent(rolling, &rolling_path, "maxUnavailable");
                if is_zero(unavailable) {
                    check.invalid(&rolling_path.field("maxUnavailable"), unavailable, "cannot be 0");
                }
                check.at_most_100_percent(rolling, &rolling_path, "maxUnavailable");
            }
        }
        _ => check.invalid(&strategy_path, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = path.field("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        let policy = spec.part("persistentVolumeClaimRetentionPolicy");
        check.one_of(policy, &retention, name, &["Retain", "Delete"]);
    }
    for name in ["replicas", "minReadySeconds"] {
        check.not_negative(spec, &path, name);
    }
    let claims = path.field("volumeClaimTemplates");
    for (index, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
        super::storage::claim_spec(check, claim.part("spec"), &claims.index(index).field("spec"));
    }
    check.not_negative(spec.part("ordinals"), &path.field("ordinals"), "start");
    let service = spec.text("serviceName");
    if !service.is_empty() {
        check.found(&path.field("serviceName"), service, format::dns_label(service));
    }
    labels::of_workload(check, spec, &path, "statefulset");
    pod::lasting_template(check, &as_of_a_pod(spec), &path, "StatefulSet");
}

/// The spec with what the controller will give its pods: the volumes of its claim templates, so that mounts find
/// them, and names of their own.
fn as_of_a_pod(spec: &Value) -> std::borrow::Cow<'_, Value> {
    let names = ["hostname", "subdomain"];
    let own = spec.part("template").part("spec");
    if spec.list("volumeClaimTemplates").is_empty() && !names.into_iter().any(|name| own.has(name)) {
        return std::borrow::Cow::Borrowed(spec);
    }
    let mut whole = serde_json::json!({"template": spec.part("template")});
    let claims = spec.list("volumeClaimTemplates").iter().map(|claim| claim.part("metadata").text("name"));
    let mut known = std::collections::HashSet::new();
    let mut volumes: Vec<Value> = claims
        .clone()
        .filter(|name| known.insert(*name))
        .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    if let Some(pod) = whole.object("template").and_then(|template| template.object("spec")) {
        let own = pod.list("volumes").iter().filter(|volume| !claims.clone().any(|name| volume.text("name") == name));
        volumes.extend(own.cloned());
        pod.set("volumes", volumes);
        names.into_iter().for_each(|name| pod.unset(name));
    }
    std::borrow::Cow::Owned(whole)
}

pub fn stateful_set_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource == Some("status") {
        let names = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        not_negative(object, errors, &["observedGeneration", "collisionCount"]);
        return counts(object, errors, &names, "status.readyReplicas");
    }
    stateful_set(object, errors);
    let free = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let (new, before) = (object.part("spec"), old.part("spec"));
    let names = new.as_object().into_iter().flatten().chain(before.as_object().into_iter().flatten());
    let changed = names
        .map(|(name, _)| name.as_str())
        .any(|name| !free.contains(&name) && !same(new.part(name), before.part(name)));
    if changed {
        let root = Path::Root;
        let text = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                    'minReadySeconds' are forbidden";
        Check { errors }.forbidden(&root.field("spec"), text);
    }
}

pub fn daemon_set(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    labels::selector(check, spec.part("selector"), &path.field("selector"));
    labels::matches_template(check, spec, &path);
    if let Some(selector) = spec.at("selector").filter(|selector| labels::is_empty(selector)) {
        check.invalid(&path.field("selector"), selector, "empty selector is invalid for daemonset");
    }
    pod::lasting_template(check, spec, &path, "DaemonSet");
    check.not_negative(spec, &path, "minReadySeconds");
    check.not_negative(spec, &path, "revisionHistoryLimit");
    let strategy = spec.part("updateStrategy");
    let path = path.field("updateStrategy");
    let rolling_path = path.field("rollingUpdate");
    match (strategy.text("type"), strategy.at("rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => check.required(&rolling_path, ""),
        ("RollingUpdate", Some(rolling)) => {
            for name in ["maxUnavailable", "maxSurge"] {
                check.int_or_percent(rolling, &rolling_path, name);
                check.at_most_100_percent(rolling, &rolling_path, name);
            }
            match (is_zero(rolling.part("maxUnavailable")), is_zero(rolling.part("maxSurge"))) {
                (false, false) => {
                    let text = "may not be set when maxUnavailable is non-zero";
                    check.invalid(&rolling_path.field("maxSurge"), rolling.part("maxSurge"), text);
                }
                (true, true) => {
                    check.required(&rolling_path.field("maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
        }
        _ => check.not_supported(&path, strategy, &["RollingUpdate", "OnDelete"]),
    }
}

pub fn daemon_set_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    const COUNTS: &[&str] = &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    if subresource == Some("status") {
        return not_negative(object, errors, COUNTS);
    }
    daemon_set(object, errors);
    fixed_selector(object, old, errors);
}

pub fn replication_controller_update(
    object: &Value,
    _old: &Value,
    subresource: Option<&str>,
    errors: &mut Vec<FieldError>,
) {
    if subresource == Some("status") {
        not_negative(object, errors, &["observedGeneration"]);
        return counts(object, errors, OF_REPLICAS, "readyReplicas");
    }
    replication_controller(object, errors);
}

pub fn replication_controller(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    check.not_negative(spec, &path, "minReadySeconds");
    check.not_negative(spec, &path, "replicas");
    let selector = spec.map("selector").filter(|selector| !selector.is_empty());
    if selector.is_none() {
        check.required(&path.field("selector"), "");
    }
    if !spec.has("template") {
        return check.required(&path.field("template"), "");
    }
    let labels = spec.part("template").part("metadata").part("labels");
    if selector.into_iter().flatten().any(|(key, value)| labels.get(key) != Some(value)) {
        let template = path.field("template");
        let metadata = template.field("metadata");
        check.invalid(&metadata.field("labels"), labels, "`selector` does not match template `labels`");
    }
    pod::lasting_template(check, spec, &path, "ReplicationController");
}

pub fn controller_revision(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    check.not_negative(object, &Path::Root, "revision");
    match object.at("data") {
        None => check.required(&Path::Root.field("data"), "data is mandatory"),
        Some(data) if !data.is_object() => {
            check.required(&Path::Root.field("data"), "data must be a valid JSON object");
        }
        Some(_) => {}
    }
}

pub fn controller_revision_update(
    object: &Value,
    old: &Value,
    _subresource: Option<&str>,
    errors: &mut Vec<FieldError>,
) {
    let check = &mut Check { errors };
    check.not_negative(object, &Path::Root, "revision");
    check.unchanged(object, old, &Path::Root, "data");
}
