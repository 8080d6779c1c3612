use serde_json::{Value, json};

use super::*;

struct Checked {
    schema: Structural,
    rules: Rules,
}

/// A resource whose `spec` has these properties, and rules.
fn spec(properties: Value, rules: Value) -> Checked {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules}}});
    of(schema)
}

fn of(schema: Value) -> Checked {
    let schema = Structural::parse(&schema).unwrap();
    let rules = Rules::new(&schema, true).expect("the schema has rules");
    Checked { schema, rules }
}

impl Checked {
    fn errors(&self, spec: Value, old: Option<Value>) -> Vec<String> {
        let object =
            |spec: Value| json!({"apiVersion": "e.com/v1", "kind": "E", "metadata": {"name": "n"}, "spec": spec});
        let errors = self.rules.check(&object(spec), &self.schema, old.map(object).as_ref());
        errors.iter().map(|error| format!("{}: {}", error.field, error.body())).collect()
    }
}

#[test]
fn failures_name_the_place_and_the_reason() {
    let checked = spec(
        json!({"x": {"type": "integer"}, "y": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
            "m": {"type": "object", "additionalProperties": {"type": "string", "x-kubernetes-validations": [
                {"rule": "self != 'bad'", "reason": "FieldValueForbidden"}]}}}),
        json!([
            {"rule": "self.x + self.y > 0"},
            {"rule": "self.x < 5", "message": " too much ", "fieldPath": ".x"},
            {"rule": "self.x < 6", "messageExpression": "'x is ' + string(self.x)"},
            {"rule": "self.x < 7", "messageExpression": "' '", "reason": "FieldValueRequired"},
        ]),
    );
    assert!(checked.errors(json!({"x": 1, "y": 1}), None).is_empty());
    assert_eq!(
        checked.errors(json!({"x": 8, "y": -9, "m": {"k": "bad", "l": "good"}}), None),
        [
            "spec: Invalid value: failed rule: self.x + self.y > 0",
            "spec.x: Invalid value: too much",
            "spec: Invalid value: x is 8",
            "spec: Required value: failed rule: self.x < 7",
            "spec.m[k]: Forbidden: failed rule: self != 'bad'",
            "spec.y: Invalid value: -9: failed rule: self > 0",
        ]
    );
    assert_eq!(
        checked.errors(json!({"x": 1}), None),
        [r#"spec: Invalid value: "object": no such key: y evaluating rule: self.x + self.y > 0"#]
    );
}

#[test]
fn older_values_are_told_by_path_and_by_key() {
    let element = json!({"type": "object", "properties": {"k": {"type": "string"},
        "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}});
    let checked = spec(
        json!({"list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": element},
            "once": {"type": "string", "x-kubernetes-validations": [
                {"rule": "!oldSelf.hasValue() || self == oldSelf.value()", "optionalOldSelf": true, "message": "immutable"}]},
            "born": {"type": "string", "x-kubernetes-validations": [
                {"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true}]}}),
        json!([{"rule": "has(self.once) || !has(oldSelf.once)", "message": "stays"}]),
    );
    let old = json!({"list": [{"k": "a", "v": 1}, {"k": "b", "v": 5}], "once": "x"});
    assert!(checked.errors(old.clone(), None).is_empty(), "there is nothing to compare with");
    let new = json!({"list": [{"k": "b", "v": 4}, {"k": "c", "v": 0}, {"k": "a", "v": 1}], "once": "y", "born": "old"});
    assert_eq!(
        checked.errors(new, Some(old.clone())),
        [
            r#"spec.born: Invalid value: "old": failed rule: oldSelf.hasValue() || self == 'new'"#,
            "spec.list[0].v: Invalid value: 4: failed rule: self >= oldSelf",
            r#"spec.once: Invalid value: "y": immutable"#,
        ]
    );
    assert_eq!(checked.errors(json!({}), Some(old)), ["spec: Invalid value: stays"]);
}

#[test]
fn what_did_not_change_is_let_pass() {
    let checked = spec(
        json!({"a": {"type": "string", "x-kubernetes-validations": [{"rule": "self == 'x'"}]},
            "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}}}),
        json!([{"rule": "!has(self.list) || size(self.list) < 2"}]),
    );
    let old = json!({"a": "y", "list": [0, 0]});
    assert_eq!(checked.errors(old.clone(), None).len(), 4);
    assert!(checked.errors(old.clone(), Some(old.clone())).is_empty());
    let new = json!({"a": "y", "list": [0, 0, 1]});
    assert_eq!(
        checked.errors(new, Some(old)),
        [
            "spec: Invalid value: failed rule: !has(self.list) || size(self.list) < 2",
            "spec.list[0]: Invalid value: 0: failed rule: self > 0",
            "spec.list[1]: Invalid value: 0: failed rule: self > 0",
        ],
        "elements without keys are as old as their list"
    );
}

#[test]
fn work_is_bounded() {
    let checked = spec(
        json!({"list": {"type": "array", "maxItems": 725, "items": {"type": "integer"}}, "b": {"type": "integer"}}),
        json!([{"rule": "self.list.all(x, self.list.all(y, x == y))"}, {"rule": "self.b > 0"}]),
    );
    assert_eq!(
        checked.errors(json!({"list": vec![1; 725], "b": 0}), None),
        [concat!(
            r#"spec: Invalid value: "object": 'operation cancelled: actual cost limit exceeded': no further validation "#,
            "rules will be run due to call cost exceeds limit for rule: self.list.all(x, self.list.all(y, x == y))"
        )]
    );
}

#[test]
fn resources_have_names_whatever_the_schema_says() {
    let checked = of(json!({"type": "object", "x-kubernetes-validations": [
        {"rule": "self.metadata.name.startsWith('good')"}, {"rule": "self.kind == 'E' && self.apiVersion == 'e.com/v1'"}],
        "properties": {"spec": {"type": "object", "properties": {
            "x-y.z": {"x-kubernetes-int-or-string": true, "x-kubernetes-validations": [
                {"rule": "type(self) == int ? self > 1 : self.endsWith('%')"}]},
            "when": {"type": "string", "format": "date-time"}},
            "x-kubernetes-validations": [{"rule": "self.x__dash__y__dot__z != 0 && self.when.getFullYear() == 2026"}]}}}));
    assert_eq!(
        checked.errors(json!({"x-y.z": 0, "when": "2025-01-01T00:00:00Z"}), None),
        [
            "<nil>: Invalid value: failed rule: self.metadata.name.startsWith('good')",
            "spec: Invalid value: failed rule: self.x__dash__y__dot__z != 0 && self.when.getFullYear() == 2026",
            "spec.x-y.z: Invalid value: 0: failed rule: type(self) == int ? self > 1 : self.endsWith('%')",
        ]
    );
}
