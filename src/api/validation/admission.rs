//! Priority and fairness: their outlines.

use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, path::Path};

pub fn flow_schema(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    check.in_range(spec, &path, "matchingPrecedence", 1, 10_000);
    let reference = path.field("priorityLevelConfiguration");
    check.text(spec.part("priorityLevelConfiguration"), &reference, "name");
    if let Some(method) = spec.at("distinguisherMethod") {
        check.choice(method, &path.field("distinguisherMethod"), "type", &["ByNamespace", "ByUser"]);
    }
    let rules = path.field("rules");
    for (index, rule) in spec.list("rules").iter().enumerate() {
        let path = rules.index(index);
        if rule.list("subjects").is_empty() {
            check.required(&path.field("subjects"), "subjects must contain at least one value");
        }
        if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
            check.required(&path, "at least one of resourceRules and nonResourceRules has to be non-empty");
        }
    }
}

pub fn priority_level(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    check.choice(spec, &path, "type", &["Exempt", "Limited"]);
    match (spec.text("type"), spec.has("limited"), spec.has("exempt")) {
        ("Exempt", true, _) => {
            let text = "must be nil if the type is not Limited";
            check.forbidden(&path.field("limited"), text);
        }
        ("Limited", false, _) => check.required(&path.field("limited"), "must not be empty when type is Limited"),
        ("Limited", _, true) => {
            check.forbidden(&path.field("exempt"), "must be nil if the type is Limited");
        }
        _ => {}
    }
}
