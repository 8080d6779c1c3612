//! Conditions of a status (upstream: `metav1.Condition`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const REASON: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";

pub(crate) fn conditions(check: &mut Check<'_>, holder: &Value, path: &Path<'_>) {
    let list = path.field("conditions");
    let mut types = BTreeSet::new();
    for (index, one) in holder.list("conditions").iter().enumerate() {
        let path = list.index(index);
        let kind = one.text("type");
        if !types.insert(kind) {
            check.duplicate(&path.field("type"), &kind.into());
        }
        check.found(&path.field("type"), kind, format::label_key(kind));
        check.choice_or_not_supported(one, &path, "status", &["False", "True", "Unknown"]);
        if let Some(generation) = one.int("observedGeneration").filter(|&generation| generation < 0) {
            let text = "must be greater than or equal to zero";
            check.invalid(&path.field("observedGeneration"), &generation.into(), text);
        }
        check.text(one, &path, "lastTransitionTime");
        if check.text(one, &path, "reason") {
            reason(check, one.text("reason"), &path.field("reason"));
        }
        if one.text("message").len() > MESSAGE_BYTES_MAX {
            check.errors.push(FieldError::too_long(&path.field("message"), MESSAGE_BYTES_MAX));
        }
    }
}

fn reason(check: &mut Check<'_>, text: &str, path: &Path<'_>) {
    let middle = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let fits = text.bytes().all(middle)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric() || last == b'_');
    if !fits {
        let what = "a condition reason must start with alphabetic character, optionally followed by a string of \
                    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
        let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
        check.invalid(path, &text.into(), &format::pattern_text(what, REASON, &examples));
    }
    if text.len() > REASON_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, REASON_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_complete_and_of_different_types() {
        let good = json!({"type": "Ready", "status": "True", "reason": "All_good",
            "lastTransitionTime": "2026-01-02T03:04:05Z"});
        let found = |list: Value| {
            let mut errors = Vec::new();
            let holder = json!({"conditions": list});
            conditions(&mut Check { errors: &mut errors }, &holder, &Path::Root.field("status"));
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(found(json!([good])), Vec::<String>::new());
        assert_eq!(found(json!([good, good])), ["status.conditions[1].type"]);
        let bad = json!({"type": "a b", "status": "Maybe", "observedGeneration": -1, "reason": "9"});
        let at = |name: &str| format!("status.conditions[0].{name}");
        let all = ["type", "status", "observedGeneration", "lastTransitionTime", "reason"].map(at);
        assert_eq!(found(json!([bad])), all);
    }
}
