//! Kinds that have no stable version yet.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, NONE, UNSET, age_of, holds, labels, name, or_else, shortened, since};
use crate::fields::Fields;

pub(crate) const LEASE_CANDIDATES: &[Column] = &[
    Column::name(),
    Column::string("LeaseName", "The lease that it would hold."),
    Column::string("BinaryVersion", "The version of the program."),
    Column::string("EmulationVersion", "The version that the program emulates."),
    Column::age(),
];

pub(crate) fn lease_candidate(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let [lease, binary, emulation] =
        ["leaseName", "binaryVersion", "emulationVersion"].map(|name| Value::from(spec.text(name)));
    vec![name(object), lease, binary, emulation, since(object, now)]
}

pub(crate) const TRUST_BUNDLES: &[Column] =
    &[Column::name(), Column::string("SignerName", "The signer whose certificates are trusted.")];

pub(crate) fn trust_bundle(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), or_else(object.part("spec").text("signerName"), NONE)]
}

pub(crate) const POD_CERTIFICATES: &[Column] = &[
    Column::name(),
    Column::string("PodName", "The pod that the certificate is for."),
    Column::string("ServiceAccountName", "The pod's account."),
    Column::string("NodeName", "The pod's node."),
    Column::string("SignerName", "Who is asked to sign."),
    Column::string("State", "Whether it is decided, and how."),
    Column::string("UnverifiedUserAnnotations", "What the pod says besides.").wide(),
];

pub(crate) fn pod_certificate(object: &Value, _now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let mut decided = object.part("status").list("conditions").iter().map(|one| one.text("type"));
    let state = decided.rfind(|kind| matches!(*kind, "Issued" | "Denied" | "Failed"));
    let mut cells = vec![name(object)];
    cells.extend(["podName", "serviceAccountName", "nodeName", "signerName"].map(|name| spec.text(name).into()));
    cells.push(state.unwrap_or("Pending").into());
    cells.push(labels(spec.part("unverifiedUserAnnotations")));
    cells
}

pub(crate) const POD_GROUPS: &[Column] = &[
    Column::name(),
    Column::string("Policy", "Whether the pods are scheduled all at once."),
    Column::string("Workload", "The workload that it belongs to."),
    Column::string("Status", "Whether the pods are scheduled."),
    Column::age(),
];

pub(crate) fn pod_group(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let policy = if spec.part("schedulingPolicy").has("gang") { "Gang" } else { "Basic" };
    let workload = spec.part("podGroupTemplateRef").part("workload").text("workloadName");
    let status = match (super::condition(object, "DisruptionTarget"), super::condition(object, "PodGroupScheduled")) {
        (Some(target), _) => target.text("reason"),
        (None, Some(_)) if holds(object, "PodGroupScheduled") => "Scheduled",
        (None, Some(_)) => "Unschedulable",
        (None, None) => "Pending",
    };
    vec![name(object), policy.into(), or_else(workload, NONE), status.into(), since(object, now)]
}

pub(crate) const STORAGE_VERSIONS: &[Column] = &[
    Column::name(),
    Column::string("CommonEncodingVersion", "What all servers store the resource in."),
    Column::string("StorageVersions", "What each server stores it in."),
    Column::age(),
];

pub(crate) fn storage_version(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = object.part("status");
    let of_server = |server: &Value| format!("{}={}", server.text("apiServerID"), server.text("encodingVersion"));
    let servers: Vec<String> = status.list("storageVersions").iter().map(of_server).collect();
    let common = or_else(status.text("commonEncodingVersion"), UNSET);
    vec![name(object), common, shortened(&servers).into(), since(object, now)]
}

pub(crate) const MIGRATIONS: &[Column] = &[
    Column::string("Name", "Name must be unique within a namespace."),
    Column::string("Resource", "What is migrated."),
    Column::string("Status", "How far it is."),
];

pub(crate) fn migration(object: &Value, _now: Timestamp) -> Vec<Value> {
    let wanted = object.part("spec").part("resource");
    let resource = match wanted.text("group") {
        "" => wanted.text("resource").to_owned(),
        group => format!("{}.{group}", wanted.text("resource")),
    };
    let conditions = object.part("status").list("conditions").iter();
    let mut holding = conditions.filter(|one| one.text("status") == "True").map(|one| one.text("type"));
    let state = holding.rfind(|kind| matches!(*kind, "Running" | "Succeeded" | "Failed"));
    vec![name(object), resource.into(), state.unwrap_or("Unknown").into()]
}

pub(crate) const TAINT_RULES: &[Column] = &[
    Column::name(),
    Column::string("Key", "The taint's key."),
    Column::string("Value", "The taint's value."),
    Column::string("Effect", "What the taint does."),
    Column::string("TimeAdded", "Since when it does."),
    Column::age(),
];

pub(crate) fn taint_rule(object: &Value, now: Timestamp) -> Vec<Value> {
    let taint = object.part("spec").part("taint");
    let added = if taint.has("timeAdded") { age_of(taint, "timeAdded", now) } else { String::new() };
    let [key, value, effect] = ["key", "value", "effect"].map(|name| Value::from(taint.text(name)));
    vec![name(object), key, value, effect, added.into(), since(object, now)]
}

pub(crate) const POOL_REQUESTS: &[Column] = &[
    Column::name(),
    Column::string("Driver", "Whose pools are asked for."),
    Column::string("Total", "Devices in all pools."),
    Column::string("Available", "Devices that are free."),
    Column::string("Allocated", "Devices that are taken."),
    Column::string("Unavailable", "Devices that cannot be had."),
    Column::string("Errors", "Pools that are not valid."),
    Column::integer("Pools", "Pools that match."),
    Column::string("Status", "Whether the question is answered."),
    Column::string("Completed", "Since when it is."),
];

pub(crate) fn pool_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = object.part("status");
    let pools = status.list("pools");
    let (complete, failed) = (holds(object, "Complete"), holds(object, "Failed"));
    let known = object.has("status") && (complete || !failed);
    let count = |count: usize| if known { count.to_string() } else { "-".to_owned() };
    let sum = |name: &str| {
        let sum: i64 = pools.iter().filter_map(|pool| pool.int(name)).sum();
        if known { sum.to_string() } else { "-".to_owned() }
    };
    let all = status.int("poolCount").unwrap_or_default();
    let state = match (complete, failed) {
        (true, _) if all > i64::try_from(pools.len()).unwrap_or(i64::MAX) => {
            format!("Complete ({}/{all} pools)", pools.len())
        }
        (true, _) => "Complete".to_owned(),
        (false, true) => "Failed".to_owned(),
        (false, false) => "Pending".to_owned(),
    };
    let completed = super::condition(object, "Complete").filter(|_| complete);
    let completed = completed.map_or_else(|| NONE.to_owned(), |one| age_of(one, "lastTransitionTime", now));
    let mut cells = vec![name(object), object.part("spec").text("driver").into()];
    cells.extend(
        ["totalDevices", "availableDevices", "allocatedDevices", "unavailableDevices"].map(|name| sum(name).into()),
    );
    cells.push(count(pools.iter().filter(|pool| pool.has("validationError")).count()).into());
    cells.extend([all.into(), state.into(), completed.into()]);
    cells
}
