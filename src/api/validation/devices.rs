//! What devices there are: ResourceSlices.
//!
//! Limitation: mappings to what a node allocates are not checked.

use std::collections::BTreeSet;

use serde_json::Value;

use super::claims::{EFFECTS, at_most, driver, pool_name, qualified_name};
use super::device_capacity::capacity;
use super::{Check, IMMUTABLE, placement, same};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const DEVICES_MAX: usize = 128;
const DEVICES_WITH_EXTRAS_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
const CONSUMPTIONS_MAX: usize = 2;
const BINDING_CONDITIONS_MAX: usize = 4;
const ATTRIBUTES_AND_CAPACITIES_MAX: usize = 32;
const ATTRIBUTE_BYTES_MAX: usize = 64;

/// Ways to say which nodes can reach a device.
const PLACES: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];

pub fn slice(object: &Value, errors: &mut Vec<FieldError>) {
    slice_spec(&mut Check { errors }, object.part("spec"), &Value::Null);
}

pub fn slice_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let (spec, before) = (object.part("spec"), old.part("spec"));
    slice_spec(check, spec, before);
    let root = Path::Root;
    let path = root.field("spec");
    check.unchanged(spec.part("pool"), before.part("pool"), &path.field("pool"), "name");
    check.unchanged(spec, before, &path, "driver");
    if !same(spec.part("nodeName"), before.part("nodeName")) {
        check.invalid(&path.field("nodeName"), spec.part("nodeName"), IMMUTABLE);
    }
}

fn slice_spec(check: &mut Check<'_>, spec: &Value, old: &Value) {
    let root = Path::Root;
    let path = root.field("spec");
    driver(check, spec, &path);
    let pool = spec.part("pool");
    let here = path.field("pool");
    pool_name(check, pool.text("name"), &here.field("name"));
    let count = pool.int("resourceSliceCount").unwrap_or_default();
    if count <= 0 {
        check.invalid(&here.field("resourceSliceCount"), &count.into(), "must be greater than zero");
    }
    if let Some(generation) = pool.int("generation").filter(|&generation| generation < 0) {
        check.invalid(&here.field("generation"), &generation.into(), "must be greater than or equal to zero");
    }
    let mut places = place(check, spec, &path, "must be either unset or set to a non-empty string");
    let terms = spec.part("nodeSelector").list("nodeSelectorTerms");
    if spec.has("nodeSelector") && terms.len() != 1 {
        let path = path.field("nodeSelector");
        let terms = spec.part("nodeSelector").part("nodeSelectorTerms");
        check.invalid(&path.field("nodeSelectorTerms"), terms, "must have exactly one node selector term");
    }
    flag(check, spec, "perDeviceNodeSelection", &path, &mut places);
    let text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match places.len() {
        0 => check.required(&path, text),
        1 => {}
        _ => {
            let text = format!("{text}, but multiple fields are set");
            check.invalid(&path, &format!("{{{}}}", places.join(", ")).into(), &text);
        }
    }
    if spec.has("sharedCounters") && spec.has("devices") {
        check.invalid(&path, &"".into(), "only one of `sharedCounters` or `devices` is allowed");
    }
    devices(check, spec, old, &path.field("devices"));
    let list = path.field("sharedCounters");
    at_most(check, spec.list("sharedCounters").len(), COUNTER_SETS_MAX, &list);
    let mut names = BTreeSet::new();
    for (index, set) in spec.list("sharedCounters").iter().enumerate() {
        counters(check, set, "name", &list.index(index));
        if !names.insert(set.text("name")) {
            check.duplicate(&list.index(index), set.part("name"));
        }
    }
}

