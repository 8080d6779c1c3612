//! Questions about what somebody may do (`authorization.k8s.io`): one thing at a time, with sound selectors.

use serde_json::Value;

use super::{Check, labels};
use crate::{failure::FieldError, fields::Fields, path::Path};

const PRESENT: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const ABSENT: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// What is asked about: a resource or a path.
pub fn attributes(review: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = review.part("spec");
    match (spec.at("resourceAttributes"), spec.at("nonResourceAttributes")) {
        (Some(_), Some(other)) => {
            let text = "cannot be specified in combination with resourceAttributes";
            check.invalid(&path.field("nonResourceAttributes"), other, text);
        }
        (None, None) => {
            let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            check.invalid(&path.field("resourceAttributes"), &Value::Null, text);
        }
        _ => {}
    }
    let here = path.field("resourceAttributes");
    for (name, each) in [("fieldSelector", field_requirement as Each), ("labelSelector", labels::requirement)] {
        if let Some(selector) = spec.part("resourceAttributes").at(name) {
            requirements(check, selector, each, &here.field(name));
        }
    }
}

/// One requirement; an operator that only newer clients know is none of our business.
type Each = fn(&mut Check<'_>, &Value, &Path<'_>);

fn requirements(check: &mut Check<'_>, selector: &Value, each: Each, path: &Path<'_>) {
    let list = path.field("requirements");
    match (selector.text("rawSelector"), selector.list("requirements")) {
        ("", []) => {
            let text = format!("when {path} is specified, requirements or rawSelector is required");
            check.required(&list, &text);
        }
        ("", _) | (_, []) => {}
        (raw, _) => {
            let text = "may not specified at the same time as requirements";
            check.invalid(&path.field("rawSelector"), &raw.into(), text);
        }
    }
    for (index, requirement) in selector.list("requirements").iter().enumerate() {
        each(check, requirement, &list.index(index));
    }
}

fn field_requirement(check: &mut Check<'_>, requirement: &Value, path: &Path<'_>) {
    if requirement.text("key").is_empty() {
        check.required(&path.field("key"), "must be specified");
    }
    match (requirement.text("operator"), requirement.list("values")) {
        ("In" | "NotIn", []) => check.required(&path.field("values"), PRESENT),
        ("Exists" | "DoesNotExist", [_, ..]) => check.forbidden(&path.field("values"), ABSENT),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_of_a_question_are_sound() {
        let found = |resource: Value| {
            let mut errors = Vec::new();
            attributes(&json!({"spec": {"resourceAttributes": resource}}), &mut errors);
            errors.iter().map(|error| format!("{}: {}", error.field, error.reason)).collect::<Vec<_>>()
        };
        let requirement =
            |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
        let selector = |one: Value| json!({"requirements": [one]});
        assert_eq!(found(json!({"fieldSelector": selector(requirement("a", "Newer", json!([])))})), [""; 0]);
        assert_eq!(found(json!({"labelSelector": selector(requirement("a", "Newer", json!([])))})), [""; 0]);
        let at = "spec.resourceAttributes.labelSelector";
        assert_eq!(
            found(json!({"labelSelector": selector(requirement("-", "In", json!([])))})),
            [
                format!("{at}.requirements[0].values: FieldValueRequired"),
                format!("{at}.requirements[0].key: FieldValueInvalid"),
            ]
        );
        let at = "spec.resourceAttributes.fieldSelector";
        assert_eq!(
            found(json!({"fieldSelector": selector(requirement("", "Exists", json!(["a"])))})),
            [
                format!("{at}.requirements[0].key: FieldValueRequired"),
                format!("{at}.requirements[0].values: FieldValueForbidden"),
            ]
        );
        assert_eq!(found(json!({"fieldSelector": {}})), [format!("{at}.requirements: FieldValueRequired")]);
    }
}
