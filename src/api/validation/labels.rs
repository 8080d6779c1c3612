//! Label selectors as they stand in specs.

use serde_json::Value;

use super::Check;
use crate::{fields::Fields, format, meta, path::Path, selector::LabelSelector};

pub(crate) fn selector(check: &mut Check<'_>, selector: &Value, path: &Path<'_>) {
    meta::labels(selector.map("matchLabels"), &path.field("matchLabels"), check.errors);
    let list = path.field("matchExpressions");
    for (index, expression) in selector.list("matchExpressions").iter().enumerate() {
        let (path, operator) = (list.index(index), expression.text("operator"));
        if !matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist") {
            check.invalid(&path.field("operator"), &operator.into(), "not a valid selector operator");
        }
        requirement(check, expression, &path);
    }
}

/// One requirement of a selector; of an operator that is not known, nothing is.
pub(crate) fn requirement(check: &mut Check<'_>, requirement: &Value, path: &Path<'_>) {
    match (requirement.text("operator"), requirement.list("values")) {
        ("In" | "NotIn", []) => {
            check.required(&path.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        ("Exists" | "DoesNotExist", [_, ..]) => {
            let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            check.forbidden(&path.field("values"), text);
        }
        _ => {}
    }
    let key = requirement.text("key");
    check.found(&path.field("key"), key, format::label_key(key));
    let values = path.field("values");
    for (index, value) in requirement.list("values").iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        check.found(&values.index(index), value, format::label_value(value));
    }
}

/// The selector that a workload must have, and that its template's labels must match.
pub(crate) fn of_workload(check: &mut Check<'_>, spec: &Value, path: &Path<'_>, kind: &str) {
    let here = path.field("selector");
    let Some(value) = spec.at("selector") else {
        check.required(&here, "");
        return;
    };
    let before = check.errors.len();
    selector(check, value, &here);
    if is_empty(value) {
        check.invalid(&here, value, &format!("empty selector is invalid for {kind}"));
    }
    if check.errors.len() == before {
        matches_template(check, spec, path);
    }
}

pub(crate) fn is_empty(selector: &Value) -> bool {
    selector.map("matchLabels").is_none_or(serde_json::Map::is_empty) && selector.list("matchExpressions").is_empty()
}

pub(crate) fn matches_template(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Ok(selector) = LabelSelector::from_value(spec.at("selector")) else { return };
    let metadata = spec.part("template").part("metadata");
    if !selector.matches_map(metadata.map("labels")) {
        let template = path.field("template");
        let path = template.field("metadata");
        let text = "`selector` does not match template `labels`";
        check.invalid(&path.field("labels"), metadata.part("labels"), text);
    }
}