/// Which of the ways to name nodes are taken.
fn place(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, empty: &str) -> Vec<&'static str> {
    let mut taken = Vec::new();
    if let Some(name) = holder.at("nodeName") {
        match name.as_str().unwrap_or_default() {
            "" => check.invalid(&path.field("nodeName"), name, empty),
            text => {
                taken.push("`nodeName`");
                check.found(&path.field("nodeName"), text, format::dns_subdomain(text));
            }
        }
    }
    if let Some(selector) = holder.at("nodeSelector") {
        taken.push("`nodeSelector`");
        placement::node_selector(check, selector, &path.field("nodeSelector"));
    }
    flag(check, holder, "allNodes", path, &mut taken);
    taken
}

/// A field that says true or nothing.
fn flag(check: &mut Check<'_>, holder: &Value, name: &'static str, path: &Path<'_>, taken: &mut Vec<&'static str>) {
    match holder.at(name) {
        None => {}
        Some(Value::Bool(true)) => {
            taken.push(if name == "allNodes" { "`allNodes`" } else { "`perDeviceNodeSelection`" });
        }
        Some(other) => check.invalid(&path.field(name), other, "must be either unset or set to true"),
    }
}

fn devices(check: &mut Check<'_>, spec: &Value, old: &Value, path: &Path<'_>) {
    let devices = spec.list("devices");
    let listed =
        |attribute: &Value| ["bools", "ints", "strings", "versions"].into_iter().any(|name| attribute.has(name));
    let with_extras = devices.iter().any(|device| {
        !device.list("taints").is_empty()
            || !device.list("consumesCounters").is_empty()
            || device.map("attributes").is_some_and(|all| all.values().any(listed))
    });
    at_most(check, devices.len(), if with_extras { DEVICES_WITH_EXTRAS_MAX } else { DEVICES_MAX }, path);
    let mut names = BTreeSet::new();
    for (index, one) in devices.iter().enumerate() {
        let path = path.index(index);
        let before = old.list("devices").iter().find(|known| known.text("name") == one.text("name"));
        device(check, one, before.unwrap_or(&Value::Null), spec.flag("perDeviceNodeSelection"), &path);
        if !names.insert(one.text("name")) {
            check.duplicate(&path, one.part("name"));
        }
    }
}

