//! Conditions in CEL under which an authorization webhook is asked; they see the SubjectAccessReviewSpec as `request`.

use std::sync::LazyLock;

use cel::{Budget, Decl, Env, MATCH_CONDITIONS_COST_MAX, Program, Type, Variables};
use serde_json::Value;

use crate::declared::{Declared, Field};

/// Conditions of one webhook.
const CONDITIONS_MAX: usize = 64;

#[derive(Default)]
pub struct MatchConditions(Vec<(String, Program)>);

impl MatchConditions {
    /// The error names the condition, as a continuation of the field's path.
    pub fn compile(expressions: &[&str]) -> Result<MatchConditions, String> {
        if expressions.len() > CONDITIONS_MAX {
            return Err(format!("Too many: {}: must have at most {CONDITIONS_MAX} items", expressions.len()));
        }
        let mut programs: Vec<(String, Program)> = Vec::new();
        for (at, expression) in expressions.iter().enumerate() {
            let refused = |why: String| format!("[{at}].expression: {why}");
            if expression.trim().is_empty() {
                return Err(refused("Required value".to_owned()));
            }
            if programs.iter().any(|(known, _)| known == expression) {
                return Err(refused(format!("Duplicate value: {expression:?}")));
            }
            let invalid = |why: String| refused(format!("Invalid value: {expression:?}: {why}"));
            let program = ENV.compile(expression).map_err(|errors| invalid(format!("compilation failed: {errors}")))?;
            if !matches!(program.result(), Type::Bool) {
                return Err(invalid("must evaluate to bool".to_owned()));
            }
            programs.push(((*expression).to_owned(), program));
        }
        Ok(MatchConditions(programs))
    }

    /// All hold of a `SubjectAccessReviewSpec`. One that does not hold decides over those that fail.
    pub fn hold(&self, spec: &Value) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let mut budget = Budget::new(MATCH_CONDITIONS_COST_MAX);
        let mut failures = Vec::new();
        let request = cel::Value::of_json(spec, &request()).map_err(|error| error.to_string())?;
        let variables = Variables::new().with("request", request);
        for (expression, program) in &self.0 {
            let failed = |why: String| format!("cel evaluation error: expression '{expression}' {why}");
            match program.eval(&variables, &mut budget) {
                Ok(value) => match value.as_bool() {
                    Some(true) => {}
                    Some(false) => return Ok(false),
                    None => failures.push(failed("eval result type should be bool".to_owned())),
                },
                Err(error) => failures.push(failed(format!("resulted in error: {error}"))),
            }
        }
        if failures.is_empty() { Ok(true) } else { Err(failures.join(", ")) }
    }
}

static ENV: LazyLock<Env> = LazyLock::new(|| Env::new().variable("request", request()));

fn request() -> Decl {
    Declared::decl(
        "kubernetes.SubjectAccessReviewSpec",
        &[
            ("resourceAttributes", Field::Object(resource)),
            ("nonResourceAttributes", Field::Object(path)),
            ("user", Field::Text),
            ("groups", Field::Texts),
            ("extra", Field::TextsByName),
            ("uid", Field::Text),
        ],
    )
}

fn resource() -> Decl {
    Declared::decl(
        "kubernetes.ResourceAttributes",
        &[
            ("namespace", Field::Text),
            ("verb", Field::Text),
            ("group", Field::Text),
            ("version", Field::Text),
            ("resource", Field::Text),
            ("subresource", Field::Text),
            ("name", Field::Text),
            ("fieldSelector", Field::Object(selector)),
            ("labelSelector", Field::Object(selector)),
        ],
    )
}

fn path() -> Decl {
    Declared::decl("kubernetes.NonResourceAttributes", &[("path", Field::Text), ("verb", Field::Text)])
}

fn selector() -> Decl {
    let fields: &[(&str, Field)] = &[("rawSelector", Field::Text), ("requirements", Field::Objects(requirement))];
    Declared::decl("kubernetes.SelectorAttributes", fields)
}

fn requirement() -> Decl {
    let fields: &[(&str, Field)] = &[("key", Field::Text), ("operator", Field::Text), ("values", Field::Texts)];
    Declared::decl("kubernetes.SelectorRequirement", fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_that_does_not_hold_decides_over_one_that_fails() {
        let spec =
            json!({"user": "alice", "groups": ["dev"], "resourceAttributes": {"namespace": "shop", "verb": "get"}});
        let hold = |expressions: &[&str]| MatchConditions::compile(expressions).unwrap().hold(&spec);
        assert_eq!(hold(&[]), Ok(true));
        assert_eq!(hold(&["has(request.resourceAttributes)", "'dev' in request.groups"]), Ok(true));
        assert_eq!(hold(&["request.nonResourceAttributes.path == '/'", "request.user == 'bob'"]), Ok(false));
        let failure = hold(&["request.nonResourceAttributes.path == '/'", "request.user == 'alice'"]).unwrap_err();
        assert!(failure.contains("resulted in error"), "{failure}");
    }

    #[test]
    fn a_condition_that_cannot_be_evaluated_is_refused() {
        let refused = |expressions: &[&str]| MatchConditions::compile(expressions).err().unwrap();
        assert!(refused(&["request.usr == 'a'"]).starts_with("[0].expression: Invalid value"));
        assert!(refused(&["request.user"]).ends_with("must evaluate to bool"));
        assert_eq!(refused(&["true", " "]), "[1].expression: Required value");
        assert_eq!(refused(&["true", "true"]), "[1].expression: Duplicate value: \"true\"");
    }
}
