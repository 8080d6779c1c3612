//! Namespaces, nodes, secrets, limits and quotas.

use base64::Engine as _;
use serde_json::Value;

use super::resource_list;
use crate::fields::Fields;

/// The label by which selectors find a namespace's name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub fn namespace(object: &mut Value) {
    if let Some(metadata) = object.object("metadata") {
        let name = metadata.text("name").to_owned();
        if !name.is_empty()
            && let Some(labels) = metadata.object("labels")
        {
            labels.set(NAME_LABEL, name);
        }
    }
    super::empty_object(object, "spec");
    if let Some(status) = object.object("status") {
        status.fill_text("phase", "Active");
    }
}

pub fn node(object: &mut Value) {
    super::empty_object(object, "spec");
    let Some(status) = object.object("status") else { return };
    resource_list(status, "capacity");
    if let Some(capacity) = status.at("capacity").cloned() {
        status.fill("allocatable", capacity);
    }
    resource_list(status, "allocatable");
}

/// What was written as text joins the data, which is base64.
pub fn secret(object: &mut Value) {
    object.fill_text("type", "Opaque");
    let Some(Value::Object(texts)) = object.get_mut("stringData").map(Value::take) else {
        object.unset("stringData");
        return;
    };
    object.unset("stringData");
    if texts.is_empty() {
        return;
    }
    if let Some(data) = object.object("data") {
        for (key, text) in texts {
            let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
            data.set(&key, encoded);
        }
    }
}

pub fn limit_range(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    for item in spec.list_mut("limits") {
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            resource_list(item, list);
        }
        if item.text("type") == "Container" {
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                complete(item, to, from);
            }
        }
    }
}

fn complete(item: &mut Value, to: &str, from: &str) {
    let Some(source) = item.map(from).cloned() else { return };
    if let Some(target) = item.object(to) {
        for (name, value) in source {
            target.fill(&name, value);
        }
    }
}

pub fn resource_quota(object: &mut Value) {
    if let Some(spec) = object.at_mut("spec") {
        resource_list(spec, "hard");
    }
    if let Some(status) = object.object("status") {
        resource_list(status, "hard");
        resource_list(status, "used");
    }
}

/// Go writes the times and the count of an event that were left out.
pub fn event(object: &mut Value) {
    for name in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        if !object.has(name) {
            object.set(name, Value::Null);
        }
    }
    super::empty_object(object, "source");
    object.fill("reportingComponent", "");
    object.fill("reportingInstance", "");
}
