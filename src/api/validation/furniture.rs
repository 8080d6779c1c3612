//! Runtime classes, CSI drivers, service networks and their addresses.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, same, volumes::token_lifetime};
use crate::{failure::FieldError, fields::Fields, format, meta, path::Path};

const UPDATE_PERIOD_SECONDS_MIN: i64 = 10;

pub fn runtime_class(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let handler = object.text("handler");
    check.found(&root.field("handler"), handler, format::dns_label(handler));
    // Upstream names the overhead as if it were a container's limits.
    let overhead = root.field("overhead");
    let limits = overhead.field("limits");
    for (name, value) in object.part("overhead").map("podFixed").into_iter().flatten() {
        super::resources::name_for_container(check, &limits.key(name), name);
        super::resources::amount(check, &limits.key(name), name, value);
    }
    let Some(scheduling) = object.at("scheduling") else { return };
    let path = root.field("scheduling");
    meta::labels(scheduling.map("nodeSelector"), &path.field("nodeSelector"), check.errors);
    super::placement::tolerations(check, scheduling, &path);
    let list = path.field("tolerations");
    for (index, toleration) in scheduling.list("tolerations").iter().enumerate() {
        if scheduling.list("tolerations").iter().take(index).any(|before| same(before, toleration)) {
            check.duplicate(&list.index(index), toleration);
        }
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
    token_requests(check, spec, &path.field("tokenRequests"));
    let modes = path.field("volumeLifecycleModes");
    for mode in spec.list("volumeLifecycleModes") {
        if !matches!(mode.as_str(), Some("Ephemeral" | "Persistent")) {
            check.not_supported(&modes, mode, &["Persistent", "Ephemeral"]);
        }
    }
    let period = spec.int("nodeAllocatableUpdatePeriodSeconds");
    if let Some(seconds) = period.filter(|&seconds| seconds < UPDATE_PERIOD_SECONDS_MIN) {
        let text = format!("must be greater than or equal to {UPDATE_PERIOD_SECONDS_MIN} seconds");
        check.invalid(&path.field("nodeAllocatableUpdatePeriodSeconds"), &seconds.into(), &text);
    }
    if spec.has("serviceAccountTokenInSecrets") && spec.list("tokenRequests").is_empty() {
        let text = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        let value = spec.part("serviceAccountTokenInSecrets");
        check.invalid(&path.field("serviceAccountTokenInSecrets"), value, text);
    }
}

/// Tokens that a driver is given, one for each audience.
fn token_requests(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let mut audiences = BTreeSet::new();
    for (index, request) in spec.list("tokenRequests").iter().enumerate() {
        let path = path.index(index);
        if !audiences.insert(request.text("audience")) {
            check.duplicate(&path.field("audience"), &request.text("audience").into());
        } else if let Some(seconds) = request.int("expirationSeconds") {
            token_lifetime(check, seconds, &path.field("expirationSeconds"));
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
            let group = parent.text("group");
            if !group.is_empty() {
                check.found(&path.field("group"), group, format::dns_subdomain(group));
            }
            check.text(parent, &path, "resource");
            check.text(parent, &path, "name");
        }
    }
}

pub fn ip_address_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    Check { errors }.unchanged(object.part("spec"), old.part("spec"), &Path::Root.field("spec"), "parentRef");
}
