//! A schema in OpenAPI documents (`controller/openapi/builder`).
//!
//! Version 2 cannot say what version 3 can: alternatives go, and what may be null or hold unknown fields loses what
//! would make kubectl refuse it.

use serde_json::{Map, Number, Value, json};

use super::{Additional, Structural};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The texts about the fields that every object has: `apiVersion`, `kind` and `metadata`.
pub type MetaTexts<'d> = &'d dyn Fn(&str) -> Option<String>;

/// The schema in a document of version 3; `None` is a definition without one.
pub fn publish_v3(schema: Option<&Structural>, texts: MetaTexts<'_>) -> Map<String, Value> {
    publish(schema, Writer { v2: false, prefix: "#/components/schemas/", texts })
}

/// The schema in a document of version 2.
pub fn publish_v2(schema: Option<&Structural>, texts: MetaTexts<'_>) -> Map<String, Value> {
    let schema = schema.filter(|schema| !schema.preserve_unknown_fields).map(simplified);
    publish(schema.as_ref(), Writer { v2: true, prefix: "#/definitions/", texts })
}

fn publish(schema: Option<&Structural>, writer: Writer<'_>) -> Map<String, Value> {
    match schema {
        // With properties of its own kubectl would take everything else for wrong.
        None => Map::from_iter([("type".to_owned(), json!("object"))]),
        Some(schema) => {
            let mut written = writer.schema(schema);
            writer.put_meta(&mut written);
            written
        }
    }
}

/// What version 2 can say of a schema.
fn simplified(schema: &Structural) -> Structural {
    let mut s = schema.clone();
    let v = &mut s.values;
    (v.all_of, v.any_of, v.one_of, v.not) = (Vec::new(), Vec::new(), Vec::new(), None);
    if s.nullable {
        s.nullable = false;
        s.ty.clear();
        s.items = None;
        s.properties.clear();
    }
    if s.preserve_unknown_fields {
        s.items = None;
        s.properties.clear();
    }
    if s.ty == "array" && s.items.is_none() {
        s.ty.clear();
    }
    if s.preserve_unknown_fields && s.ty == "object" {
        s.ty.clear();
    }
    let properties = &s.properties;
    s.values.required.retain(|name| !properties.get(name).is_some_and(|property| property.nullable));
    if s.additional_schema().is_some_and(|schema| schema.nullable) {
        s.values.required.clear();
    }
    s.items = s.items.map(|items| Box::new(simplified(&items)));
    s.properties = s.properties.iter().map(|(name, property)| (name.clone(), simplified(property))).collect();
    if let Some(Additional::Schema(schema)) = &s.additional {
        s.additional = Some(Additional::Schema(Box::new(simplified(schema))));
    }
    s
}

#[derive(Clone, Copy)]
struct Writer<'d> {
    v2: bool,
    prefix: &'static str,
    texts: MetaTexts<'d>,
}

