//! Which of a pod's volumes a container has, as directories and as block devices.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, container::Pod, volumes};
use crate::{fields::Fields, path::Path};

pub(crate) fn mounts(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let list = path.field("volumeMounts");
    let devices = container.list("volumeDevices");
    let mut points = BTreeSet::new();
    for (index, mount) in container.list("volumeMounts").iter().enumerate() {
        let path = list.index(index);
        let name = mount.text("name");
        if name.is_empty() {
            check.required(&path.field("name"), "");
        }
        if !pod.volumes.contains_key(name) {
            check.not_found(&path.field("name"), &name.into());
        }
        let point = mount.text("mountPath");
        if point.is_empty() {
            check.required(&path.field("mountPath"), "");
        }
        if !points.insert(point) {
            check.invalid(&path.field("mountPath"), mount.part("mountPath"), "must be unique");
        }
        if devices.iter().any(|device| device.text("name") == name) {
            check.invalid(&path.field("name"), &name.into(), "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.text("devicePath") == point) {
            let text = "must not already exist as a path in volumeDevices";
            check.invalid(&path.field("mountPath"), &point.into(), text);
        }
        let (sub_path, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !sub_path.is_empty() {
            volumes::descending(check, sub_path, &list.field("subPath"));
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let text = "subPathExpr and subPath are mutually exclusive";
                check.invalid(&path.field("subPathExpr"), mount.part("subPathExpr"), text);
            }
            volumes::descending(check, expression, &list.field("subPathExpr"));
        }
        check.one_of(mount, &list, "mountPropagation", &["Bidirectional", "HostToContainer", "None"]);
        if mount.text("mountPropagation") == "Bidirectional" && !container.part("securityContext").flag("privileged") {
            let text = "Bidirectional mount propagation is available only to privileged containers";
            check.forbidden(&list.field("mountPropagation"), text);
        }
        let recursive = mount.text("recursiveReadOnly");
        if mount.has("recursiveReadOnly") {
            check.one_of(mount, &list, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"]);
            if matches!(recursive, "Enabled" | "IfPossible") {
                let here = list.field("recursiveReadOnly");
                if !mount.flag("readOnly") {
                    check.forbidden(&here, "may only be specified when readOnly is true");
                }
                if mount.has("mountPropagation") && mount.text("mountPropagation") != "None" {
                    let text = "may only be specified when mountPropagation is None or not specified";
                    check.forbidden(&here, text);
                }
            }
        }
    }
    block_devices(check, container, pod, &path.field("volumeDevices"));
}

/// Volumes that are there as devices.
fn block_devices(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let mounts = container.list("volumeMounts");
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in container.list("volumeDevices").iter().enumerate() {
        let path = path.index(index);
        let (name, place) = (device.text("name"), device.text("devicePath"));
        let (name_path, place_path) = (path.field("name"), path.field("devicePath"));
        let (name_value, place_value) = (Value::from(name), Value::from(place));
        check.text(device, &path, "name");
        if !name.is_empty() && !names.insert(name) {
            check.invalid(&name_path, &name_value, "must be unique");
        }
        match pod.volumes.get(name) {
            None => check.not_found(&name_path, &name_value),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                check.invalid(&name_path, &name_value, text);
            }
            Some(_) => {}
        }
        check.text(device, &path, "devicePath");
        if places.contains(place) {
            check.invalid(&place_path, &place_value, "must be unique");
        }
        if place.split('/').any(|part| part == "..") {
            check.invalid(&place_path, &place_value, "can not contain backsteps ('..')");
        } else {
            places.insert(place);
        }
        if mounts.iter().any(|mount| mount.text("name") == name) {
            check.invalid(&name_path, &name_value, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == place) {
            check.invalid(&place_path, &place_value, "must not already exist as a path in volumeMounts");
        }
    }
}
