//! Custom resource definitions, aggregated APIs, priority and fairness: their outlines.
//! Schemas and expressions of definitions and policies are checked where they are compiled.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

pub fn definition(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let names = spec.part("names");
    let group = spec.text("group");
    if check.text(spec, &path, "group") {
        check.found(&path.field("group"), group, format::dns_subdomain(group));
        if group.split('.').count() < 2 {
            check.invalid(&path.field("group"), &group.into(), "should be a domain with at least one dot");
        }
    }
    let expected = format!("{}.{group}", names.text("plural"));
    let name = object.part("metadata").text("name");
    if name != expected {
        let path = root.field("metadata");
        check.invalid(&path.field("name"), &name.into(), "must be spec.names.plural+\".\"+spec.group");
    }
    check.choice(spec, &path, "scope", &["Cluster", "Namespaced"]);
    let names_path = path.field("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if check.text(names, &names_path, field) {
            let value = names.text(field).to_ascii_lowercase();
            check.found(&names_path.field(field), names.text(field), format::dns_1035_label(&value));
        }
    }
    if names.text("kind") == names.text("listKind") && names.has("kind") {
        let text = "kind and listKind may not be the same";
        check.invalid(&names_path.field("listKind"), names.part("listKind"), text);
    }
    let list = path.field("versions");
    let versions = spec.list("versions");
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = list.index(index);
        let name = version.text("name");
        check.found(&path.field("name"), name, format::dns_1035_label(name));
        if !seen.insert(name) {
            let text = "must contain unique version names";
            check.invalid(&list, &Value::from(name), text);
        }
        if !version.part("schema").has("openAPIV3Schema") {
            let path = path.field("schema");
            check.required(&path.field("openAPIV3Schema"), "schemas are required");
        }
    }
    if versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        check.invalid(&list, spec.part("versions"), "must have exactly one version marked as storage version");
    }
    let conversion = path.field("conversion");
    check.choice(spec.part("conversion"), &conversion, "strategy", &["None", "Webhook"]);
    if spec.part("conversion").text("strategy") == "Webhook" && !spec.part("conversion").has("webhook") {
        check.required(&conversion.field("webhook"), "required when strategy is set to Webhook");
    }
}

pub fn definition_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_some() {
        return;
    }
    definition(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let conditions = old.part("status").list("conditions");
    let established = conditions.iter().any(|one| one.text("type") == "Established" && one.text("status") == "True");
    if established {
        check.unchanged(object.part("spec"), old.part("spec"), &path, "scope");
        let (new, before) = (object.part("spec").part("names"), old.part("spec").part("names"));
        check.unchanged(new, before, &path.field("names"), "kind");
    }
    check.unchanged(object.part("spec"), old.part("spec"), &path, "group");
}

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
