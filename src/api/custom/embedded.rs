//! Objects inside custom resources (`x-kubernetes-embedded-resource`): their type and metadata are checked as every
//! object's are (`schema/objectmeta`).

use schema::structural::Structural;
use schema::{Types, validation};
use serde_json::Value;

use crate::{failure::FieldError, fields::Fields, format, meta, path::Path};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Checks JSON types and prunes metadata; returns the paths of unknown fields.
pub fn coerce(object: &mut Value, schema: &Structural) -> Result<Vec<String>, FieldError> {
    let mut unknown = Vec::new();
    if has_embedded(schema) {
        below(object, schema, &Path::Root, &mut unknown)?;
    }
    Ok(unknown)
}

/// Checks that embedded objects say what they are, and that their metadata is valid.
pub fn validate(object: &Value, schema: &Structural, errors: &mut Vec<FieldError>) {
    if has_embedded(schema) {
        check(object, schema, &Path::Root, errors);
    }
}

fn has_embedded(schema: &Structural) -> bool {
    schema.embedded_resource || schema.children().any(has_embedded)
}

fn below(value: &mut Value, schema: &Structural, path: &Path<'_>, unknown: &mut Vec<String>) -> Result<(), FieldError> {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                if schema.embedded_resource {
                    meta_field(name, value, path, unknown)?;
                }
                if let Some(property) = schema.properties.get(name) {
                    below(value, property, &path.field(name), unknown)?;
                } else if let Some(schema) = schema.additional_schema() {
                    below(value, schema, &path.key(name), unknown)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                below(item, schema, &path.index(index), unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn meta_field(name: &str, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) -> Result<(), FieldError> {
    match name {
        "apiVersion" | "kind" if !value.is_string() => {
            Err(FieldError::invalid(&path.field(name), value, "must be a string"))
        }
        "metadata" => {
            let Some(ty) = Types::builtin().named(OBJECT_META) else { return Ok(()) };
            let here = path.field("metadata");
            validation::check_types(value, ty)
                .map_err(|error| FieldError::invalid(&here, value, &error.to_string()))?;
            unknown.extend(validation::prune_unknown(value, ty).into_iter().map(|field| format!("{here}.{field}")));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check(value: &Value, schema: &Structural, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource {
                check_embedded(value, path, errors);
            }
            for (name, value) in map {
                if let Some(property) = schema.properties.get(name) {
                    check(value, property, &path.field(name), errors);
                } else if let Some(schema) = schema.additional_schema() {
                    check(value, schema, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return };
            for (index, item) in items.iter().enumerate() {
                check(item, schema, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

fn check_embedded(object: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        let here = path.field(name);
        match object.get(name) {
            None => errors.push(FieldError::required(&here, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(&here, &"".into(), "must not be empty"));
            }
            Some(Value::String(text)) if name == "kind" => {
                let findings = format::dns_1035_label(&text.to_lowercase());
                if !findings.is_empty() {
                    let text_of = format!("may have mixed case, but should otherwise match: {}", findings.join(","));
                    errors.push(FieldError::invalid(&here, &text.as_str().into(), &text_of));
                }
            }
            Some(Value::String(text)) if text.matches('/').count() > 1 => {
                let text_of = format!("unexpected GroupVersion string: {text}");
                errors.push(FieldError::invalid(&here, &text.as_str().into(), &text_of));
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.push(FieldError::invalid(&here, other, "must be a string")),
        }
    }
    let Some(metadata) = object.at("metadata") else { return };
    let here = path.field("metadata");
    let name = metadata.text("name");
    if !name.is_empty() {
        for finding in format::path_segment(name, false) {
            errors.push(FieldError::invalid(&here.field("name"), &name.into(), &finding));
        }
    }
    meta::labels(metadata.map("labels"), &here.field("labels"), errors);
    meta::annotations(metadata.map("annotations"), &here.field("annotations"), errors);
}