impl Writer<'_> {
    fn schema(self, s: &Structural) -> Map<String, Value> {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        for (name, text) in [("type", &s.ty), ("description", &s.description), ("title", &s.title)] {
            if !text.is_empty() {
                put(name, Value::from(text.as_str()));
            }
        }
        for (name, value) in [("default", &s.default), ("externalDocs", &s.external_docs), ("example", &s.example)] {
            if let Some(value) = value {
                put(name, value.clone());
            }
        }
        for (name, flag) in [
            ("nullable", s.nullable),
            ("x-kubernetes-preserve-unknown-fields", s.preserve_unknown_fields),
            ("x-kubernetes-embedded-resource", s.embedded_resource),
            ("x-kubernetes-int-or-string", s.int_or_string),
        ] {
            if flag {
                put(name, Value::from(true));
            }
        }
        if !s.list_map_keys.is_empty() {
            put("x-kubernetes-list-map-keys", json!(s.list_map_keys));
        }
        for (name, text) in [("x-kubernetes-list-type", &s.list_type), ("x-kubernetes-map-type", &s.map_type)] {
            if let Some(text) = text {
                put(name, Value::from(text.as_str()));
            }
        }
        if !s.rules.is_empty() {
            put("x-kubernetes-validations", s.rules.iter().map(rule).collect());
        }
        if let Some(items) = &s.items {
            put("items", Value::Object(self.schema(items)));
        }
        if !s.properties.is_empty() {
            let properties = s.properties.iter().map(|(name, p)| (name.clone(), Value::Object(self.schema(p))));
            put("properties", Value::Object(properties.collect()));
        }
        match &s.additional {
            Some(Additional::Schema(schema)) => put("additionalProperties", Value::Object(self.schema(schema))),
            Some(Additional::Any(any)) => put("additionalProperties", Value::from(*any)),
            None => {}
        }
        self.constraints(s, &mut out);
        if s.embedded_resource && !(self.v2 && s.preserve_unknown_fields) {
            self.put_meta(&mut out);
            let required = out.entry("required").or_insert_with(|| json!([]));
            if let Value::Array(required) = required {
                for name in ["kind", "apiVersion"] {
                    if !required.iter().any(|one| one == name) {
                        required.push(name.into());
                    }
                }
            }
        }
        out
    }

    fn constraints(self, s: &Structural, out: &mut Map<String, Value>) {
        let v = &s.values;
        let mut put = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        if !v.format.is_empty() {
            put("format", Value::from(v.format.as_str()));
        }
        if let Some(pattern) = &v.pattern {
            put("pattern", Value::from(pattern.text()));
        }
        for (name, bound) in [("maximum", v.maximum), ("minimum", v.minimum), ("multipleOf", v.multiple_of)] {
            if let Some(bound) = bound {
                put(name, float(bound));
            }
        }
        for (name, bound) in [
            ("maxLength", v.max_length),
            ("minLength", v.min_length),
            ("maxItems", v.max_items),
            ("minItems", v.min_items),
            ("maxProperties", v.max_properties),
            ("minProperties", v.min_properties),
        ] {
            if let Some(bound) = bound {
                put(name, bound.into());
            }
        }
        for (name, flag) in [
            ("exclusiveMaximum", v.exclusive_maximum),
            ("exclusiveMinimum", v.exclusive_minimum),
            ("uniqueItems", v.unique_items),
        ] {
            if flag {
                put(name, Value::from(true));
            }
        }
        if !v.enumeration.is_empty() {
            put("enum", Value::Array(v.enumeration.clone()));
        }
        if !v.required.is_empty() {
            put("required", json!(v.required));
        }
        for (name, all) in [("allOf", &v.all_of), ("anyOf", &v.any_of), ("oneOf", &v.one_of)] {
            if !all.is_empty() {
                put(name, all.iter().map(|one| Value::Object(self.schema(one))).collect());
            }
        }
        if let Some(not) = &v.not {
            put("not", Value::Object(self.schema(not)));
        }
        if s.int_or_string && !self.v2 && v.any_of.is_empty() && v.all_of.is_empty() {
            put("anyOf", json!([{"type": "integer"}, {"type": "string"}]));
        }
    }

    fn put_meta(self, out: &mut Map<String, Value>) {
        let properties = out.entry("properties").or_insert_with(|| json!({}));
        let Value::Object(properties) = properties else { return };
        for name in ["apiVersion", "kind"] {
            let mut property = json!({"type": "string"});
            self.describe(name, &mut property);
            properties.insert(name.to_owned(), property);
        }
        let reference = json!({"$ref": format!("{}{META}ObjectMeta", self.prefix)});
        let mut metadata = if self.v2 { reference } else { json!({"allOf": [reference]}) };
        self.describe("metadata", &mut metadata);
        properties.insert("metadata".to_owned(), metadata);
    }

    fn describe(self, name: &str, property: &mut Value) {
        if let (Some(text), Some(property)) = ((self.texts)(name), property.as_object_mut()) {
            property.insert("description".to_owned(), Value::from(text));
        }
    }
}

fn rule(rule: &super::Rule) -> Value {
    let mut out = Map::new();
    for (name, text) in [
        ("rule", rule.rule.as_str()),
        ("message", &rule.message),
        ("messageExpression", &rule.message_expression),
        ("reason", rule.reason.as_deref().unwrap_or_default()),
        ("fieldPath", &rule.field_path),
    ] {
        if !text.is_empty() {
            out.insert(name.to_owned(), Value::from(text));
        }
    }
    if let Some(optional) = rule.optional_old_self {
        out.insert("optionalOldSelf".to_owned(), optional.into());
    }
    Value::Object(out)
}

/// A number without a fraction that says nothing.
fn float(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "only where it is exact")]
    let whole = number as i64;
    #[expect(clippy::cast_precision_loss, reason = "compared with what it was made from")]
    if whole as f64 == number {
        return whole.into();
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_says_what_it_can() {
        let schema = json!({"type": "object", "description": "a widget", "properties": {"spec": {
            "type": "object", "required": ["a", "n"], "properties": {
                "a": {"type": "integer", "minimum": 1, "maximum": 1.5},
                "n": {"type": "array", "nullable": true, "items": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
                "port": {"x-kubernetes-int-or-string": true},
            }, "anyOf": [{"required": ["a"]}, {"required": ["n"]}],
        }}});
        let schema = Structural::parse(&schema).unwrap();
        let texts = |name: &str| Some(format!("about {name}"));
        let v2 = Value::Object(publish_v2(Some(&schema), &texts));
        assert_eq!(
            v2["properties"]["spec"],
            json!({"type": "object", "required": ["a"], "properties": {
                "a": {"type": "integer", "minimum": 1, "maximum": 1.5}, "n": {},
                "free": {"x-kubernetes-preserve-unknown-fields": true}, "port": {"x-kubernetes-int-or-string": true},
            }})
        );
        assert_eq!(
            v2["properties"]["metadata"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        assert_eq!(v2["properties"]["kind"], json!({"type": "string", "description": "about kind"}));
        let v3 = Value::Object(publish_v3(Some(&schema), &texts));
        assert_eq!(v3["properties"]["spec"]["properties"]["n"]["nullable"], true);
        assert_eq!(v3["properties"]["spec"]["anyOf"].as_array().map(Vec::len), Some(2));
        assert_eq!(v3["properties"]["spec"]["properties"]["port"]["anyOf"][0], json!({"type": "integer"}));
        let free = Structural { preserve_unknown_fields: true, ..Structural::default() };
        assert_eq!(Value::Object(publish_v2(Some(&free), &texts)), json!({"type": "object"}));
    }
}
