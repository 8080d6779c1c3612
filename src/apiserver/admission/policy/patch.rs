//! What a mutation's expression makes, put into the object.

use api::{Fields, Row};
use cel::Value as Cel;
use schema::managed;
use schema::patch::{self, JsonPatch, JsonPatchError};
use schema::{ListKind, Shape, TypeRef, Types};
use serde_json::{Value, json};

use super::declared::OBJECT;
use crate::admission::kind_of;
use crate::verbs::typed;

/// How deep a made value may nest to be looked at.
const DEPTH_MAX: usize = 64;

/// Merges an apply configuration (`Object{…}`) into the object. The error is upstream's text.
pub fn apply_configuration(
    made: &Cel<'_>,
    object: &Value,
    row: &Row,
    subresource: Option<&str>,
) -> Result<Value, String> {
    check_names(made, OBJECT).map_err(|why| format!("type mismatch: {why}"))?;
    let mut config = made.to_json().map_err(|error| error.to_string())?;
    for name in ["apiVersion", "kind"] {
        config.set(name, object.text(name));
    }
    let [group, version, kind] = kind_of(row, subresource);
    let ty = if kind == row.kind { typed::of_row(row) } else { Types::builtin().kind(group, version, kind) };
    let Some(ty) = ty else {
        // Nothing is known of its lists: they are replaced whole.
        let mut merged = object.clone();
        patch::merge(&mut merged, config);
        return Ok(merged);
    };
    managed::validate(&config, ty)
        .map_err(|why| format!("error applying patch: failed to convert patch object to typed object: {why}"))?;
    let mut atomics = Vec::new();
    find_atomics(&config, ty, &mut String::new(), &mut atomics, DEPTH_MAX);
    if !atomics.is_empty() {
        let atomics = atomics.join(", ");
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}"
        ));
    }
    Ok(managed::merge(object, &config, ty))
}

/// Applies the operations of a JSON patch (`[JSONPatch{…}]`). One whose test fails changes nothing.
pub fn json_patch(made: &Cel<'_>, object: &Value) -> Result<Value, String> {
    let Cel::List(operations) = made else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut document = Vec::new();
    for operation in operations.iter() {
        let operation = operation.map_err(|error| error.to_string())?;
        let Cel::Struct(of) = &operation else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned());
        };
        if let Some(Ok(value @ Cel::Struct(_))) = of.fields.field("value") {
            check_part_names(&value).map_err(|why| format!("type mismatch: {why}"))?;
        }
        let mut one = operation.to_json().map_err(|error| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
        })?;
        for name in ["op", "path"] {
            one.fill(name, "");
        }
        document.push(one);
    }
    let invalid = |error: JsonPatchError| format!("JSON Patch: {error}");
    let parsed = JsonPatch::parse(json!(document).to_string().as_bytes()).map_err(invalid)?;
    let mut patched = object.clone();
    match parsed.apply(&mut patched) {
        Ok(()) => Ok(patched),
        Err(JsonPatchError::TestFailed(_)) => Ok(object.clone()),
        Err(error) => Err(invalid(error)),
    }
}

/// `Object.spec{…}` stands where `spec` is, in lists and maps too.
fn check_names(value: &Cel<'_>, path: &str) -> Result<(), String> {
    match value {
        Cel::Struct(of) => {
            if &*of.name != path {
                return Err(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    &*of.name
                ));
            }
            for key in of.fields.keys() {
                let name = String::from(key.clone());
                if let Some(Ok(field)) = of.fields.get(&key) {
                    check_names(&field, &format!("{path}.{name}"))?;
                }
            }
        }
        Cel::List(cel::List::Shared(items)) => {
            for item in items.iter() {
                check_names(item, path)?;
            }
        }
        Cel::Map(map @ cel::Map::Shared(_)) => {
            for key in map.keys() {
                if let Some(Ok(item)) = map.get(&key) {
                    check_names(&item, path)?;
                }
            }
        }
        Cel::Optional(Some(value)) => check_names(value, path)?,
        _ => {}
    }
    Ok(())
}

/// A part of the object on its own: its own name is where it begins.
fn check_part_names(value: &Cel<'_>) -> Result<(), String> {
    match value {
        Cel::Struct(of) => check_names(value, &of.name),
        _ => Ok(()),
    }
}

/// Paths of what is owned as a whole: to set a part of it would drop the rest.
fn find_atomics(value: &Value, ty: TypeRef<'_>, path: &mut String, found: &mut Vec<String>, levels: usize) {
    let Some(below) = levels.checked_sub(1) else { return };
    let length = path.len();
    match (ty.shape(), value) {
        (Shape::Struct(of), Value::Object(fields)) => {
            if of.is_atomic() {
                found.push(path.clone());
            }
            for (name, value) in fields {
                if let Some(field) = of.field(name) {
                    path.push('.');
                    path.push_str(name);
                    find_atomics(value, field.ty(), path, found, below);
                    path.truncate(length);
                }
            }
        }
        (Shape::Map(of), Value::Object(fields)) => {
            if of.is_atomic() {
                found.push(path.clone());
            }
            for (name, value) in fields {
                path.push('.');
                path.push_str(name);
                find_atomics(value, of.element, path, found, below);
                path.truncate(length);
            }
        }
        (Shape::List(of), Value::Array(items)) => {
            if matches!(of.kind, ListKind::Atomic | ListKind::Undeclared) {
                found.push(path.clone());
            }
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                find_atomics(item, of.element, path, found, below);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