fn device(check: &mut Check<'_>, device: &Value, old: &Value, places_own: bool, path: &Path<'_>) {
    let name = device.text("name");
    check.found(&path.field("name"), name, format::dns_label(name));
    let (attributes, capacities) = (device.map("attributes"), device.map("capacity"));
    let count = attributes.map_or(0, serde_json::Map::len) + capacities.map_or(0, serde_json::Map::len);
    if count > ATTRIBUTES_AND_CAPACITIES_MAX {
        let text =
            format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_AND_CAPACITIES_MAX}");
        check.invalid(path, &count.into(), &text);
    }
    let here = path.field("attributes");
    for (name, value) in attributes.into_iter().flatten() {
        let path = here.key(name);
        qualified_name(check, name, &path);
        attribute(check, value, &path);
    }
    let here = path.field("capacity");
    for (name, value) in capacities.into_iter().flatten() {
        qualified_name(check, name, &here.key(name));
        capacity(check, value, device.flag("allowMultipleAllocations"), &here.key(name));
    }
    if !same(device.part("taints"), old.part("taints")) {
        let list = path.field("taints");
        at_most(check, device.list("taints").len(), TAINTS_MAX, &list);
        for (index, taint) in device.list("taints").iter().enumerate() {
            let path = list.index(index);
            check.found(&path.field("key"), taint.text("key"), format::label_key(taint.text("key")));
            check.found(&path.field("value"), taint.text("value"), format::label_value(taint.text("value")));
            check.choice(taint, &path, "effect", EFFECTS);
        }
    }
    let list = path.field("consumesCounters");
    at_most(check, device.list("consumesCounters").len(), CONSUMPTIONS_MAX, &list);
    let mut sets = BTreeSet::new();
    for (index, consumption) in device.list("consumesCounters").iter().enumerate() {
        counters(check, consumption, "counterSet", &list.index(index));
        if !sets.insert(consumption.text("counterSet")) {
            check.duplicate(&list.index(index), consumption.part("counterSet"));
        }
    }
    if places_own {
        let places = place(check, device, path, "must not be empty");
        let text = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                    `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        match places.len() {
            0 => check.required(path, text),
            1 => {}
            _ => check.invalid(path, &format!("{{{}}}", places.join(", ")).into(), text),
        }
    } else if PLACES.into_iter().any(|name| device.has(name)) {
        let text = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                    true in the ResourceSlice spec";
        check.invalid(path, &Value::Null, text);
    }
    binding_conditions(check, device, path);
}

/// One value, or one list of values.
fn attribute(check: &mut Check<'_>, attribute: &Value, path: &Path<'_>) {
    let long = |check: &mut Check<'_>, text: &str, path: &Path<'_>| {
        if text.len() > ATTRIBUTE_BYTES_MAX {
            check.errors.push(FieldError::too_long(path, ATTRIBUTE_BYTES_MAX));
        }
    };
    let version = |check: &mut Check<'_>, text: &str, path: &Path<'_>| {
        if !is_semantic_version(text) {
            check.invalid(path, &text.into(), "must be a string compatible with semver.org spec 2.0.0");
        }
        long(check, text, path);
    };
    let mut values = 0;
    for (kind, value) in attribute.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        values += 1;
        let here = path.field(kind);
        match (kind.as_str(), value) {
            ("string", Value::String(text)) => long(check, text, &here),
            ("version", Value::String(text)) => version(check, text, &here),
            (_, Value::Array(items)) => {
                if items.is_empty() {
                    check.invalid(&here, value, "must not be empty if specified");
                }
                for (index, item) in items.iter().enumerate() {
                    match (kind.as_str(), item) {
                        ("strings", Value::String(text)) => long(check, text, &here.index(index)),
                        ("versions", Value::String(text)) => version(check, text, &here.index(index)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if values != 1 {
        let none = Value::from("");
        check.invalid(path, if values == 0 { &none } else { attribute }, "exactly one value must be specified");
    }
}

pub(crate) fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let number = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty() && (part == "0" || !part.starts_with('0'))
    };
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let identifier = |part: &str| plain(part) && (number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| before.split('.').all(identifier))
        && build.is_none_or(|build| build.split('.').all(plain))
}

/// A set of counters, or what is taken of one.
fn counters(check: &mut Check<'_>, set: &Value, name: &str, path: &Path<'_>) {
    if check.text(set, path, name) {
        check.found(&path.field(name), set.text(name), format::dns_label(set.text(name)));
    }
    let here = path.field("counters");
    let counters = set.map("counters").filter(|counters| !counters.is_empty());
    let Some(counters) = counters else { return check.required(&here, "") };
    at_most(check, counters.len(), COUNTERS_MAX, &here);
    for name in counters.keys() {
        check.found(&here.key(name), name, format::dns_label(name));
    }
}

fn binding_conditions(check: &mut Check<'_>, device: &Value, path: &Path<'_>) {
    const BINDING: &str = "bindingConditions";
    const FAILURE: &str = "bindingFailureConditions";
    for name in [BINDING, FAILURE] {
        let list = path.field(name);
        let mut seen = BTreeSet::new();
        at_most(check, device.list(name).len(), BINDING_CONDITIONS_MAX, &list);
        for (index, condition) in device.list(name).iter().enumerate() {
            let text = condition.as_str().unwrap_or_default();
            check.found(&list.index(index), text, format::label_key(text));
            if !seen.insert(text) {
                check.duplicate(&list.index(index), condition);
            }
            if name == FAILURE && device.list(BINDING).contains(condition) {
                let text = "bindingFailureConditions must not overlap with bindingConditions";
                check.invalid(&list.index(index), condition, text);
            }
        }
    }
    for (one, other) in [(BINDING, FAILURE), (FAILURE, BINDING)] {
        if device.list(one).is_empty() && !device.list(other).is_empty() {
            check.invalid(&path.field(one), device.part(one), &format!("{one} are required to use {other}"));
        }
    }
}
