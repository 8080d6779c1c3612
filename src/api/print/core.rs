//! Nodes, namespaces, events, configuration.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, NONE, UNKNOWN, age, condition, name, number, or_else, plain, since};
use crate::fields::Fields;

pub(crate) const NODES: &[Column] = &[
    Column::name(),
    Column::string("Status", "Whether the node is ready and takes pods."),
    Column::string("Roles", "The roles of the node."),
    Column::age(),
    Column::string("Version", "The version of its kubelet."),
    Column::string("Internal-IP", "Its address within the cluster.").wide(),
    Column::string("External-IP", "Its address outside of the cluster.").wide(),
    Column::string("OS-Image", "Its operating system.").wide(),
    Column::string("Kernel-Version", "Its kernel.").wide(),
    Column::string("Container-Runtime", "Its container runtime.").wide(),
];

pub(crate) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
    let info = object.part("status").part("nodeInfo");
    let mut status = match condition(object, "Ready") {
        Some(ready) if ready.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.part("spec").flag("unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object.part("metadata").map("labels");
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.as_str() {
            "kubernetes.io/role" => value.as_str(),
            key => key.strip_prefix(ROLE_PREFIX),
        })
        .filter(|role| !role.is_empty())
        .collect();
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let address = |kind: &str| {
        let addresses = object.part("status").list("addresses");
        let own = addresses.iter().find(|address| address.text("type") == kind);
        or_else(own.map_or("", |address| address.text("address")), NONE)
    };
    let mut kernel = or_else(info.text("kernelVersion"), UNKNOWN);
    if !info.text("architecture").is_empty() {
        kernel = format!("{} ({})", kernel.as_str().unwrap_or_default(), info.text("architecture")).into();
    }
    vec![
        name(object),
        status.into(),
        or_else(&roles, NONE),
        since(object, now),
        info.text("kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        or_else(info.text("osImage"), UNKNOWN),
        kernel,
        or_else(info.text("containerRuntimeVersion"), UNKNOWN),
    ]
}

pub(crate) const NAMESPACES: &[Column] =
    &[Column::name(), Column::string("Status", "Whether the namespace is in use or going."), Column::age()];

pub(crate) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object.part("status").text("phase").into(), since(object, now)]
}

pub(crate) const EVENTS: &[Column] = &[
    Column::string("Last Seen", "Time since it last happened."),
    Column::string("Type", "Normal or Warning."),
    Column::string("Reason", "Why, in a word for programs."),
    Column::string("Object", "What it is about."),
    Column::string("Subobject", "The part of the object.").wide(),
    Column::string("Source", "Who says so.").wide(),
    Column::string("Message", "What happened, for people."),
    Column::string("First Seen", "Time since it first happened.").wide(),
    Column::string("Count", "How often it happened.").wide(),
    Column::name().wide(),
];

pub(crate) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let time = |name: &str| object.at(name).and_then(Value::as_str);
    let first = age(time("firstTimestamp").or(time("eventTime")), now);
    let mut last = time("lastTimestamp").map_or_else(|| first.clone(), |time| age(Some(time), now));
    let mut count = object.int("count").filter(|&count| count != 0).unwrap_or(1);
    if let Some(series) = object.at("series") {
        last = age(series.at("lastObservedTime").and_then(Value::as_str), now);
        count = series.int("count").unwrap_or_default();
    }
    let about = object.part("involvedObject");
    let mut target = about.text("kind").to_lowercase();
    if !about.text("name").is_empty() {
        target = format!("{target}/{}", about.text("name"));
    }
    let either = |one: &str, other: &str| if one.is_empty() { other.to_owned() } else { one.to_owned() };
    let source = object.part("source");
    let component = either(source.text("component"), object.text("reportingComponent"));
    let instance = either(source.text("host"), object.text("reportingInstance"));
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    vec![
        last.into(),
        object.text("type").into(),
        object.text("reason").into(),
        target.into(),
        about.text("fieldPath").into(),
        source.into(),
        object.text("message").trim().into(),
        first.into(),
        count.into(),
        name(object),
    ]
}

/// Events of their own group are shown as the core group's.
pub(crate) fn new_event(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut core = object.clone();
    crate::strategy::convert::event_to_core(&mut core);
    event(&core, now)
}

pub(crate) const SECRETS: &[Column] = &[
    Column::name(),
    Column::string("Type", "What its keys are."),
    Column::string("Data", "How many keys it has."),
    Column::age(),
];

pub(crate) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = object.map("data").map_or(0, serde_json::Map::len);
    vec![name(object), object.text("type").into(), keys.into(), since(object, now)]
}

pub(crate) const CONFIG_MAPS: &[Column] =
    &[Column::name(), Column::string("Data", "How many keys it has."), Column::age()];

pub(crate) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys: usize = ["data", "binaryData"].iter().filter_map(|name| object.map(name)).map(serde_json::Map::len).sum();
    vec![name(object), keys.into(), since(object, now)]
}

pub(crate) const QUOTAS: &[Column] = &[
    Column::name(),
    Column::string("Request", "What is used of each quota but limits."),
    Column::string("Limit", "What is used of each quota of limits."),
    Column::age(),
];

pub(crate) fn quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = object.part("status");
    let mut columns = [Vec::new(), Vec::new()];
    for (resource, hard) in status.map("hard").into_iter().flatten() {
        let used = status.part("used").at(resource).map_or_else(|| "0".to_owned(), plain);
        let limits = usize::from(resource.starts_with("limits."));
        columns[limits].push(format!("{resource}: {used}/{}", plain(hard)));
    }
    let [requests, limits] = columns.map(|column| Value::from(column.join(", ")));
    vec![name(object), requests, limits, since(object, now)]
}

pub(crate) const LEASES: &[Column] = &[Column::name(), Column::string("Holder", "Who holds the lease."), Column::age()];

pub(crate) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object.part("spec").text("holderIdentity").into(), since(object, now)]
}

pub(crate) const PRIORITY_CLASSES: &[Column] = &[
    Column::name(),
    Column::integer("Value", "Pods of a higher one go first."),
    Column::boolean("Global-Default", "Whether pods without a class get it."),
    Column::age(),
    Column::string("PreemptionPolicy", "Whether pods of it make others go."),
];

pub(crate) fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        number(object, "value"),
        object.flag("globalDefault").into(),
        since(object, now),
        object.text("preemptionPolicy").into(),
    ]
}

pub(crate) const RUNTIME_CLASSES: &[Column] =
    &[Column::name(), Column::string("Handler", "The runtime's handler."), Column::age()];

pub(crate) fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object.text("handler").into(), since(object, now)]
}

pub(crate) const COMPONENT_STATUSES: &[Column] = &[
    Column::name(),
    Column::string("Status", "Whether it is well."),
    Column::string("Message", "What it says."),
    Column::string("Error", "What keeps it from being well."),
];

pub(crate) fn component_status(object: &Value, _now: Timestamp) -> Vec<Value> {
    let none = Value::Null;
    let healthy = object.list("conditions").iter().find(|one| one.text("type") == "Healthy").unwrap_or(&none);
    let status = match healthy.text("status") {
        "" => "Unknown",
        "True" => "Healthy",
        _ => "Unhealthy",
    };
    vec![name(object), status.into(), healthy.text("message").into(), healthy.text("error").into()]
}
