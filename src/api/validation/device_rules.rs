//! Taints of many devices at once, and questions about pools of devices (`resource.k8s.io`).

use serde_json::Value;

use super::claims::{EFFECTS, at_most, driver, driver_name, pool_name};
use super::conditions::conditions;
use super::{Check, IMMUTABLE, same};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const TAINT_RULE_CONDITIONS_MAX: usize = 8;
const POOLS_MAX: usize = 1000;
const POOL_CONDITIONS_MAX: usize = 10;
const VALIDATION_ERROR_BYTES_MAX: usize = 256;

pub fn taint_rule(object: &Value, errors: &mut Vec<FieldError>) {
    taint_rule_spec(&mut Check { errors }, object.part("spec"), None);
}

pub fn taint_rule_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    if subresource != Some("status") {
        return taint_rule_spec(check, object.part("spec"), Some(old.part("spec")));
    }
    let root = Path::Root;
    let path = root.field("status");
    let status = object.part("status");
    conditions(check, status, &path);
    at_most(check, status.list("conditions").len(), TAINT_RULE_CONDITIONS_MAX, &path.field("conditions"));
}

fn taint_rule_spec(check: &mut Check<'_>, spec: &Value, old: Option<&Value>) {
    let root = Path::Root;
    let path = root.field("spec");
    let selector = spec.part("deviceSelector");
    let here = path.field("deviceSelector");
    let text = |name: &str| selector.at(name).and_then(Value::as_str);
    if let Some(name) = text("driver") {
        if name.is_empty() {
            check.required(&here.field("driver"), "");
        } else {
            driver_name(check, name, &here.field("driver"));
        }
    }
    if let Some(name) = text("pool") {
        pool_name(check, name, &here.field("pool"));
    }
    if let Some(name) = text("device") {
        check.found(&here.field("device"), name, format::dns_label(name));
    }
    taint(check, spec.part("taint"), old.map(|old| old.part("taint")), &path.field("taint"));
}

fn taint(check: &mut Check<'_>, taint: &Value, old: Option<&Value>, path: &Path<'_>) {
    check.found(&path.field("key"), taint.text("key"), format::label_key(taint.text("key")));
    check.found(&path.field("value"), taint.text("value"), format::label_value(taint.text("value")));
    if old.is_none_or(|old| old.text("effect") != taint.text("effect")) {
        check.choice(taint, path, "effect", EFFECTS);
    }
}

pub fn pool_request(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    driver(check, spec, &path);
    if let Some(name) = spec.at("poolName").and_then(Value::as_str) {
        segments(check, name, &path.field("poolName"));
    }
    at_least(check, spec, "limit", 1, &path);
    if let Some(limit) = spec.int("limit").filter(|&limit| limit > 1000) {
        check.invalid(&path.field("limit"), &limit.into(), "must be less than or equal to 1000");
    }
}

/// What is asked does not change, and the answer is given once.
pub fn pool_request_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    if subresource != Some("status") {
        if !same(object.part("spec"), old.part("spec")) {
            check.invalid(&root.field("spec"), &Value::Null, IMMUTABLE);
        }
        return;
    }
    let path = root.field("status");
    if old.has("status") {
        if !same(object.part("status"), old.part("status")) {
            check.invalid(&path, object.part("status"), IMMUTABLE);
        }
        return;
    }
    let Some(status) = object.at("status") else { return };
    conditions(check, status, &path);
    present(check, status, "poolCount", &path);
    at_least(check, status, "poolCount", 0, &path);
    at_most(check, status.list("conditions").len(), POOL_CONDITIONS_MAX, &path.field("conditions"));
    let list = path.field("pools");
    at_most(check, status.list("pools").len(), POOLS_MAX, &list);
    for (index, pool) in status.list("pools").iter().take(POOLS_MAX).enumerate() {
        pool_status(check, pool, &list.index(index));
    }
}

