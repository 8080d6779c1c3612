//! Nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Check, placement::TAINT_EFFECTS, resources};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

pub fn node(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    taints(check, object.part("spec"));
    amounts(check, object.part("status"));
    let root = Path::Root;
    let path = root.field("spec");
    let path = path.field("podCIDRs");
    let cidrs = object.part("spec").list("podCIDRs");
    for (index, cidr) in cidrs.iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or_default();
        check.found(&path.index(index), cidr, format::cidr(cidr));
    }
    let six = |cidr: &Value| cidr.as_str().is_some_and(|cidr| cidr.contains(':'));
    if cidrs.len() > 2 || (cidrs.len() == 2 && six(&cidrs[0]) == six(&cidrs[1])) {
        let text = "may specify no more than one CIDR for each IP family";
        check.invalid(&path, &json!(cidrs), text);
    }
}

/// Upstream names taints under metadata.
fn taints(check: &mut Check<'_>, spec: &Value) {
    let root = Path::Root;
    let path = root.field("metadata");
    let list = path.field("taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in spec.list("taints").iter().enumerate() {
        let path = list.index(index);
        let (key, value, effect) = (taint.text("key"), taint.text("value"), taint.text("effect"));
        check.found(&path.field("key"), key, format::label_key(key));
        let findings = format::label_value(value);
        if !findings.is_empty() {
            check.invalid(&path.field("value"), &value.into(), &findings.join(";"));
        }
        check.choice(taint, &path, "effect", TAINT_EFFECTS);
        if !seen.insert((key, effect)) {
            check.duplicate(&path, taint);
        }
    }
}

fn amounts(check: &mut Check<'_>, status: &Value) {
    let root = Path::Root;
    let path = root.field("status");
    for list in ["capacity", "allocatable"] {
        let path = path.field(list);
        for (name, value) in status.map(list).into_iter().flatten() {
            resources::amount(check, &path.field(name), name, value);
        }
    }
}

pub fn node_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    amounts(check, object.part("status"));
    taints(check, object.part("spec"));
    let root = Path::Root;
    let list = root.field("status");
    let list = list.field("addresses");
    let addresses = object.part("status").list("addresses");
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            check.duplicate(&list.index(index), address);
        }
    }
    let path = root.field("spec");
    let (spec, before) = (object.part("spec"), old.part("spec"));
    let cidrs = before.list("podCIDRs");
    if !cidrs.is_empty() && cidrs != spec.list("podCIDRs") {
        let text = "node updates may not change podCIDR except from \"\" to valid";
        check.forbidden(&path.field("podCIDRs"), text);
    }
    let provider = before.text("providerID");
    if !provider.is_empty() && provider != spec.text("providerID") {
        let text = "node updates may not change providerID except from \"\" to valid";
        check.forbidden(&path.field("providerID"), text);
    }
}
