//! Annotations of pods that mean something.

use serde_json::{Map, Value};

use super::Check;
use crate::{fields::Fields, path::Path};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn annotations(pod: &Value) -> Option<&Map<String, Value>> {
    pod.part("metadata").map("annotations")
}

pub(crate) fn create(check: &mut Check<'_>, pod: &Value) {
    let root = Path::Root;
    let path = root.field("metadata");
    let path = path.field("annotations");
    let text = |name: &str| annotations(pod)?.get(name)?.as_str();
    if let Some(mirror) = text(MIRROR)
        && pod.part("spec").text("nodeName").is_empty()
    {
        check.invalid(&path.key(MIRROR), &mirror.into(), "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(cost) = text(DELETION_COST)
        && (cost.parse::<i32>().is_err() || cost.starts_with('+') || (cost.starts_with('0') && cost != "0"))
    {
        check.invalid(&path.key(DELETION_COST), &cost.into(), "must be a 32bit integer");
    }
}

pub(crate) fn update(check: &mut Check<'_>, pod: &Value, old: &Value) {
    create(check, pod);
    only_known(check, pod, old);
}

/// What a pod began with stays: whose mirror it is, and how it is confined.
pub(crate) fn only_known(check: &mut Check<'_>, pod: &Value, old: &Value) {
    let root = Path::Root;
    let path = root.field("metadata");
    let path = path.field("annotations");
    let is_fixed = |name: &str| name == MIRROR || name.starts_with(APP_ARMOR);
    let what = |name: &str| if name == MIRROR { "mirror pod annotation" } else { "AppArmor annotations" };
    for (name, before) in annotations(old).into_iter().flatten().filter(|(name, _)| is_fixed(name)) {
        if annotations(pod).and_then(|all| all.get(name)) != Some(before) {
            check.forbidden(&path.key(name), &format!("may not remove or update {}", what(name)));
        }
    }
    for name in annotations(pod).into_iter().flatten().map(|(name, _)| name).filter(|name| is_fixed(name)) {
        if annotations(old).is_none_or(|all| !all.contains_key(name)) {
            check.forbidden(&path.key(name), &format!("may not add {}", what(name)));
        }
    }
}
