//! Aggregated APIs, priority and fairness: their outlines.

use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

pub fn api_service(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let (group, version) = (spec.text("group"), spec.text("version"));
    let name = object.part("metadata").text("name");
    let expected = format!("{version}.{group}");
    if name != expected {
        let path = root.field("metadata");
        let text = format!("must be `spec.version+\".\"+spec.group`: {}", Value::from(expected));
        check.invalid(&path.field("name"), &name.into(), &text);
    }
    if group.is_empty() && version != "v1" {
        check.required(&path.field("group"), "only v1 may have an empty group and it better be legacy kube");
    }
    check.found(&path.field("version"), version, format::dns_1035_label(version));
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.int(field).unwrap_or_default();
        if !(1..=max).contains(&priority) {
            let text = format!("must be positive and less than {max}");
            check.invalid(&path.field(field), &priority.into(), &text);
        }
    }
    match spec.at("service") {
        None if spec.text("caBundle").is_empty() && !spec.flag("insecureSkipTLSVerify") => {}
        None => {
            if spec.has("caBundle") {
                let text = "local APIServices may not have a caBundle";
                check.invalid(&path.field("caBundle"), &"".into(), text);
            }
            if spec.flag("insecureSkipTLSVerify") {
                let text = "local APIServices may not have insecureSkipTLSVerify";
                check.invalid(&path.field("insecureSkipTLSVerify"), &true.into(), text);
            }
        }
        Some(service) => {
            let here = path.field("service");
            check.text(service, &here, "namespace");
            check.text(service, &here, "name");
            check.port(service, &here, "port");
            if spec.flag("insecureSkipTLSVerify") && spec.has("caBundle") {
                let text = "may not be true if caBundle is present";
                check.invalid(&path.field("insecureSkipTLSVerify"), &true.into(), text);
            }
        }
    }
}

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
