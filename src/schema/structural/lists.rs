//! `x-kubernetes-list-type`: the elements of a set, and the keys of a map's, occur once.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Problem, Structural};
use crate::validation::DEPTH_MAX;

/// What occurs twice.
pub fn unique(value: &Value, schema: &Structural) -> Vec<Problem> {
    let mut problems = Vec::new();
    check(value, schema, "", 0, &mut problems);
    problems
}

fn check(value: &Value, schema: &Structural, path: &str, depth: usize, problems: &mut Vec<Problem>) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(property) = schema.properties.get(name) {
                    if value.is_object() || value.is_array() {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        check(value, property, &path, depth + 1, problems);
                    }
                } else if let Some(schema) = schema.additional_schema()
                    && (value.is_object() || value.is_array())
                {
                    check(value, schema, &format!("{path}[{name}]"), depth + 1, problems);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type.as_deref() {
                Some("set") => {
                    for index in repeated(items.iter()) {
                        let value = items.get(index).cloned().unwrap_or_default();
                        problems.push(Problem::duplicate(format!("{path}[{index}]"), value));
                    }
                }
                Some("map") => keyed(items, schema, path, problems),
                _ => {}
            }
            if let Some(schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    if item.is_object() || item.is_array() {
                        check(item, schema, &format!("{path}[{index}]"), depth + 1, problems);
                    }
                }
            }
        }
        _ => {}
    }
}

fn keyed(items: &[Value], schema: &Structural, path: &str, problems: &mut Vec<Problem>) {
    if let Some((index, item)) = items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null()) {
        let text = "must be an object for an array of list-type map";
        problems.push(Problem::invalid(format!("{path}[{index}]"), item.clone(), text));
        return;
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| {
            let key = |key: &String| Some((key.clone(), item.get(key.as_str())?.clone()));
            Value::Object(schema.list_map_keys.iter().filter_map(key).collect::<Map<_, _>>())
        })
        .collect();
    for index in repeated(keys.iter()) {
        let key = keys.get(index).cloned().unwrap_or_default();
        problems.push(Problem::duplicate(format!("{path}[{index}]"), key));
    }
}

/// The places at which something occurs for the second time.
fn repeated<'v>(values: impl Iterator<Item = &'v Value>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut places = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            places.push(index);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_found_by_value_and_by_key() {
        let schema =
            Structural::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "one": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                "two": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                    "items": {"type": "object"}},
            }}}}))
            .unwrap();
        let value = json!({"spec": {
            "set": ["a", "b", "a", "a"], "one": [{"name": "x"}, {"name": "y"}, {"name": "x", "v": 1}, {}],
            "two": [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 0}],
        }});
        let found: Vec<String> =
            unique(&value, &schema).into_iter().map(|p| format!("{} {}", p.path, p.value.unwrap())).collect();
        assert_eq!(found, [r#"spec.one[2] {"name":"x"}"#, r#"spec.set[2] "a""#, r#"spec.two[2] {"a":1,"b":2}"#]);
    }
}
