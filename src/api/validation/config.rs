//! ConfigMaps, Secrets, Namespaces, ServiceAccounts, LimitRanges, Leases.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Map, Value};

use super::{Check, resources, same};
use crate::{failure::FieldError, fields::Fields, format, path::Path, quantity::Quantity};

pub const DATA_BYTES_MAX: usize = 1024 * 1024;
const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

fn keys(check: &mut Check<'_>, data: Option<&Map<String, Value>>, path: &Path<'_>) {
    for key in data.into_iter().flatten().map(|(key, _)| key) {
        check.found(&path.key(key), key, format::config_key(key));
    }
}

/// The size of what base64 stands for.
fn decoded_bytes(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|&byte| byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn bytes(data: Option<&Map<String, Value>>, size: fn(&str) -> usize) -> usize {
    data.into_iter().flatten().filter_map(|(_, value)| value.as_str()).map(size).sum()
}

pub fn config_map(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let (data, binary) = (object.map("data"), object.map("binaryData"));
    let path = root.field("data");
    keys(check, data, &path);
    for (key, _) in data.into_iter().flatten() {
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            check.invalid(&path.key(key), &key.as_str().into(), "duplicate of key present in binaryData");
        }
    }
    keys(check, binary, &root.field("binaryData"));
    if bytes(data, str::len) + bytes(binary, decoded_bytes) > DATA_BYTES_MAX {
        check.errors.push(FieldError::too_long("", DATA_BYTES_MAX));
    }
}

pub fn config_map_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    frozen(object, old, &["data", "binaryData"], errors);
    config_map(object, errors);
}

fn frozen(object: &Value, old: &Value, names: &[&str], errors: &mut Vec<FieldError>) {
    if !old.flag("immutable") {
        return;
    }
    let check = &mut Check { errors };
    let root = Path::Root;
    if !object.flag("immutable") {
        check.forbidden(&root.field("immutable"), IMMUTABLE_SET);
    }
    for name in names {
        if !same(object.part(name), old.part(name)) {
            check.forbidden(&root.field(name), IMMUTABLE_SET);
        }
    }
}

pub fn secret(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("data");
    let data = object.map("data");
    keys(check, data, &path);
    if bytes(data, decoded_bytes) > DATA_BYTES_MAX {
        check.errors.push(FieldError::too_long(&path, DATA_BYTES_MAX));
    }
    let has = |key: &str| data.is_some_and(|data| data.contains_key(key));
    let demand = |check: &mut Check<'_>, key: &str| {
        if !has(key) {
            check.required(&path.key(key), "");
        }
    };
    match object.text("type") {
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            if object.part("metadata").part("annotations").text(name).is_empty() {
                let path = root.field("metadata");
                check.required(&path.field("annotations").key(name), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(check, object, ".dockercfg", &path),
        "kubernetes.io/dockerconfigjson" => docker(check, object, ".dockerconfigjson", &path),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            demand(check, "username");
            demand(check, "password");
        }
        "kubernetes.io/ssh-auth" if data.is_none_or(|data| is_empty(data.get("ssh-privatekey"))) => {
            check.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            demand(check, "tls.crt");
            demand(check, "tls.key");
        }
        _ => {}
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_none_or(str::is_empty)
}

fn docker(check: &mut Check<'_>, object: &Value, key: &str, path: &Path<'_>) {
    let Some(text) = object.part("data").at(key).and_then(Value::as_str) else {
        return check.required(&path.key(key), "");
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        check.invalid(&path.key(key), &"<secret contents redacted>".into(), &error.to_string());
    }
}

pub fn secret_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    Check { errors }.unchanged(object, old, &Path::Root, "type");
    frozen(object, old, &["data"], errors);
    secret(object, errors);
}

pub fn namespace(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let path = path.field("finalizers");
    for finalizer in object.part("spec").list("finalizers").iter().filter_map(Value::as_str) {
        let findings = format::label_key(finalizer);
        if !findings.is_empty() {
            check.found(&path, finalizer, findings);
        } else if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            check.invalid(&path, &finalizer.into(), text);
        }
    }
}

