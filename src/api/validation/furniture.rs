//! Runtime classes, CSI drivers, service networks and their addresses.

use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

pub fn runtime_class(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let handler = object.text("handler");
    check.found(&root.field("handler"), handler, format::dns_label(handler));
    let overhead = root.field("overhead");
    let fixed = overhead.field("podFixed");
    for (name, value) in object.part("overhead").map("podFixed").into_iter().flatten() {
        super::resources::amount(check, &fixed.key(name), name, value);
    }
}

pub fn runtime_class_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    Check { errors }.unchanged(object, old, &Path::Root, "handler");
}

pub fn csi_driver(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    for name in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !spec.has(name) {
            check.required(&path.field(name), "");
        }
    }
    check.one_of(spec, &path, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]);
    let modes = path.field("volumeLifecycleModes");
    for mode in spec.list("volumeLifecycleModes") {
        if !matches!(mode.as_str(), Some("Ephemeral" | "Persistent")) {
            check.not_supported(&modes, mode, &["Ephemeral", "Persistent"]);
        }
    }
}

pub fn csi_driver_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    csi_driver(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    for name in ["attachRequired", "volumeLifecycleModes"] {
        check.unchanged(object.part("spec"), old.part("spec"), &path, name);
    }
}

pub fn service_cidr(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let list = path.field("cidrs");
    let cidrs = object.part("spec").list("cidrs");
    if cidrs.is_empty() {
        check.required(&list, "at least one CIDR required");
    }
    if cidrs.len() > 2 {
        check.invalid(&list, object.part("spec"), "may only hold up to 2 values");
    }
    for (index, cidr) in cidrs.iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or_default();
        check.found(&list.index(index), cidr, format::cidr(cidr));
    }
    let six = |cidr: &Value| cidr.as_str().is_some_and(|cidr| cidr.contains(':'));
    if let [one, other] = cidrs
        && six(one) == six(other)
    {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        check.invalid(&list, object.part("spec").part("cidrs"), text);
    }
}

pub fn ip_address(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let path = path.field("parentRef");
    match object.part("spec").at("parentRef") {
        None => check.required(&path, ""),
        Some(parent) => {
            check.text(parent, &path, "resource");
            check.text(parent, &path, "name");
        }
    }
}

pub fn ip_address_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    Check { errors }.unchanged(object.part("spec"), old.part("spec"), &Path::Root.field("spec"), "parentRef");
}
