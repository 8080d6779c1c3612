//! Persistent volumes, claims, classes and drivers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::volume_drivers::{self, Holder};
use super::{Check, labels, placement, same, volumes};
use crate::{failure::FieldError, fields::Fields, format, path::Path, quantity::Quantity};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const NODE_ID_BYTES_MAX: usize = 256;
const DRIVER_BYTES_MAX: usize = 63;
/// Findings about one topology term that is there again.
const TOPOLOGIES_SAID_MAX: usize = 128;
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
/// Where a persistent volume can be, in upstream's order: of several, the first is checked and the others are forbidden.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
/// Fields of a persistent volume's spec that do not say where its data is.
const COMMON_FIELDS: &[&str] = &[
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

fn access_modes(check: &mut Check<'_>, spec: &Value, path: &Path<'_>, detail: &str) {
    let path = path.field("accessModes");
    let modes = spec.list("accessModes");
    if modes.is_empty() {
        check.required(&path, detail);
    }
    for mode in modes {
        if !mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode)) {
            check.not_supported(&path, mode, ACCESS_MODES);
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        check.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// The name of a driver, which is a DNS name but for upper case.
pub(crate) fn driver_name(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, name: &str) {
    if check.text(holder, path, name) {
        let (here, driver) = (path.field(name), holder.text(name));
        if driver.len() > DRIVER_BYTES_MAX {
            check.errors.push(FieldError::too_long(&here, DRIVER_BYTES_MAX));
        }
        check.found(&here, driver, format::dns_subdomain(&driver.to_ascii_lowercase()));
    }
}

/// A secret by name and namespace.
fn secret_reference(check: &mut Check<'_>, reference: &Value, path: &Path<'_>) {
    if check.text(reference, path, "name") {
        check.found(&path.field("name"), reference.text("name"), format::dns_subdomain(reference.text("name")));
    }
    if check.text(reference, path, "namespace") {
        let namespace = reference.text("namespace");
        check.found(&path.field("namespace"), namespace, format::dns_label(namespace));
    }
}

fn positive(check: &mut Check<'_>, value: &Value, path: &Path<'_>) {
    if check.quantity(path, value).is_some_and(Quantity::is_zero) {
        check.invalid(path, value, "must be greater than zero");
    }
}

fn class_name(check: &mut Check<'_>, spec: &Value, path: &Path<'_>, name: &str) {
    let class = spec.text(name);
    if !class.is_empty() {
        check.found(&path.field(name), class, format::dns_subdomain(class));
    }
}

pub fn volume(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    access_modes(check, spec, &path, "");
    let capacity = path.field("capacity");
    let amounts = spec.map("capacity").filter(|capacity| !capacity.is_empty());
    if amounts.is_none() {
        check.required(&capacity, "");
    }
    if amounts.is_none_or(|amounts| !amounts.contains_key("storage") || amounts.len() > 1) {
        check.not_supported(&capacity, spec.part("capacity"), &["storage"]);
    }
    for (name, value) in amounts.into_iter().flatten() {
        positive(check, value, &capacity.key(name));
    }
    check.one_of(spec, &path, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]);
    if let Some(affinity) = spec.at("nodeAffinity") {
        let here = path.field("nodeAffinity");
        match affinity.at("required") {
            Some(required) => placement::node_selector(check, required, &here.field("required")),
            None => check.required(&here.field("required"), "must specify required node constraints"),
        }
    }
    volume_source(check, spec, object.part("metadata").text("name"), &path);
    class_name(check, spec, &path, "storageClassName");
    check.one_of(spec, &path, "volumeMode", VOLUME_MODES);
    if spec.has("volumeAttributesClassName") {
        if spec.text("volumeAttributesClassName").is_empty() {
            check.required(&path.field("volumeAttributesClassName"), "an empty string is disallowed");
        }
        class_name(check, spec, &path, "volumeAttributesClassName");
        if !spec.has("csi") {
            check.required(&path.field("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

/// Where a persistent volume's data is.
fn volume_source(check: &mut Check<'_>, spec: &Value, name: &str, path: &Path<'_>) {
    let whole = path;
    let mut sources = 0;
    for &kind in SOURCES {
        let Some(source) = spec.at(kind) else { continue };
        sources += 1;
        if sources > 1 {
            let said = if kind == "cephfs" { "cephFS" } else { kind };
            check.forbidden(&path.field(said), "may not specify more than 1 volume type");
            continue;
        }
        let path = path.field(kind);
        match kind {
            "hostPath" => volumes::host_path(check, source, &path),
            "local" => {
                if check.text(source, &path, "path") {
                    volumes::no_backsteps(check, source.text("path"), &path.field("path"));
                }
                if !spec.has("nodeAffinity") {
                    check.required(&whole.field("nodeAffinity"), "Local volume requires node affinity");
                }
            }
            "csi" => {
                driver_name(check, source, &path, "driver");
                check.text(source, &path, "volumeHandle");
                for name in [
                    "controllerPublishSecretRef",
                    "controllerExpandSecretRef",
                    "nodePublishSecretRef",
                    "nodeExpandSecretRef",
                ] {
                    if let Some(reference) = source.at(name) {
                        secret_reference(check, reference, &path.field(name));
                    }
                }
            }
            "nfs" => volumes::nfs(check, source, &path),
            _ => volume_drivers::source(check, kind, source, Holder::Persistent(name), whole),
        }
    }
    if sources == 0 {
        check.required(path, "must specify a volume type");
    }
    // What is recycled is emptied, and the root of a host is not.
    let place = spec.part("hostPath").text("path");
    let root = format::is_absolute(place) && place.split('/').all(|part| matches!(part, "" | "."));
    if root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let text = "may not be 'recycle' for a hostPath mount of '/'";
        check.forbidden(&path.field("persistentVolumeReclaimPolicy"), text);
    }
}

pub fn volume_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_some() {
        return;
    }
    volume(object, errors);
    let check = &mut Check { errors };
    let (spec, before) = (object.part("spec"), old.part("spec"));
    let root = Path::Root;
    let names = spec.as_object().into_iter().flatten().chain(before.as_object().into_iter().flatten());
    let moved = names
        .map(|(name, _)| name.as_str())
        .any(|name| !COMMON_FIELDS.contains(&name) && !same(spec.part(name), before.part(name)));
    if moved {
        let path = root.field("spec");
        let text = "spec.persistentvolumesource is immutable after creation";
        check.forbidden(&path.field("persistentvolumesource"), text);
    }
    check.unchanged(spec, before, &root, "volumeMode");
    if before.has("nodeAffinity") {
        check.unchanged(spec, before, &root, "nodeAffinity");
    }
}

pub(crate) fn claim_spec(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    access_modes(check, spec, path, "at least 1 access mode is required");
    if let Some(selector) = spec.at("selector") {
        labels::selector(check, selector, &path.field("selector"));
    }
    let resources = path.field("resources");
    match spec.part("resources").part("requests").at("storage") {
        None => check.required(&resources.key("storage"), ""),
        Some(storage) => positive(check, storage, &resources.key("storage")),
    }
    class_name(check, spec, path, "storageClassName");
    check.one_of(spec, path, "volumeMode", VOLUME_MODES);
    for name in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.at(name) {
            data_source(check, source, &path.field(name));
        }
    }
    let (source, reference) = (spec.part("dataSource"), spec.part("dataSourceRef"));
    let place = Value::from(path.field("dataSource").to_string());
    if !reference.text("namespace").is_empty() {
        if spec.has("dataSource") {
            check.invalid(path, &place, "may not be specified when dataSourceRef.namespace is specified");
        }
    } else if spec.has("dataSource")
        && spec.has("dataSourceRef")
        && ["apiGroup", "kind", "name"].into_iter().any(|name| source.at(name) != reference.at(name))
    {
        check.invalid(path, &place, "must match dataSourceRef");
    }
    class_name(check, spec, path, "volumeAttributesClassName");
}

/// What a claim's volume is filled with.
fn data_source(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    check.text(source, path, "name");
    check.text(source, path, "kind");
    let (group, kind) = (source.text("apiGroup"), source.text("kind"));
    if group.is_empty() {
        if kind != "PersistentVolumeClaim" {
            let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            check.invalid(path, &kind.into(), text);
        }
    } else {
        check.found(&path.field("apiGroup"), group, format::dns_subdomain(group));
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        check.found(&path.field("namespace"), namespace, format::dns_label(namespace));
    }
}

pub fn claim(object: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    claim_spec(&mut Check { errors }, object.part("spec"), &root.field("spec"));
}

/// Of a claim that has its volume, only what it asks for may grow; before that, it may get a volume and a class.
pub fn claim_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_some() {
        return claim_status(object, errors);
    }
    claim(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let (spec, before) = (object.part("spec"), old.part("spec"));
    let bound = old.part("status").text("phase") == "Bound";
    let names = spec.as_object().into_iter().flatten().chain(before.as_object().into_iter().flatten());
    let changed = names.map(|(name, _)| name.as_str()).any(|name| match name {
        "volumeAttributesClassName" => false,
        "volumeName" if before.text("volumeName").is_empty() => false,
        "storageClassName" if !before.has("storageClassName") => false,
        "resources" if bound => !same(spec.part(name).part("limits"), before.part(name).part("limits")),
        _ => !same(spec.part(name), before.part(name)),
    });
    if changed {
        let text = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                    bound claims";
        check.forbidden(&path, text);
    }
    let asked = |spec: &Value| Quantity::from_value(spec.part("resources").part("requests").part("storage")).ok();
    if let (Some(now), Some(then)) = (asked(spec), asked(before))
        && now < then
    {
        let resources = path.field("resources");
        let requests = resources.field("requests");
        check.forbidden(&requests.field("storage"), "field can not be less than previous value");
    }
}

/// What a claim has, and how far a change of its size has come.
fn claim_status(object: &Value, errors: &mut Vec<FieldError>) {
    const RESIZES: &[&str] = &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("status");
    let status = object.part("status");
    let amount = |check: &mut Check<'_>, value: &Value, path: &Path<'_>| {
        if Quantity::from_value(value).is_ok_and(Quantity::is_negative) {
            check.invalid(path, value, "must be a valid resource quantity");
        }
    };
    let here = path.field("capacity");
    for (name, value) in status.map("capacity").into_iter().flatten() {
        amount(check, value, &here.key(name));
    }
    let here = path.field("allocatedResourceStatuses");
    for (name, value) in status.map("allocatedResourceStatuses").into_iter().flatten() {
        only_storage(check, name, &here);
        if !value.as_str().is_some_and(|value| RESIZES.contains(&value)) {
            check.not_supported(&here, &name.as_str().into(), RESIZES);
        }
    }
    let here = path.field("allocatedResources");
    for (name, value) in status.map("allocatedResources").into_iter().flatten() {
        if only_storage(check, name, &here) {
            amount(check, value, &here.key(name));
        }
    }
}

/// Of Kubernetes' own resources, a claim has storage only.
fn only_storage(check: &mut Check<'_>, name: &str, path: &Path<'_>) -> bool {
    let findings = format::label_key(name);
    let fine = findings.is_empty();
    check.found(path, name, findings);
    if fine && name != "storage" && super::resources::is_native(name) {
        check.not_supported(path, &name.into(), &["storage"]);
        return false;
    }
    fine
}

pub fn class(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let name = object.text("provisioner");
    if check.text(object, &root, "provisioner") {
        let lower = name.to_ascii_lowercase();
        check.found(&root.field("provisioner"), name, format::label_key(&lower));
    }
    if !object.text("reclaimPolicy").is_empty() {
        check.one_of(object, &root, "reclaimPolicy", &["Delete", "Retain"]);
    }
    check.choice(object, &root, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
    parameters(check, object);
    topologies(check, object, &root.field("allowedTopologies"));
}

/// Where volumes of a class may be. A key is there once in a term, and a term once in the list. What has no
/// requirement at all is as another that has none, and so is told once for each place in the list.
fn topologies(check: &mut Check<'_>, class: &Value, path: &Path<'_>) {
    let terms = class.list("allowedTopologies");
    // Upstream compares each term with as many empty ones as there are terms, and then with those before it.
    let mut known: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index);
        let list = path.field("matchLabelExpressions");
        let mut keys = BTreeMap::new();
        for (index, expression) in term.list("matchLabelExpressions").iter().enumerate() {
            let path = list.index(index);
            let here = path.field("values");
            let mut values = BTreeSet::new();
            if expression.list("values").is_empty() {
                check.required(&here, "");
            }
            for (index, value) in expression.list("values").iter().enumerate() {
                if !values.insert(value.as_str().unwrap_or_default()) {
                    check.duplicate(&here.index(index), value);
                }
            }
            let key = expression.text("key");
            check.found(&path.field("key"), key, format::label_key(key));
            if keys.insert(key, values).is_some() {
                check.duplicate(&path.field("key"), &key.into());
            }
        }
        for _ in known.iter().filter(|before| **before == keys).take(TOPOLOGIES_SAID_MAX) {
            check.duplicate(&list, &"".into());
        }
        known.push(keys);
    }
}

fn parameters(check: &mut Check<'_>, object: &Value) {
    let root = Path::Root;
    let path = root.field("parameters");
    let parameters = object.map("parameters");
    if parameters.is_some_and(|all| all.len() > PARAMETERS_MAX) {
        return check.errors.push(FieldError::too_long(&path, PARAMETERS_MAX));
    }
    let mut bytes = 0;
    for (key, value) in parameters.into_iter().flatten() {
        if key.is_empty() {
            check.invalid(&path, &"".into(), "field can not be empty.");
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > PARAMETERS_BYTES_MAX {
        check.errors.push(FieldError::too_long(&path, PARAMETERS_BYTES_MAX));
    }
}

pub fn class_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    class(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    if !same(object.part("parameters"), old.part("parameters")) {
        check.forbidden(&root.field("parameters"), "updates to parameters are forbidden.");
    }
    if object.text("provisioner") != old.text("provisioner") {
        check.forbidden(&root.field("provisioner"), "updates to provisioner are forbidden.");
    }
    if object.text("reclaimPolicy") != old.text("reclaimPolicy") {
        check.forbidden(&root.field("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
    }
    check.unchanged(object, old, &root, "volumeBindingMode");
}

pub fn csi_node(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let list = path.field("drivers");
    let drivers = object.part("spec").list("drivers");
    for (index, driver) in drivers.iter().enumerate() {
        let path = list.index(index);
        let name = driver.text("name");
        driver_name(check, driver, &path, "name");
        if check.text(driver, &path, "nodeID") && driver.text("nodeID").len() > NODE_ID_BYTES_MAX {
            let text = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            check.invalid(&path.field("nodeID"), driver.part("nodeID"), &text);
        }
        check.not_negative(driver.part("allocatable"), &path.field("allocatable"), "count");
        if drivers.iter().take(index).any(|other| other.text("name") == name) {
            check.duplicate(&path.field("name"), &name.into());
        }
        let mut keys = BTreeSet::new();
        for key in driver.list("topologyKeys").iter().filter_map(Value::as_str) {
            if key.is_empty() {
                check.required(&path, "");
            }
            if !keys.insert(key) {
                check.duplicate(&path, &key.into());
            }
            check.found(&path, key, format::label_key(key));
        }
    }
}

/// What a driver said of itself stays, but for how many volumes there may be.
pub fn csi_node_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    csi_node(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    for driver in object.part("spec").list("drivers") {
        let before = old.part("spec").list("drivers").iter().find(|one| one.text("name") == driver.text("name"));
        let changed = |name: &str| before.is_some_and(|before| !same(driver.part(name), before.part(name)));
        if changed("nodeID") || changed("topologyKeys") {
            check.invalid(&path.field("drivers"), driver, super::IMMUTABLE);
        }
    }
}

pub fn capacity(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    labels::selector(check, object.part("nodeTopology"), &root.field("nodeTopology"));
    let class = object.text("storageClassName");
    check.found(&root.field("storageClassName"), class, format::dns_subdomain(class));
    if let Some(capacity) = object.at("capacity") {
        check.quantity(&root.field("capacity"), capacity);
    }
}

pub fn capacity_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    check.unchanged(object, old, &Path::Root, "nodeTopology");
    check.unchanged(object, old, &Path::Root, "storageClassName");
}

pub fn attributes_class(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    if check.text(object, &root, "driverName") {
        let name = object.text("driverName");
        check.found(&root.field("driverName"), name, format::label_key(&name.to_ascii_lowercase()));
    }
    parameters(check, object);
    if object.map("parameters").is_none_or(serde_json::Map::is_empty) {
        check.required(&root.field("parameters"), "must contain at least one key/value pair");
    }
}

pub fn attributes_class_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    for name in ["driverName", "parameters"] {
        if !same(object.part(name), old.part(name)) {
            Check { errors }.forbidden(&root.field(name), &format!("updates to {name} are forbidden."));
        }
    }
    attributes_class(object, errors);
}

pub fn attachment(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    driver_name(check, spec, &path, "attacher");
    if check.text(spec, &path, "nodeName") {
        check.found(&path.field("nodeName"), spec.text("nodeName"), format::dns_subdomain(spec.text("nodeName")));
    }
    let source = path.field("source");
    match (spec.part("source").has("inlineVolumeSpec"), spec.part("source").has("persistentVolumeName")) {
        (false, false) => {
            check.required(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, true) => {
            check.forbidden(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        _ => {}
    }
    if spec.part("source").has("persistentVolumeName") {
        let (here, name) = (source.field("persistentVolumeName"), spec.part("source").text("persistentVolumeName"));
        if name.is_empty() && !spec.part("source").has("inlineVolumeSpec") {
            check.required(&here, "must specify non empty persistentVolumeName");
        }
        check.found(&here, name, format::dns_subdomain(name));
    }
}

pub fn attachment_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_none() {
        Check { errors }.unchanged(object, old, &Path::Root, "spec");
    }
}
