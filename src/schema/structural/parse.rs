//! A schema from the JSON of a `JSONSchemaProps`, whose field types have been checked.

use serde_json::{Map, Value};

use super::{Additional, Constraints, Pattern, Rule, Structural};

impl Structural {
    /// Reads a schema; the error says which of its fields no structural schema can have.
    pub fn parse(json: &Value) -> Result<Structural, String> {
        let Some(map) = json.as_object() else { return Ok(Structural::default()) };
        unsupported(map)?;
        if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            return Err("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned());
        }
        let items = match map.get("items") {
            None | Some(Value::Null) => None,
            Some(Value::Array(_)) => {
                return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
            }
            Some(items) => Some(Box::new(Structural::parse(items)?)),
        };
        let mut properties = std::collections::BTreeMap::new();
        for (name, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            properties.insert(name.clone(), Structural::parse(property)?);
        }
        let additional = match map.get("additionalProperties") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(any)) => Some(Additional::Any(*any)),
            Some(schema) => Some(Additional::Schema(Box::new(Structural::parse(schema)?))),
        };
        Ok(Structural {
            ty: text(map, "type"),
            description: text(map, "description"),
            title: text(map, "title"),
            default: present(map, "default"),
            nullable: flag(map, "nullable"),
            external_docs: present(map, "externalDocs"),
            example: present(map, "example"),
            preserve_unknown_fields: flag(map, "x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag(map, "x-kubernetes-embedded-resource"),
            int_or_string: flag(map, "x-kubernetes-int-or-string"),
            list_map_keys: texts(map, "x-kubernetes-list-map-keys"),
            list_type: optional_text(map, "x-kubernetes-list-type"),
            map_type: optional_text(map, "x-kubernetes-map-type"),
            rules: list(map, "x-kubernetes-validations").iter().map(rule).collect(),
            items,
            properties,
            additional,
            values: constraints(map)?,
        })
    }
}

fn constraints(map: &Map<String, Value>) -> Result<Constraints, String> {
    let schemas = |name: &str| list(map, name).iter().map(Structural::parse).collect::<Result<Vec<_>, _>>();
    let not = match map.get("not") {
        None | Some(Value::Null) => None,
        Some(not) => Some(Box::new(Structural::parse(not)?)),
    };
    let int = |name: &str| map.get(name).and_then(Value::as_i64);
    let float = |name: &str| map.get(name).and_then(Value::as_f64);
    Ok(Constraints {
        format: text(map, "format"),
        maximum: float("maximum"),
        exclusive_maximum: flag(map, "exclusiveMaximum"),
        minimum: float("minimum"),
        exclusive_minimum: flag(map, "exclusiveMinimum"),
        max_length: int("maxLength"),
        min_length: int("minLength"),
        pattern: optional_text(map, "pattern").filter(|text| !text.is_empty()).map(Pattern::new),
        max_items: int("maxItems"),
        min_items: int("minItems"),
        unique_items: flag(map, "uniqueItems"),
        multiple_of: float("multipleOf"),
        enumeration: list(map, "enum").to_vec(),
        max_properties: int("maxProperties"),
        min_properties: int("minProperties"),
        required: texts(map, "required"),
        all_of: schemas("allOf")?,
        one_of: schemas("oneOf")?,
        any_of: schemas("anyOf")?,
        not,
    })
}

fn unsupported(map: &Map<String, Value>) -> Result<(), String> {
    let filled = |name: &str| match map.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(_) => true,
    };
    for (name, shown) in [
        ("id", "id"),
        ("$schema", "schema"),
        ("$ref", "$ref"),
        ("patternProperties", "patternProperties"),
        ("dependencies", "dependencies"),
        ("definitions", "definitions"),
    ] {
        if filled(name) {
            return Err(format!("OpenAPIV3Schema '{shown}' is not supported"));
        }
    }
    match map.get("additionalItems") {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err("OpenAPIV3Schema 'additionalItems' is not supported".to_owned()),
    }
}

fn rule(json: &Value) -> Rule {
    let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Rule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: json.get("reason").and_then(Value::as_str).map(str::to_owned),
        field_path: text("fieldPath"),
        optional_old_self: json.get("optionalOldSelf").and_then(Value::as_bool),
    }
}

fn text(map: &Map<String, Value>, name: &str) -> String {
    optional_text(map, name).unwrap_or_default()
}

fn optional_text(map: &Map<String, Value>, name: &str) -> Option<String> {
    map.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn list<'a>(map: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    map.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn texts(map: &Map<String, Value>, name: &str) -> Vec<String> {
    list(map, name).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn present(map: &Map<String, Value>, name: &str) -> Option<Value> {
    map.get(name).filter(|value| !value.is_null()).cloned()
}
