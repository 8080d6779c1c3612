//! ResourceQuotas: what is counted, and of which objects.

use serde_json::{Map, Value};

use super::{Check, IMMUTABLE, resources};
use crate::{failure::FieldError, fields::Fields, path::Path};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Scopes that an object is in or not, without a name to select by.
const WITHOUT_NAMES: [&str; 5] =
    ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
const OF_PODS: [&str; 7] = ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const NOT_APPLICABLE: &str = "unsupported scope applied to resource";

pub fn quota(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    amounts(check, spec.map("hard"), &path.field("hard"));
    scopes(check, spec, &path.field("scopes"));
    selector(check, spec, &path.field("scopeSelector"));
    status(check, object);
}

pub fn update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource.is_some() {
        return status(&mut Check { errors }, object);
    }
    quota(object, errors);
    let root = Path::Root;
    let path = root.field("spec");
    let (now, then) = (object.part("spec").list("scopes"), old.part("spec").list("scopes"));
    if now.iter().any(|scope| !then.contains(scope)) || then.iter().any(|scope| !now.contains(scope)) {
        Check { errors }.invalid(&path.field("scopes"), object.part("spec").part("scopes"), IMMUTABLE);
    }
}

fn status(check: &mut Check<'_>, object: &Value) {
    let root = Path::Root;
    let path = root.field("status");
    for name in ["hard", "used"] {
        amounts(check, object.part("status").map(name), &path.field(name));
    }
}

fn amounts(check: &mut Check<'_>, amounts: Option<&Map<String, Value>>, path: &Path<'_>) {
    for (name, value) in amounts.into_iter().flatten() {
        let path = path.key(name);
        resources::resource_name(check, &path, name);
        if !name.contains('/') && !resources::is_of_quotas(name) {
            check.invalid(&path, &name.as_str().into(), "must be a standard resource for quota");
        }
        resources::amount(check, &path, name, value);
    }
}

fn scopes(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let (list, all) = (spec.list("scopes"), spec.part("scopes"));
    for scope in list.iter().map(|scope| scope.as_str().unwrap_or_default()) {
        if !SCOPES.contains(&scope) {
            check.invalid(path, all, "unsupported scope");
        }
        for _ in counted(spec).filter(|name| !applies(scope, name)) {
            check.invalid(path, all, NOT_APPLICABLE);
        }
    }
    let names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    conflicts(check, &names, all, path);
}

/// What the quota counts and Kubernetes knows.
fn counted(spec: &Value) -> impl Iterator<Item = &str> {
    let names = spec.map("hard").into_iter().flatten().map(|(name, _)| name.as_str());
    names.filter(|name| resources::is_of_quotas(name))
}

/// Whether objects that have the scope are counted as the resource.
fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        known if SCOPES.contains(&known) => OF_PODS.contains(&resource),
        _ => true,
    }
}

fn conflicts(check: &mut Check<'_>, names: &[&str], value: &Value, path: &Path<'_>) {
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if names.contains(&one) && names.contains(&other) {
            check.invalid(path, value, "conflicting scopes");
        }
    }
}

/// Upstream names the list in its findings, not the expression.
fn selector(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Some(selector) = spec.at("scopeSelector") else { return };
    let path = path.field("matchExpressions");
    let expressions = selector.list("matchExpressions");
    for expression in expressions {
        let (scope, operator) = (expression.text("scopeName"), expression.text("operator"));
        let values = expression.list("values");
        if !SCOPES.contains(&scope) {
            check.invalid(&path.field("scopeName"), &scope.into(), "unsupported scope");
        }
        for _ in counted(spec).filter(|name| !applies(scope, name)) {
            check.invalid(&path, selector, NOT_APPLICABLE);
        }
        if WITHOUT_NAMES.contains(&scope) && operator != "Exists" {
            let text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                        ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                        ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            check.invalid(&path.field("operator"), &operator.into(), text);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                check.required(&path.field("values"), text);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                check.invalid(&path.field("values"), expression.part("values"), text);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => check.invalid(&path.field("operator"), &other.into(), "not a valid selector operator"),
        }
    }
    let names: Vec<&str> = expressions.iter().map(|expression| expression.text("scopeName")).collect();
    conflicts(check, &names, spec.part("scopes"), &path);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_go_with_what_is_counted() {
        let cases: &[(Value, &[&str])] = &[
            (json!({"hard": {"pods": 1, "requests.cpu": 1}, "scopes": ["Terminating"]}), &[]),
            (json!({"hard": {"count/pods": 1}, "scopes": ["BestEffort"]}), &[]),
            (json!({"hard": {"services": 1}, "scopes": ["Terminating"]}), &["spec.scopes"]),
            (json!({"hard": {"cpu": 1}, "scopes": ["BestEffort"]}), &["spec.scopes"]),
            (json!({"scopes": ["Other", "BestEffort", "NotBestEffort"]}), &["spec.scopes", "spec.scopes"]),
            (json!({"hard": {"bananas": 1}}), &["spec.hard[bananas]", "spec.hard[bananas]"]),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
                &["spec.scopeSelector.matchExpressions.values"],
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "Terminating", "operator": "In", "values": ["a"]}]}}),
                &["spec.scopeSelector.matchExpressions.operator"],
            ),
            (
                json!({"hard": {"secrets": 1},
                    "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}}),
                &["spec.scopeSelector.matchExpressions"],
            ),
        ];
        for (spec, expected) in cases {
            let mut errors = Vec::new();
            quota(&json!({"spec": spec}), &mut errors);
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, *expected, "{spec}");
        }
    }
}
