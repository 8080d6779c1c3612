//! Persistent volumes, claims, classes and drivers.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, UNSET, name, or_else, plain, since};
use crate::fields::Fields;

fn access_modes(holder: &Value) -> String {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let modes: Vec<&str> = holder.list("accessModes").iter().filter_map(Value::as_str).map(short).collect();
    ["RWO", "ROX", "RWX", "RWOP"].into_iter().filter(|mode| modes.contains(mode)).collect::<Vec<_>>().join(",")
}

fn phase(object: &Value) -> Value {
    if object.part("metadata").has("deletionTimestamp") {
        "Terminating".into()
    } else {
        object.part("status").text("phase").into()
    }
}

pub(crate) const VOLUMES: &[Column] = &[
    Column::name(),
    Column::string("Capacity", "How much it holds."),
    Column::string("Access Modes", "How it may be mounted."),
    Column::string("Reclaim Policy", "What becomes of it when its claim goes."),
    Column::string("Status", "Whether it is bound."),
    Column::string("Claim", "The claim that it is bound to."),
    Column::string("StorageClass", "Its storage class."),
    Column::string("VolumeAttributesClass", "Its class of attributes."),
    Column::string("Reason", "Why it is as it is."),
    Column::age(),
    Column::string("VolumeMode", "File system or block device.").wide(),
];

pub(crate) fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let claim = spec.at("claimRef").map(|claim| format!("{}/{}", claim.text("namespace"), claim.text("name")));
    vec![
        name(object),
        plain(spec.part("capacity").part("storage")).into(),
        access_modes(spec).into(),
        spec.text("persistentVolumeReclaimPolicy").into(),
        phase(object),
        claim.unwrap_or_default().into(),
        spec.text("storageClassName").into(),
        or_else(spec.text("volumeAttributesClassName"), UNSET),
        object.part("status").text("reason").into(),
        since(object, now),
        or_else(spec.text("volumeMode"), UNSET),
    ]
}

pub(crate) const CLAIMS: &[Column] = &[
    Column::name(),
    Column::string("Status", "Whether it is bound."),
    Column::string("Volume", "The volume that it is bound to."),
    Column::string("Capacity", "How much that holds."),
    Column::string("Access Modes", "How it may be mounted."),
    Column::string("StorageClass", "Its storage class."),
    Column::string("VolumeAttributesClass", "Its class of attributes."),
    Column::age(),
    Column::string("VolumeMode", "File system or block device.").wide(),
];

pub(crate) fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let bound = !spec.text("volumeName").is_empty();
    let capacity = bound.then(|| plain(status.part("capacity").part("storage")));
    let modes = bound.then(|| access_modes(status));
    vec![
        name(object),
        phase(object),
        spec.text("volumeName").into(),
        capacity.unwrap_or_default().into(),
        modes.unwrap_or_default().into(),
        spec.text("storageClassName").into(),
        or_else(spec.text("volumeAttributesClassName"), UNSET),
        since(object, now),
        or_else(spec.text("volumeMode"), UNSET),
    ]
}

pub(crate) const CLASSES: &[Column] = &[
    Column::name(),
    Column::string("Provisioner", "Who makes its volumes."),
    Column::string("ReclaimPolicy", "What becomes of a volume when its claim goes."),
    Column::string("VolumeBindingMode", "When a claim gets its volume."),
    Column::string("AllowVolumeExpansion", "Whether volumes may grow."),
    Column::age(),
];

pub(crate) fn class(object: &Value, now: Timestamp) -> Vec<Value> {
    let metadata = object.part("metadata");
    let is_default =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .into_iter()
            .any(|key| metadata.part("annotations").text(key) == "true");
    let mark = if is_default { " (default)" } else { "" };
    vec![
        format!("{}{mark}", metadata.text("name")).into(),
        object.text("provisioner").into(),
        or_else(object.text("reclaimPolicy"), "Delete"),
        or_else(object.text("volumeBindingMode"), "Immediate"),
        object.flag("allowVolumeExpansion").into(),
        since(object, now),
    ]
}

pub(crate) const ATTACHMENTS: &[Column] = &[
    Column::name(),
    Column::string("Attacher", "The driver that attaches."),
    Column::string("PV", "The volume."),
    Column::string("Node", "The node."),
    Column::boolean("Attached", "Whether it is attached."),
    Column::age(),
];

pub(crate) fn attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    vec![
        name(object),
        spec.text("attacher").into(),
        spec.part("source").text("persistentVolumeName").into(),
        spec.text("nodeName").into(),
        object.part("status").flag("attached").into(),
        since(object, now),
    ]
}

pub(crate) const CSI_NODES: &[Column] =
    &[Column::name(), Column::integer("Drivers", "How many drivers the node has."), Column::age()];

pub(crate) fn csi_node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object.part("spec").list("drivers").len().into(), since(object, now)]
}
