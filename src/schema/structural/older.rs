//! What an older value had at the same place, and whether it is still the same (`common.CorrelatedObject`).

use std::collections::HashMap;

use serde_json::Value;

use super::Structural;

/// Elements of an older list by their keys; none of a list whose elements have none.
pub struct Olds<'v> {
    keys: &'v [String],
    /// `None` where two have the same keys.
    elements: HashMap<Vec<Option<String>>, Option<&'v Value>>,
}

impl<'v> Olds<'v> {
    /// `schema` is that of the list.
    pub fn new(schema: &'v Structural, old: Option<&'v Value>) -> Olds<'v> {
        let mut olds = Olds { keys: &schema.list_map_keys, elements: HashMap::new() };
        if schema.is_keyed_list() {
            for element in old.and_then(Value::as_array).into_iter().flatten() {
                if let Some(key) = olds.key(element) {
                    let twice = |found: &mut Option<&Value>| *found = None;
                    olds.elements.entry(key).and_modify(twice).or_insert(Some(element));
                }
            }
        }
        olds
    }

    /// The older element with the same keys.
    pub fn find(&self, element: &Value) -> Option<&'v Value> {
        if self.elements.is_empty() {
            return None;
        }
        *self.elements.get(&self.key(element)?)?
    }

    fn key(&self, element: &Value) -> Option<Vec<Option<String>>> {
        let object = element.as_object()?;
        Some(self.keys.iter().map(|key| object.get(key.as_str()).map(Value::to_string)).collect())
    }
}

/// Whether a value is what it was. What the schema does not declare counts as changed; elements of a keyed list may
/// have changed places.
pub fn is_same(schema: &Structural, value: &Value, old: &Value) -> bool {
    match (value, old) {
        (Value::Object(value), Value::Object(old)) => {
            let same = |(name, value): (&String, &Value)| match (schema.field(name), old.get(name)) {
                (Some(schema), Some(old)) => is_same(schema, value, old),
                _ => false,
            };
            value.len() == old.len() && value.iter().all(same)
        }
        (Value::Array(items), Value::Array(before)) if schema.is_keyed_list() => {
            let Some(element) = schema.items.as_deref() else { return value == old };
            let olds = Olds::new(schema, Some(old));
            let same = |item: &Value| olds.find(item).is_some_and(|old| is_same(element, item, old));
            items.len() == before.len() && items.iter().all(same)
        }
        _ => value == old,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_found_by_their_keys() {
        let schema = json!({"type": "object", "properties": {
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
        let schema = Structural::parse(&schema).unwrap();
        let list = |items: Value| json!({"list": items});
        let (a, b) = (json!({"k": "a", "v": 1}), json!({"k": "b", "v": 2}));
        assert!(is_same(&schema, &list(json!([a, b])), &list(json!([b, a]))));
        assert!(!is_same(&schema, &list(json!([a])), &list(json!([b, a]))));
        assert!(is_same(&schema, &json!({"free": {}}), &json!({"free": {}})));
        assert!(!is_same(&schema, &json!({"free": {"x": 1}}), &json!({"free": {"x": 1}})));
        let old = json!([a, b, {"k": "b"}]);
        let list = &schema.properties["list"];
        let olds = Olds::new(list, Some(&old));
        assert_eq!((olds.find(&json!({"k": "a"})), olds.find(&b)), (Some(&a), None));
    }
}
