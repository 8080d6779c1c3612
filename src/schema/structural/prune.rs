//! Takes out the fields that a schema does not know.

use serde_json::Value;

use super::{META_FIELDS, Structural};
use crate::validation::{DEPTH_MAX, FINDINGS_MAX, Path};

/// Removes unknown fields and returns their paths (`spec.list[0].foo`), sorted, at most [`FINDINGS_MAX`] of them. At the
/// root, when it `is_resource`, and in embedded resources, type and metadata are left to others.
pub fn prune(value: &mut Value, schema: &Structural, is_resource: bool) -> Vec<String> {
    let mut pruner = Pruner { path: Path::default(), found: Vec::new() };
    pruner.value(value, Some(schema), schema.embedded_resource || is_resource, 0);
    pruner.found.sort();
    pruner.found
}

struct Pruner {
    path: Path,
    found: Vec<String>,
}

impl Pruner {
    fn value(&mut self, value: &mut Value, schema: Option<&Structural>, is_resource: bool, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        if let Some(schema) = schema.filter(|schema| schema.preserve_unknown_fields) {
            return self.known_only(value, schema, is_resource, depth);
        }
        match value {
            Value::Object(map) => map.retain(|name, value| {
                let Some(schema) = schema else {
                    self.record(name, depth);
                    return false;
                };
                if is_resource && META_FIELDS.contains(&name.as_str()) {
                    return true;
                }
                if !schema.properties.contains_key(name) && schema.additional.is_none() {
                    self.record(name, depth);
                    return false;
                }
                let below = schema.field(name);
                let mark = self.path.field(name);
                self.value(value, below, below.is_some_and(|s| s.embedded_resource), depth + 1);
                self.path.leave(mark);
                true
            }),
            Value::Array(items) => {
                let below = schema.and_then(|schema| schema.items.as_deref());
                for (index, item) in items.iter_mut().enumerate() {
                    let mark = self.path.index(index);
                    self.value(item, below, below.is_some_and(|s| s.embedded_resource), depth + 1);
                    self.path.leave(mark);
                }
            }
            _ => {}
        }
    }

    /// Where unknown fields are kept, those below known ones are still pruned.
    fn known_only(&mut self, value: &mut Value, schema: &Structural, is_resource: bool, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match value {
            Value::Object(map) => {
                for (name, value) in map.iter_mut() {
                    let known = schema.properties.contains_key(name) || schema.additional.is_some();
                    if !known || (is_resource && META_FIELDS.contains(&name.as_str())) {
                        continue;
                    }
                    let below = schema.field(name);
                    let mark = self.path.field(name);
                    self.value(value, below, below.is_some_and(|s| s.embedded_resource), depth + 1);
                    self.path.leave(mark);
                }
            }
            Value::Array(items) => {
                let Some(below) = schema.items.as_deref() else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    let mark = self.path.index(index);
                    self.known_only(item, below, below.embedded_resource, depth + 1);
                    self.path.leave(mark);
                }
            }
            _ => {}
        }
    }

    fn record(&mut self, name: &str, depth: usize) {
        if self.found.len() < FINDINGS_MAX && !(depth == 0 && META_FIELDS.contains(&name)) {
            let mark = self.path.field(name);
            self.found.push(self.path.text.clone());
            self.path.leave(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pruned(schema: Value, mut value: Value) -> (Value, Vec<String>) {
        let schema = Structural::parse(&schema).unwrap();
        let found = prune(&mut value, &schema, true);
        (value, found)
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {"type": "string"}}}},
        }}}});
        let value = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "what": 1}, "other": 1,
            "spec": {"a": "x", "b": 1, "list": [{"x": 1}, {"z": 1}], "map": {"k": {"y": "1", "w": 2}}}});
        let (value, found) = pruned(schema, value);
        assert_eq!(found, ["other", "spec.b", "spec.list[1].z", "spec.map.k.w"]);
        assert_eq!(
            value,
            json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "what": 1},
                "spec": {"a": "x", "list": [{"x": 1}, {}], "map": {"k": {"y": "1"}}}})
        );
    }

    #[test]
    fn what_is_to_be_kept_is_kept_and_its_known_parts_are_pruned() {
        let schema = json!({"type": "object", "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }});
        let value = json!({
            "free": {"any": {"x": [1]}, "known": {"a": "1", "b": 2}},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {}, "spec": {"n": 1}},
        });
        let (value, found) = pruned(schema, value);
        assert_eq!(found, ["embedded.spec.n", "embedded.status", "free.known.b"]);
        assert_eq!(value["free"], json!({"any": {"x": [1]}, "known": {"a": "1"}}));
        assert_eq!(value["embedded"]["metadata"], json!({"name": "a"}));
    }
}
