//! Values against schemas, with the texts that upstream gives.

use serde_json::{Value, json};

use super::*;

fn found(schema: Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Structural::parse(&schema).unwrap();
    let show = |problem: Problem| match problem.value {
        Some(value) => format!("{}: {:?} {value}: {}", problem.path, problem.kind, problem.detail),
        None => format!("{}: {:?} {}", problem.path, problem.kind, problem.detail),
    };
    validate(value, &schema, old, "").into_iter().map(show).collect()
}

fn spec(properties: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

#[test]
fn types_and_formats() {
    let schema = spec(json!({
        "n": {"type": "integer", "format": "int32"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "d": {"type": "string", "format": "date-time"}, "f": {"type": "number"}, "e": {"type": "string", "enum": ["a", "b"]},
        "x": {"x-kubernetes-int-or-string": true}, "z": {"type": "string", "nullable": true}, "odd": {"type": "string", "format": "made-up"},
    }));
    let good = json!({"spec": {"n": 1.0, "s": "", "b": true, "d": "2026-01-02T03:04:05Z", "f": 3, "e": "a", "x": 5, "z": null, "odd": "?"}});
    assert_eq!(found(schema.clone(), &good, None), [""; 0]);
    let bad = json!({"spec": {"n": "1", "s": 1, "b": "x", "d": "soon", "f": "1", "e": "c", "x": true, "z": 1}});
    assert_eq!(
        found(schema.clone(), &bad, None),
        [
            r#"spec.b: TypeInvalid "string": spec.b in body must be of type boolean: "string""#,
            r#"spec.d: TypeInvalid "soon": spec.d in body must be of type date-time: "soon""#,
            r#"spec.e: NotSupported "c": supported values: "a", "b""#,
            r#"spec.f: TypeInvalid "string": spec.f in body must be of type number: "string""#,
            r#"spec.n: TypeInvalid "string": spec.n in body must be of type integer: "string""#,
            r#"spec.s: TypeInvalid "integer": spec.s in body must be of type string: "integer""#,
            r#"spec.x: TypeInvalid "boolean": spec.x in body must be of type integer,string: "boolean""#,
            r#"spec.z: TypeInvalid "integer": spec.z in body must be of type string: "integer""#,
        ]
    );
    assert_eq!(
        found(schema, &json!({"spec": {"n": 3_000_000_000_i64, "s": null}}), None),
        [
            r#"<nil>: Invalid "": Checked value must be of type integer with format int32 in spec.n"#,
            r#"spec.s: TypeInvalid "null": spec.s in body must be of type string: "null""#,
        ]
    );
}

#[test]
fn bounds() {
    let schema = spec(json!({
        "n": {"type": "integer", "minimum": 1, "maximum": 10}, "m": {"type": "integer", "multipleOf": 3},
        "s": {"type": "string", "minLength": 2, "maxLength": 3}, "p": {"type": "string", "pattern": "^a+$"},
        "l": {"type": "array", "maxItems": 1, "minItems": 1, "items": {"type": "string"}},
        "o": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}},
        "r": {"type": "object", "required": ["q"], "properties": {"q": {"type": "string"}}},
    }));
    let bad =
        json!({"spec": {"n": 11, "m": 4, "s": "abcd", "p": "b", "l": ["a", "b"], "o": {"a": 1, "b": "2"}, "r": {}}});
    assert_eq!(
        found(schema.clone(), &bad, None),
        [
            "spec.l: TooMany 2: must have at most 1 items",
            "spec.m: Invalid 4: spec.m in body should be a multiple of 3",
            "spec.n: Invalid 11: spec.n in body should be less than or equal to 10",
            "spec.o: TooMany 2: must have at most 1 items",
            r#"spec.o.b: TypeInvalid "string": spec.o.b in body must be of type integer: "string""#,
            r#"spec.p: Invalid "b": spec.p in body should match '^a+$'"#,
            "spec.r.q: Required ",
            "spec.s: TooLong may not be more than 3 bytes",
        ]
    );
    assert_eq!(
        found(schema, &json!({"spec": {"s": "a", "l": [], "n": 0}}), None),
        [
            "spec.l: Invalid 0: spec.l in body should have at least 1 items",
            "spec.n: Invalid 0: spec.n in body should be greater than or equal to 1",
            r#"spec.s: Invalid "a": spec.s in body should be at least 2 chars long"#,
        ]
    );
}

#[test]
fn alternatives() {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "not": {"required": ["c"]},
    }}});
    assert_eq!(found(schema.clone(), &json!({"spec": {"a": "x"}}), None), [""; 0]);
    assert_eq!(
        found(schema.clone(), &json!({"spec": {"a": "x", "b": "y", "c": 1}}), None),
        [
            r#"<nil>: Invalid "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            r#"<nil>: Invalid "": "spec" must not validate the schema (not)"#,
        ]
    );
    assert_eq!(
        found(schema, &json!({"spec": {}}), None),
        [
            r#"<nil>: Invalid "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.a: Required ",
        ]
    );
}

#[test]
fn what_did_not_change_is_not_held_against_an_update() {
    let schema = spec(json!({
        "n": {"type": "integer", "maximum": 10}, "m": {"type": "integer", "maximum": 10},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object",
            "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        "atomic": {"type": "array", "items": {"type": "integer", "maximum": 1}},
    }));
    let old = json!({"spec": {"n": 11, "m": 1, "l": [{"k": "a", "v": 5}], "atomic": [5]}});
    assert_eq!(found(schema.clone(), &old, Some(&old)), [""; 0]);
    let new = json!({"spec": {"n": 11, "m": 12, "l": [{"k": "b", "v": 5}, {"k": "a", "v": 5}], "atomic": [5, 6]}});
    assert_eq!(
        found(schema, &new, Some(&old)),
        [
            "spec.atomic[0]: Invalid 5: spec.atomic[0] in body should be less than or equal to 1",
            "spec.atomic[1]: Invalid 6: spec.atomic[1] in body should be less than or equal to 1",
            "spec.l[0].v: Invalid 5: spec.l[0].v in body should be less than or equal to 1",
            "spec.m: Invalid 12: spec.m in body should be less than or equal to 10",
        ]
    );
}
