//! CSI drivers, service networks, devices.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, UNSET, name, or_else, plain, since};
use crate::fields::Fields;

pub(crate) const CSI_DRIVERS: &[Column] = &[
    Column::name(),
    Column::boolean("AttachRequired", "Whether volumes are attached before they are mounted."),
    Column::boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
    Column::boolean("StorageCapacity", "Whether the driver says how much room there is."),
    Column::string("TokenRequests", "Tokens that the driver is given."),
    Column::boolean("RequiresRepublish", "Whether volumes are mounted again from time to time."),
    Column::string("Modes", "Kinds of volumes that the driver has."),
    Column::age(),
];

pub(crate) fn csi_driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let tokens: Vec<&str> = spec.list("tokenRequests").iter().map(|token| token.text("audience")).collect();
    let modes: Vec<&str> = spec.list("volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let attach = spec.get("attachRequired").and_then(Value::as_bool).unwrap_or(true);
    vec![
        name(object),
        attach.into(),
        spec.flag("podInfoOnMount").into(),
        spec.flag("storageCapacity").into(),
        or_else(&tokens.join(","), UNSET),
        spec.flag("requiresRepublish").into(),
        modes.join(",").into(),
        since(object, now),
    ]
}

pub(crate) const CAPACITIES: &[Column] = &[
    Column::name(),
    Column::string("StorageClassName", "The storage class."),
    Column::string("Capacity", "How much room there is."),
];

pub(crate) fn capacity(object: &Value, _now: Timestamp) -> Vec<Value> {
    let capacity = object.at("capacity").map_or_else(|| UNSET.to_owned(), plain);
    vec![name(object), object.text("storageClassName").into(), capacity.into()]
}

pub(crate) const ATTRIBUTES_CLASSES: &[Column] =
    &[Column::name(), Column::string("DriverName", "The driver."), Column::age()];

pub(crate) fn attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object.text("driverName").into(), since(object, now)]
}

pub(crate) const SERVICE_CIDRS: &[Column] = &[Column::name(), Column::string("CIDRs", "The networks."), Column::age()];

pub(crate) fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = object.part("spec").list("cidrs").iter().filter_map(Value::as_str).collect();
    vec![name(object), cidrs.join(",").into(), since(object, now)]
}

pub(crate) const IP_ADDRESSES: &[Column] =
    &[Column::name(), Column::string("ParentRef", "What has the address."), Column::age()];

pub(crate) fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = object.part("spec").part("parentRef");
    let parts = ["group", "resource", "namespace", "name"].map(|part| parent.text(part));
    let owner: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    vec![name(object), owner.join("/").into(), since(object, now)]
}

pub(crate) const RESOURCE_CLAIMS: &[Column] =
    &[Column::name(), Column::string("State", "Whether devices are allocated and reserved."), Column::age()];

pub(crate) fn resource_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = object.part("status");
    let mut states = Vec::new();
    if object.part("metadata").has("deletionTimestamp") {
        states.push("deleted");
    }
    if !status.has("allocation") {
        states.push("pending");
    } else {
        states.push("allocated");
        if !status.list("reservedFor").is_empty() {
            states.push("reserved");
        }
    }
    vec![name(object), states.join(",").into(), since(object, now)]
}

pub(crate) const RESOURCE_SLICES: &[Column] = &[
    Column::name(),
    Column::string("Node", "The node that has the devices."),
    Column::string("Driver", "Their driver."),
    Column::string("Pool", "Their pool."),
    Column::age(),
];

pub(crate) fn resource_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    vec![
        name(object),
        or_else(spec.text("nodeName"), UNSET),
        spec.text("driver").into(),
        spec.part("pool").text("name").into(),
        since(object, now),
    ]
}
