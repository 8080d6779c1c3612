//! A schema as a table of types, by which fields have owners.

use super::{Additional, Structural};
use crate::types::{Builder, ListKind, MapKind, NewField, Part, Scalar, TooLarge, Types};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Types {
    /// The types of a custom resource in one version; without a schema, types follow from the values.
    pub fn of_custom(gvk: [&str; 3], schema: Option<&Structural>) -> Result<Types, TooLarge> {
        let mut builder = Builder::default();
        let nothing = Structural { preserve_unknown_fields: true, ..Structural::default() };
        let schema = schema.unwrap_or(&nothing);
        let root = resource(schema, schema.preserve_unknown_fields, &mut builder)?;
        builder.finish(gvk, root)
    }
}

/// An object with type and metadata.
fn resource(schema: &Structural, open: bool, builder: &mut Builder) -> Result<Part, TooLarge> {
    let text = builder.scalar(Scalar::String)?;
    let metadata = match Types::builtin().named(OBJECT_META) {
        Some(ty) => builder.copy(ty)?,
        None => builder.object()?,
    };
    let mut fields: Vec<NewField<'_>> = [("apiVersion", text), ("kind", text), ("metadata", metadata)]
        .into_iter()
        .map(|(name, ty)| NewField { name, ty, required: false, default: None })
        .collect();
    let others = schema.properties.iter().filter(|(name, _)| !super::META_FIELDS.contains(&name.as_str()));
    for (name, property) in others {
        let ty = part(property, open, builder)?;
        fields.push(NewField { name, ty, required: false, default: property.default.as_ref() });
    }
    builder.structure(fields, map_kind(schema), open)
}

/// `open` is whether a schema above keeps unknown fields, which holds for everything below it.
fn part(schema: &Structural, open: bool, builder: &mut Builder) -> Result<Part, TooLarge> {
    let open = open || schema.preserve_unknown_fields;
    if schema.embedded_resource {
        return resource(schema, open, builder);
    }
    if schema.int_or_string {
        return builder.scalar(Scalar::IntOrString);
    }
    match schema.ty.as_str() {
        "string" => builder.scalar(Scalar::String),
        "integer" => builder.scalar(Scalar::Integer),
        "number" => builder.scalar(Scalar::Number),
        "boolean" => builder.scalar(Scalar::Boolean),
        "array" => {
            let element = match &schema.items {
                Some(items) => part(items, open, builder)?,
                None => builder.object()?,
            };
            let kind = match schema.list_type.as_deref() {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map,
                _ => ListKind::Atomic,
            };
            builder.list(element, kind, &schema.list_map_keys)
        }
        _ => object(schema, open, builder),
    }
}

fn object(schema: &Structural, open: bool, builder: &mut Builder) -> Result<Part, TooLarge> {
    if let Some(Additional::Schema(element)) = &schema.additional {
        let element = part(element, open, builder)?;
        return builder.map(element, map_kind(schema));
    }
    if schema.properties.is_empty() && schema.additional != Some(Additional::Any(false)) {
        let free = builder.object()?;
        return match map_kind(schema) {
            Some(kind) => builder.map(free, Some(kind)),
            None => Ok(free),
        };
    }
    let mut fields = Vec::with_capacity(schema.properties.len());
    for (name, property) in &schema.properties {
        let ty = part(property, open, builder)?;
        fields.push(NewField { name, ty, required: false, default: property.default.as_ref() });
    }
    let open = open || schema.additional == Some(Additional::Any(true));
    builder.structure(fields, map_kind(schema), open)
}

fn map_kind(schema: &Structural) -> Option<MapKind> {
    match schema.map_type.as_deref() {
        Some("atomic") => Some(MapKind::Atomic),
        Some("granular") => Some(MapKind::Granular),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::managed;

    fn types(schema: Value) -> Types {
        let schema = Structural::parse(&schema).unwrap();
        Types::of_custom(["example.com", "v1", "Widget"], Some(&schema)).unwrap()
    }

    #[test]
    fn owners_follow_the_list_and_map_types() {
        let types = types(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {
                    "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "string"}}},
        }}}}));
        let ty = types.kind("example.com", "v1", "Widget").unwrap();
        let object = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
            "ports": [{"port": 80, "name": "x"}], "set": ["s"], "plain": ["p"], "whole": {"k": "v"},
            "free": {"known": "1", "other": {"deep": [1]}},
        }});
        assert_eq!(
            managed::field_set(&object, ty).to_json(),
            json!({
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {
                    "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
                    "f:set": {"v:\"s\"": {}}, "f:plain": {}, "f:whole": {},
                    "f:free": {"f:known": {}, "f:other": {".": {}, "f:deep": {}}},
                },
            })
        );
        assert!(managed::validate(&object, ty).is_ok());
        assert_eq!(
            managed::validate(&json!({"spec": {"nope": 1}}), ty),
            Err(".spec.nope: field not declared in schema".to_owned())
        );
    }

    #[test]
    fn without_a_schema_types_follow_from_values() {
        let types = Types::of_custom(["example.com", "v1", "Widget"], None).unwrap();
        let ty = types.kind("example.com", "v1", "Widget").unwrap();
        let (old, new) = (json!({"spec": {"a": {"b": 1}}}), json!({"spec": {"a": {"b": 2, "c": [1]}}}));
        let changes = managed::compare(&old, &new, ty);
        assert_eq!(changes.modified.to_json(), json!({"f:spec": {"f:a": {"f:b": {}}}}));
        assert_eq!(changes.added.to_json(), json!({"f:spec": {"f:a": {"f:c": {}}}}));
        let merged = managed::merge(&old, &json!({"spec": {"x": {"y": 1}}}), ty);
        assert_eq!(merged, json!({"spec": {"a": {"b": 1}, "x": {"y": 1}}}));
    }
}
