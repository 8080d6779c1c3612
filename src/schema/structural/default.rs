//! Fills in the defaults of a schema.

use serde_json::Value;

use super::Structural;
use crate::validation::DEPTH_MAX;

/// Fills in defaults, also in place of nulls that may not be. Twice changes nothing.
pub fn default(value: &mut Value, schema: &Structural) {
    fill(value, schema, 0);
}

/// Takes out nulls that may not be and for which there is no default.
pub fn drop_nulls(value: &mut Value, schema: &Structural) {
    drop_below(value, Some(schema), 0);
}

fn is_wrong_null(value: &Value, schema: &Structural) -> bool {
    value.is_null() && !schema.nullable
}

fn fill(value: &mut Value, schema: &Structural, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                if let Some(default) = &property.default
                    && map.get(name).is_none_or(|value| is_wrong_null(value, property))
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(property) = schema.properties.get(name) {
                    fill(value, property, depth + 1);
                } else if let Some(additional) = schema.additional_schema() {
                    fill_element(value, additional, depth);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return };
            items.iter_mut().for_each(|item| fill_element(item, schema, depth));
        }
        _ => {}
    }
}

fn fill_element(value: &mut Value, schema: &Structural, depth: usize) {
    if is_wrong_null(value, schema)
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    fill(value, schema, depth + 1);
}

fn drop_below(value: &mut Value, schema: Option<&Structural>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let below = schema.and_then(|schema| schema.field(name));
            if value.is_null() {
                return below.is_none_or(|schema| schema.nullable || schema.default.is_some());
            }
            drop_below(value, below, depth + 1);
            true
        }),
        Value::Array(items) => {
            let below = schema.and_then(|schema| schema.items.as_deref());
            items.iter_mut().for_each(|item| drop_below(item, below, depth + 1));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_filled_in_at_every_level() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {"spec": {
            "type": "object", "default": {}, "properties": {
                "a": {"type": "string", "default": "A"},
                "n": {"type": "string", "nullable": true, "default": "N"},
                "gone": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer", "default": 1}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {"type": "integer", "default": 2}}}},
        }}}}))
        .unwrap();
        let mut value = json!({});
        default(&mut value, &schema);
        assert_eq!(value, json!({"spec": {"a": "A", "n": "N"}}));
        let mut value = json!({"spec": {"a": null, "n": null, "gone": null, "list": [{}, {"x": 5}], "map": {"k": {}}}});
        drop_nulls(&mut value, &schema);
        default(&mut value, &schema);
        let expected = json!({"spec": {"a": "A", "n": null, "list": [{"x": 1}, {"x": 5}], "map": {"k": {"y": 2}}}});
        assert_eq!(value, expected);
        default(&mut value, &schema);
        assert_eq!(value, expected);
    }
}
