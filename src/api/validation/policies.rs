//! Admission policies and their bindings but for their expressions, which are compiled by the API server.

use std::collections::BTreeSet;

use serde_json::Value;

use super::webhooks::{match_conditions, rule_with_operations};
use super::{Check, labels};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_EXPRESSION_BYTES_MAX: usize = 5 * 1024;
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// Of a status, what is said of types, and conditions.
pub fn validating_update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_none() {
        return validating(object, errors);
    }
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("status");
    let status = object.part("status");
    let list = path.field("typeChecking");
    let list = list.field("expressionWarnings");
    for (index, warning) in status.part("typeChecking").list("expressionWarnings").iter().enumerate() {
        let path = list.index(index);
        check.text(warning, &path, "warning");
        check.text(warning, &path, "fieldRef");
    }
    super::conditions::conditions(check, status, &path);
}

/// A ValidatingAdmissionPolicy.
pub fn validating(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let (root, spec) = (Path::Root, object.part("spec"));
    let path = root.field("spec");
    policy(check, spec, &path);
    let (validations, annotations) = (spec.list("validations"), spec.list("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let text = "validations or auditAnnotations must be non-empty";
        check.required(&path.field("validations"), text);
        check.required(&path.field("auditAnnotations"), text);
    }
    let list = path.field("validations");
    for (index, item) in validations.iter().enumerate() {
        validation(check, item, &list.index(index));
    }
    let list = path.field("auditAnnotations");
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let value = spec.part("auditAnnotations");
        check.invalid(&list, value, &format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations"));
    }
    let policy_name = object.part("metadata").text("name");
    let mut keys = BTreeSet::new();
    for (index, item) in annotations.iter().enumerate() {
        audit_annotation(check, item, &list.index(index), policy_name);
        if !keys.insert(item.text("key")) {
            check.duplicate(&list.index(index).field("key"), item.part("key"));
        }
    }
}

/// A MutatingAdmissionPolicy.
pub fn mutating(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let (root, spec) = (Path::Root, object.part("spec"));
    let path = root.field("spec");
    policy(check, spec, &path);
    check.choice(spec, &path, "reinvocationPolicy", &["IfNeeded", "Never"]);
    let list = path.field("mutations");
    if spec.list("mutations").is_empty() {
        check.required(&list, "mutations must contain at least one item");
    }
    for (index, item) in spec.list("mutations").iter().enumerate() {
        mutation(check, item, &list.index(index));
    }
}

/// What both kinds have.
fn policy(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    check.one_of(spec, path, "failurePolicy", &["Fail", "Ignore"]);
    if let Some(kind) = spec.at("paramKind") {
        let path = path.field("paramKind");
        if check.text(kind, &path, "apiVersion") {
            let text = kind.text("apiVersion");
            let (group, version) = text.split_once('/').unwrap_or(("", text));
            if !group.is_empty() {
                check.found(&path.field("apiVersion"), text, format::dns_subdomain(group));
            }
            check.found(&path.field("apiVersion"), text, format::dns_1035_label(version));
        }
        if check.text(kind, &path, "kind") {
            let text = kind.text("kind");
            check.found(&path.field("kind"), text, format::dns_1035_label(&text.to_ascii_lowercase()));
        }
    }
    let constraints = path.field("matchConstraints");
    match spec.at("matchConstraints") {
        None => check.required(&constraints, ""),
        Some(value) => {
            match_resources(check, value, &constraints);
            if value.list("resourceRules").is_empty() {
                check.required(&constraints.field("resourceRules"), "");
            }
        }
    }
    match_conditions(check, spec.list("matchConditions"), &path.field("matchConditions"));
    let list = path.field("variables");
    let mut names = BTreeSet::new();
    for (index, variable) in spec.list("variables").iter().enumerate() {
        let path = list.index(index);
        let name = variable.text("name");
        if name.trim().is_empty() {
            check.required(&path.field("name"), "name is not specified");
        } else if !format::c_identifier(name).is_empty() {
            check.invalid(&path.field("name"), &name.into(), "name is not a valid CEL identifier");
        } else if !names.insert(name) {
            check.duplicate(&path.field("name"), &name.into());
        }
        expression(check, variable, &path, "expression");
    }
}

/// An expression must be there.
fn expression(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, name: &str) {
    if holder.text(name).trim().is_empty() {
        check.required(&path.field(name), &format!("{name} is not specified"));
    }
}

fn match_resources(check: &mut Check<'_>, constraints: &Value, path: &Path<'_>) {
    for name in ["namespaceSelector", "objectSelector"] {
        if constraints.has(name) {
            labels::selector(check, constraints.part(name), &path.field(name));
        } else {
            check.required(&path.field(name), "");
        }
    }
    if constraints.has("matchPolicy") {
        check.one_of(constraints, path, "matchPolicy", &["Equivalent", "Exact"]);
    } else {
        check.required(&path.field("matchPolicy"), "");
    }
    for name in ["resourceRules", "excludeResourceRules"] {
        let list = path.field(name);
        for (index, rule) in constraints.list(name).iter().enumerate() {
            let path = list.index(index);
            rule_with_operations(check, rule, &path);
            let list = path.field("resourceNames");
            let mut names = BTreeSet::new();
            for (index, name) in rule.list("resourceNames").iter().enumerate() {
                let text = name.as_str().unwrap_or_default();
                check.found(&list.index(index), text, format::path_segment(text, false));
                if !names.insert(text) {
                    check.duplicate(&list.index(index), name);
                }
            }
        }
    }
}

fn validation(check: &mut Check<'_>, item: &Value, path: &Path<'_>) {
    expression(check, item, path, "expression");
    let message = item.text("message");
    if item.has("messageExpression") && item.text("messageExpression").trim().is_empty() {
        let text = "must be non-empty if specified";
        check.invalid(&path.field("messageExpression"), item.part("messageExpression"), text);
    }
    if !message.is_empty() && message.trim().is_empty() {
        check.invalid(&path.field("message"), &message.into(), "message must be non-empty if specified");
    } else if message.contains('\n') {
        check.invalid(&path.field("message"), &message.into(), "message must not contain line breaks");
    } else if message.is_empty() && item.text("expression").trim().contains('\n') {
        check.required(&path.field("message"), "message must be specified if expression contains line breaks");
    }
    check.one_of(item, path, "reason", &REASONS);
}

fn audit_annotation(check: &mut Check<'_>, item: &Value, path: &Path<'_>, policy: &str) {
    let (key, here) = (item.text("key"), path.field("key"));
    if !policy.is_empty() {
        let findings = format::label_key(&format!("{policy}/{key}"));
        for finding in findings {
            check.invalid(&here, &key.into(), &format!("Audit annotation key must be a qualified name: {finding}"));
        }
    } else {
        check.found(&here, key, format::label_key(key));
    }
    let value = item.text("valueExpression");
    if value.trim().is_empty() {
        check.required(&path.field("valueExpression"), "valueExpression is not specified");
    } else if value.len() > ANNOTATION_EXPRESSION_BYTES_MAX {
        let text = format!("must not exceed {ANNOTATION_EXPRESSION_BYTES_MAX} bytes in length");
        check.required(&path.field("valueExpression"), &text);
    }
}

fn mutation(check: &mut Check<'_>, item: &Value, path: &Path<'_>) {
    let kinds = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    let kind = item.text("patchType");
    if kind.is_empty() {
        check.required(&path.field("patchType"), "");
        return;
    }
    if !kinds.iter().any(|(known, _)| *known == kind) {
        check.not_supported(&path.field("patchType"), &kind.into(), &["ApplyConfiguration", "JSONPatch"]);
        return;
    }
    for (name, field) in kinds {
        let here = path.field(field);
        match (name == kind, item.at(field)) {
            (true, None) => {
                check.required(&here, &format!("must be specified when patchType is {name}"));
            }
            (true, Some(value)) => expression(check, value, &here, "expression"),
            (false, Some(_)) => {
                check.invalid(&here, item.part(field), &format!("must not be specified when patchType is {kind}"))
            }
            (false, None) => {}
        }
    }
}

/// A binding of a ValidatingAdmissionPolicy.
pub fn validating_binding(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let (root, spec) = (Path::Root, object.part("spec"));
    let path = root.field("spec");
    binding(check, spec, &path);
    let list = path.field("validationActions");
    let actions: Vec<&str> = spec.list("validationActions").iter().filter_map(Value::as_str).collect();
    if actions.is_empty() {
        check.required(&list, "at least one validation action is required");
    }
    let mut seen = BTreeSet::new();
    for (index, action) in actions.iter().enumerate() {
        if !ACTIONS.contains(action) {
            check.not_supported(&list.index(index), &Value::from(*action), &ACTIONS);
        } else if !seen.insert(*action) {
            check.duplicate(&list.index(index), &Value::from(*action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                    response and headers serves no purpose)";
        check.invalid(&list, spec.part("validationActions"), text);
    }
}

/// A binding of a MutatingAdmissionPolicy.
pub fn mutating_binding(object: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    binding(&mut Check { errors }, object.part("spec"), &root.field("spec"));
}

fn binding(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    if check.text(spec, path, "policyName") {
        let name = spec.text("policyName");
        check.found(&path.field("policyName"), name, format::dns_subdomain(name));
    }
    if let Some(reference) = spec.at("paramRef") {
        let path = path.field("paramRef");
        let name = reference.text("name");
        match (name.is_empty(), reference.at("selector")) {
            (true, None) => check.required(&path, "one of name or selector must be specified"),
            (false, Some(_)) => {
                check.forbidden(&path.field("name"), "name and selector are mutually exclusive");
                check.forbidden(&path.field("selector"), "name and selector are mutually exclusive");
            }
            (true, Some(selector)) => labels::selector(check, selector, &path.field("selector")),
            (false, None) => check.found(&path.field("name"), name, format::path_segment(name, false)),
        }
        if reference.has("parameterNotFoundAction") {
            check.one_of(reference, &path, "parameterNotFoundAction", &["Allow", "Deny"]);
        } else {
            check.required(&path.field("parameterNotFoundAction"), "");
        }
    }
    if let Some(resources) = spec.at("matchResources") {
        match_resources(check, resources, &path.field("matchResources"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(check: fn(&Value, &mut Vec<FieldError>), spec: Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&json!({"metadata": {"name": "p"}, "spec": spec}), &mut errors);
        errors.iter().map(|error| format!("{}: {}", error.field, error.body())).collect()
    }

    fn constraints() -> Value {
        json!({"namespaceSelector": {}, "objectSelector": {}, "matchPolicy": "Equivalent", "resourceRules": [
            {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]})
    }

    #[test]
    fn policies_are_checked() {
        let good = json!({"matchConstraints": constraints(), "validations": [{"expression": "true"}]});
        assert_eq!(found(validating, good), [""; 0]);
        let bad = json!({
            "failurePolicy": "Maybe", "validations": [{"expression": " ", "message": "a\nb", "reason": "Because"}],
            "variables": [{"name": "a-b", "expression": "1"}],
            "auditAnnotations": [{"key": "a", "valueExpression": "'x'"}, {"key": "a", "valueExpression": ""}],
        });
        let found = found(validating, bad);
        let fields: Vec<&str> = found.iter().map(|one| one.split(':').next().unwrap()).collect();
        assert_eq!(
            fields,
            [
                "spec.failurePolicy",
                "spec.matchConstraints",
                "spec.variables[0].name",
                "spec.validations[0].expression",
                "spec.validations[0].message",
                "spec.validations[0].reason",
                "spec.auditAnnotations[1].valueExpression",
                "spec.auditAnnotations[1].key",
            ]
        );
    }

    #[test]
    fn mutations_have_what_their_type_needs() {
        let spec = |mutation: Value| json!({"matchConstraints": constraints(), "reinvocationPolicy": "Never", "mutations": [mutation]});
        let apply = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}});
        assert_eq!(found(mutating, spec(apply)), [""; 0]);
        let both = json!({"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}});
        assert_eq!(found(mutating, spec(both)).len(), 2);
        assert_eq!(found(mutating, json!({"matchConstraints": constraints()})).len(), 2);
    }

    #[test]
    fn bindings_are_checked() {
        let binding = |actions: Value, reference: Value| {
            found(validating_binding, json!({"policyName": "p", "validationActions": actions, "paramRef": reference}))
        };
        let reference = json!({"name": "a", "parameterNotFoundAction": "Deny"});
        assert_eq!(binding(json!(["Deny", "Audit"]), reference.clone()), [""; 0]);
        assert_eq!(binding(json!(["Deny", "Warn"]), reference.clone()).len(), 1);
        assert_eq!(binding(json!(["Deny", "Deny", "Shout"]), reference).len(), 2);
        assert_eq!(binding(json!(["Deny"]), json!({"name": "a", "selector": {}})).len(), 3);
        assert_eq!(binding(json!([]), json!({})).len(), 3);
    }
}
