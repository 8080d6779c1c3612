//! Persistent volumes, claims, classes and drivers.

use serde_json::Value;

use super::{Check, labels, placement, same, volumes};
use crate::{failure::FieldError, fields::Fields, format, path::Path, quantity::Quantity};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const NODE_ID_BYTES_MAX: usize = 256;
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
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
    if let Some(required) = spec.part("nodeAffinity").at("required") {
        placement::node_selector(check, required, &path.field("nodeAffinity").field("required"));
    }
    let mut sources = 0;
    for (name, source) in spec.as_object().into_iter().flatten() {
        if COMMON_FIELDS.contains(&name.as_str()) || source.is_null() {
            continue;
        }
        sources += 1;
        let path = path.field(name);
        if sources > 1 {
            check.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        match name.as_str() {
            "hostPath" => volumes::host_path(check, source, &path),
            "local" => {
                if check.text(source, &path, "path") {
                    volumes::no_backsteps(check, source.text("path"), &path.field("path"));
                }
                if !spec.part("nodeAffinity").has("required") {
                    let root = Path::Root;
                    let path = root.field("spec");
                    check.required(&path.field("nodeAffinity"), "Local volume requires node affinity");
                }
            }
            "csi" => {
                check.text(source, &path, "driver");
                check.text(source, &path, "volumeHandle");
            }
            "nfs" => {
                check.text(source, &path, "server");
                check.text(source, &path, "path");
            }
            _ => {}
        }
    }
    if sources == 0 {
        check.required(&path, "must specify a volume type");
    }
    class_name(check, spec, &path, "storageClassName");
    check.one_of(spec, &path, "volumeMode", VOLUME_MODES);
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
    class_name(check, spec, path, "volumeAttributesClassName");
    check.one_of(spec, path, "volumeMode", VOLUME_MODES);
    if let Some(source) = spec.at("dataSource") {
        let path = path.field("dataSource");
        check.text(source, &path, "name");
        check.text(source, &path, "kind");
    }
}

pub fn claim(object: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    claim_spec(&mut Check { errors }, object.part("spec"), &root.field("spec"));
}

/// Of a claim that has its volume, only what it asks for may grow; before that, it may get a volume and a class.
pub fn claim_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_some() {
        return;
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

pub fn class(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let name = object.text("provisioner");
    if check.text(object, &root, "provisioner") {
        let lower = name.to_ascii_lowercase();
        check.found(&root.field("provisioner"), name, format::label_key(&lower));
    }
    check.one_of(object, &root, "reclaimPolicy", &["Delete", "Retain"]);
    check.choice(object, &root, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
    parameters(check, object);
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
        if check.text(driver, &path, "name") {
            check.found(&path.field("name"), name, format::dns_subdomain(&name.to_ascii_lowercase()));
        }
        if drivers[..index].iter().any(|other| other.text("name") == name) {
            check.duplicate(&path.field("name"), &name.into());
        }
        if check.text(driver, &path, "nodeID") && driver.text("nodeID").len() > NODE_ID_BYTES_MAX {
            let text = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            check.invalid(&path.field("nodeID"), driver.part("nodeID"), &text);
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
    check.text(spec, &path, "attacher");
    check.text(spec, &path, "nodeName");
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
}

pub fn attachment_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_none() {
        Check { errors }.unchanged(object, old, &Path::Root, "spec");
    }
}
