//! Persistent volumes, claims and classes.

use serde_json::{Value, json};

use super::{resource_list, resources};
use crate::fields::Fields;

pub fn volume(object: &mut Value) {
    if let Some(status) = object.object("status") {
        status.fill_text("phase", "Pending");
    }
    let Some(spec) = object.object("spec") else { return };
    spec.fill_text("persistentVolumeReclaimPolicy", "Retain");
    spec.fill("volumeMode", "Filesystem");
    resource_list(spec, "capacity");
    if let Some(path) = spec.at_mut("hostPath") {
        path.fill("type", "");
    }
    legacy_source(spec);
}

pub fn claim(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        claim_spec(spec);
    }
    if let Some(status) = object.object("status") {
        status.fill_text("phase", "Pending");
        resource_list(status, "capacity");
        resource_list(status, "allocatedResources");
    }
}

pub fn claim_spec(spec: &mut Value) {
    spec.fill("volumeMode", "Filesystem");
    super::empty_object(spec, "resources");
    if let Some(resources) = spec.at_mut("resources") {
        self::resources(resources);
    }
}

/// Sources whose drivers have left the tree, in volumes of pods and persistent volumes.
pub fn legacy_source(holder: &mut Value) {
    if let Some(iscsi) = holder.at_mut("iscsi") {
        iscsi.fill_text("iscsiInterface", "default");
    }
    if let Some(rbd) = holder.at_mut("rbd") {
        rbd.fill_text("pool", "rbd");
        rbd.fill_text("user", "admin");
        rbd.fill_text("keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = holder.at_mut("azureDisk") {
        disk.fill("cachingMode", "ReadWrite");
        disk.fill("fsType", "ext4");
        disk.fill("readOnly", false);
        disk.fill("kind", "Shared");
    }
    if let Some(scale_io) = holder.at_mut("scaleIO") {
        scale_io.fill_text("storageMode", "ThinProvisioned");
        scale_io.fill_text("fsType", "xfs");
    }
}

pub fn class(object: &mut Value) {
    object.fill("reclaimPolicy", "Delete");
    object.fill("volumeBindingMode", "Immediate");
}

pub fn csi_driver(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    spec.fill("attachRequired", true);
    spec.fill("podInfoOnMount", false);
    spec.fill("storageCapacity", false);
    spec.fill("fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        spec.set("volumeLifecycleModes", json!(["Persistent"]));
    }
    spec.fill("requiresRepublish", false);
    spec.fill("seLinuxMount", false);
}

pub fn csi_node(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill("drivers", json!([]));
    }
}

pub fn attachment(object: &mut Value) {
    let source = object.at_mut("spec").and_then(|spec| spec.at_mut("source"));
    if let Some(inline) = source.and_then(|source| source.at_mut("inlineVolumeSpec")) {
        resource_list(inline, "capacity");
        legacy_source(inline);
    }
}

pub fn capacity(object: &mut Value) {
    super::quantity(object, "capacity");
    super::quantity(object, "maximumVolumeSize");
}