pub fn namespace_update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    match subresource {
        Some("finalize") => namespace(object, errors),
        Some("status") => {
            let phase = object.part("status").text("phase");
            let (expected, text) = if object.part("metadata").has("deletionTimestamp") {
                ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
            } else {
                ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
            };
            if phase != expected {
                let root = Path::Root;
                let path = root.field("status");
                Check { errors }.invalid(&path.field("Phase"), &phase.into(), text);
            }
        }
        _ => {}
    }
}

pub fn limit_range(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let list = path.field("limits");
    let mut kinds = BTreeSet::new();
    for (index, item) in object.part("spec").list("limits").iter().enumerate() {
        let path = list.index(index);
        let kind = item.text("type");
        if !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
            let findings = format::label_key(kind);
            if findings.is_empty() && !kind.contains('/') {
                let text = "must be a standard limit type or fully qualified";
                check.invalid(&path.field("type"), &kind.into(), text);
            }
            check.found(&path.field("type"), kind, findings);
        }
        if !kinds.insert(kind) {
            check.duplicate(&path.field("type"), &kind.into());
        }
        if kind == "Pod" {
            for name in ["default", "defaultRequest"] {
                if item.map(name).is_some_and(|list| !list.is_empty()) {
                    check.forbidden(&path.field(name), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        let storage = |name: &str| item.part(name).has("storage");
        if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
            let text = "either minimum or maximum storage value is required, but neither was provided";
            check.required(&path.field("limits"), text);
        }
        limit_names(check, item, &path);
        limit_order(check, item, &path);
    }
}

/// Names of what is limited.
fn limit_names(check: &mut Check<'_>, item: &Value, path: &Path<'_>) {
    let of_containers = matches!(item.text("type"), "Pod" | "Container");
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let here = path.field(list);
        for name in item.map(list).into_iter().flatten().map(|(name, _)| name) {
            if of_containers {
                resources::name_for_container(check, &here.key(name), name);
            } else {
                resources::resource_name(check, &here.key(name), name);
            }
        }
    }
}

/// Minimum, default request, default and maximum do not fall below each other.
fn limit_order(check: &mut Check<'_>, item: &Value, path: &Path<'_>) {
    let lists = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
    let names: BTreeSet<&str> =
        lists.iter().filter_map(|list| item.map(list)).flatten().map(|(name, _)| name.as_str()).collect();
    for name in names {
        let amount = |list: &str| item.part(list).at(name).and_then(|value| Quantity::from_value(value).ok());
        let mut compare = |low: (&str, &str), high: (&str, &str), at: &str| {
            if let (Some(less), Some(more)) = (amount(low.0), amount(high.0))
                && less > more
            {
                let text = format!("{} value {less} is greater than {} value {more}", low.1, high.1);
                let value = item.part(at).part(name);
                check.invalid(&path.field(at).key(name), value, &text);
            }
        };
        compare(("min", "min"), ("max", "max"), "min");
        compare(("min", "min"), ("defaultRequest", "default request"), "defaultRequest");
        compare(("defaultRequest", "default request"), ("max", "max"), "defaultRequest");
        compare(("defaultRequest", "default request"), ("default", "default limit"), "defaultRequest");
        compare(("min", "min"), ("default", "default"), "default");
        compare(("default", "default"), ("max", "max"), "default");
        if let Some(ratio) = amount("maxLimitRequestRatio").filter(|ratio| ratio.milli_value() < 1000) {
            let value = item.part("maxLimitRequestRatio").part(name);
            let path = path.field("maxLimitRequestRatio");
            check.invalid(&path.key(name), value, &format!("ratio {ratio} is less than 1"));
        }
    }
}

pub fn lease(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|&seconds| seconds <= 0) {
        check.invalid(&path.field("leaseDurationSeconds"), &seconds.into(), "must be greater than 0");
    }
    check.not_negative(spec, &path, "leaseTransitions");
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        let text = "may only be specified if `strategy` is defined";
        check.forbidden(&path.field("preferredHolder"), text);
    }
}
