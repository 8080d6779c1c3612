//! Fields that a type does not have.

use serde_json::Value;

use super::{DEPTH_MAX, FINDINGS_MAX, Path};
use crate::types::{Shape, TypeRef};

/// Removes the fields that the type does not have and returns their paths (`spec.containers[0].foo`), at
/// most [`FINDINGS_MAX`] of them.
pub fn prune_unknown(value: &mut Value, ty: TypeRef<'_>) -> Vec<String> {
    let mut found = Vec::new();
    prune(value, ty, &mut Path::default(), 0, &mut found);
    found
}

/// The paths that [`prune_unknown`] would remove.
pub fn unknown_fields(value: &Value, ty: TypeRef<'_>) -> Vec<String> {
    let mut found = Vec::new();
    search(value, ty, &mut Path::default(), 0, &mut found);
    found
}

fn prune(value: &mut Value, ty: TypeRef<'_>, path: &mut Path, depth: usize, found: &mut Vec<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    match (value, ty.shape()) {
        (Value::Object(map), Shape::Struct(s)) => map.retain(|name, value| {
            let mark = path.field(name);
            let field = s.field(name);
            match field {
                Some(field) => prune(value, field.ty(), path, depth + 1, found),
                None => record(path, found),
            }
            path.leave(mark);
            field.is_some()
        }),
        (Value::Object(map), Shape::Map(m)) if !is_leaf(m.element) => {
            for (name, value) in map {
                let mark = path.field(name);
                prune(value, m.element, path, depth + 1, found);
                path.leave(mark);
            }
        }
        (Value::Array(items), Shape::List(l)) if !is_leaf(l.element) => {
            for (index, item) in items.iter_mut().enumerate() {
                let mark = path.index(index);
                prune(item, l.element, path, depth + 1, found);
                path.leave(mark);
            }
        }
        _ => {}
    }
}

fn search(value: &Value, ty: TypeRef<'_>, path: &mut Path, depth: usize, found: &mut Vec<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    match (value, ty.shape()) {
        (Value::Object(map), Shape::Struct(s)) => {
            for (name, value) in map {
                let mark = path.field(name);
                match s.field(name) {
                    Some(field) => search(value, field.ty(), path, depth + 1, found),
                    None => record(path, found),
                }
                path.leave(mark);
            }
        }
        (Value::Object(map), Shape::Map(m)) if !is_leaf(m.element) => {
            for (name, value) in map {
                let mark = path.field(name);
                search(value, m.element, path, depth + 1, found);
                path.leave(mark);
            }
        }
        (Value::Array(items), Shape::List(l)) if !is_leaf(l.element) => {
            for (index, item) in items.iter().enumerate() {
                let mark = path.index(index);
                search(item, l.element, path, depth + 1, found);
                path.leave(mark);
            }
        }
        _ => {}
    }
}

fn record(path: &Path, found: &mut Vec<String>) {
    if found.len() < FINDINGS_MAX {
        found.push(path.text.clone());
    }
}

/// Types without fields below them.
fn is_leaf(ty: TypeRef<'_>) -> bool {
    matches!(ty.shape(), Shape::Scalar(_) | Shape::Object | Shape::Any)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Types;

    #[test]
    fn unknown_fields_are_pruned_and_named() {
        let ty = Types::builtin().kind("apps", "v1", "Deployment").unwrap();
        let mut value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "foo": 1,
            "metadata": {"name": "a", "labels": {"any": "thing"}, "annotation": {}},
            "spec": {"template": {"spec": {"containers": [{"name": "c"}, {"name": "d", "imagee": "x"}]}}},
        });
        let expected =
            ["foo", "metadata.annotation", "spec.template.spec.containers[1].imagee"].map(String::from).to_vec();
        assert_eq!(unknown_fields(&value, ty), expected);
        assert_eq!(prune_unknown(&mut value, ty), expected);
        assert_eq!(value["spec"]["template"]["spec"]["containers"][1], json!({"name": "d"}));
        assert_eq!(value["metadata"], json!({"name": "a", "labels": {"any": "thing"}}));
        assert!(unknown_fields(&value, ty).is_empty());
    }

    #[test]
    fn free_form_objects_are_left_alone() {
        let ty = Types::builtin().kind("apps", "v1", "ControllerRevision").unwrap();
        let value = json!({"data": {"spec": {"whatever": [{"x": 1}]}}, "revision": 1});
        assert!(unknown_fields(&value, ty).is_empty());
    }

    #[test]
    fn the_list_of_findings_is_bounded() {
        let ty = Types::builtin().kind("", "v1", "Pod").unwrap();
        let many: serde_json::Map<String, Value> = (0..1000).map(|i| (format!("x{i}"), Value::Null)).collect();
        let mut value = Value::Object(many);
        assert_eq!(prune_unknown(&mut value, ty).len(), FINDINGS_MAX);
        assert_eq!(value, json!({}));
    }
}