fn pool_status(check: &mut Check<'_>, pool: &Value, path: &Path<'_>) {
    driver(check, pool, path);
    if check.text(pool, path, "poolName") {
        segments(check, pool.text("poolName"), &path.field("poolName"));
    }
    for name in ["totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices"] {
        at_least(check, pool, name, 0, path);
    }
    match pool.int("generation").unwrap_or_default() {
        0 => check.required(&path.field("generation"), ""),
        _ => at_least(check, pool, "generation", 0, path),
    }
    at_least(check, pool, "resourceSliceCount", 1, path);
    if let Some(node) = pool.at("nodeName").and_then(Value::as_str) {
        check.found(&path.field("nodeName"), node, format::dns_subdomain(node));
    }
    if pool.text("validationError").len() > VALIDATION_ERROR_BYTES_MAX {
        check.errors.push(FieldError::too_long(&path.field("validationError"), VALIDATION_ERROR_BYTES_MAX));
    }
}

fn present(check: &mut Check<'_>, holder: &Value, name: &str, path: &Path<'_>) {
    if !holder.has(name) {
        check.required(&path.field(name), "");
    }
}

fn at_least(check: &mut Check<'_>, holder: &Value, name: &str, min: i64, path: &Path<'_>) {
    if let Some(number) = holder.int(name).filter(|&number| number < min) {
        check.invalid(&path.field(name), &number.into(), &format!("must be greater than or equal to {min}"));
    }
}

/// The name of a pool, where findings say which of its segments they are about.
fn segments(check: &mut Check<'_>, name: &str, path: &Path<'_>) {
    const POOL_BYTES_MAX: usize = 253;
    if name.len() > POOL_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, POOL_BYTES_MAX));
    }
    for (index, segment) in name.split('/').enumerate() {
        if segment.is_empty() {
            check.invalid(path, &name.into(), &format!("segment {index}: must not be empty"));
            continue;
        }
        for finding in format::dns_subdomain(segment) {
            check.invalid(path, &segment.into(), &format!("segment {index}: {finding}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.field.as_str()).collect()
    }

    #[test]
    fn a_taint_has_a_key_and_an_effect() {
        let mut errors = Vec::new();
        taint_rule(&json!({"spec": {"taint": {"key": "a.example/b", "effect": "NoExecute"}}}), &mut errors);
        assert!(errors.is_empty());
        let bad = json!({"spec": {"deviceSelector": {"driver": "-", "pool": "", "device": "A"},
            "taint": {"key": "", "effect": "Other"}}});
        taint_rule(&bad, &mut errors);
        let at = |name: &str| format!("spec.deviceSelector.{name}");
        let [driver, pool, device] = ["driver", "pool", "device"].map(at);
        let found = fields(&errors);
        assert_eq!(found[..3], [&driver, &pool, &device]);
        assert_eq!(found.last(), Some(&"spec.taint.effect"));
        // An effect that was there before is not looked at again.
        let mut errors = Vec::new();
        let odd = json!({"spec": {"taint": {"key": "k", "effect": "Other"}}});
        taint_rule_update(&odd, &odd, None, &mut errors);
        assert!(errors.is_empty());
    }

    #[test]
    fn a_question_is_answered_once() {
        let mut errors = Vec::new();
        pool_request(&json!({"spec": {"driver": "d.example", "poolName": "a//b", "limit": 1001}}), &mut errors);
        assert_eq!(fields(&errors), ["spec.poolName", "spec.limit"]);
        let asked = json!({"spec": {"driver": "d.example"}});
        let mut answered = asked.clone();
        answered["status"] =
            json!({"poolCount": 1, "pools": [{"driver": "d.example", "poolName": "p", "generation": 1}]});
        let mut errors = Vec::new();
        pool_request_update(&answered, &asked, Some("status"), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let mut other = answered.clone();
        other["status"]["poolCount"] = json!(2);
        pool_request_update(&other, &answered, Some("status"), &mut errors);
        assert_eq!(fields(&errors), ["status"]);
    }
}
