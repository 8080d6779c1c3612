//! The schemas of definitions.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Dialect;
use crate::types::{FieldRef, ListKind, MapKind, Scalar, Shape, StructType, TypeRef, Types};

/// Gives the description of a definition, or of a definition's field.
pub type Describe<'d> = &'d dyn Fn(&str, Option<&str>) -> Option<String>;

/// Writes schemas and remembers which definitions they refer to.
pub(super) struct Schemas<'s> {
    pub dialect: Dialect,
    pub types: &'s Types,
    pub describe: Describe<'s>,
    /// Group and version that definitions which are a kind everywhere are a kind of, too.
    pub group_versions: &'s [(&'s str, &'s str)],
    custom: &'s [CustomKind],
    wanted: BTreeSet<String>,
}

/// A kind that comes at run time, with its definition as it stands in the document.
#[derive(Debug, Clone)]
pub struct CustomKind {
    pub group: String,
    pub version: String,
    pub kind: String,
    /// `com.example.v1.Widget`
    pub name: String,
    pub definition: Value,
}

impl CustomKind {
    /// The name of a kind's definition: the group backwards, the version, the kind.
    pub fn name_of(group: &str, version: &str, kind: &str) -> String {
        let parts: Vec<&str> = group.split('.').rev().chain([version, kind]).collect();
        parts.join(".")
    }
}

impl<'s> Schemas<'s> {
    pub fn new(
        dialect: Dialect,
        types: &'s Types,
        describe: Describe<'s>,
        group_versions: &'s [(&'s str, &'s str)],
        custom: &'s [CustomKind],
    ) -> Schemas<'s> {
        Schemas { dialect, types, describe, group_versions, custom, wanted: BTreeSet::new() }
    }

    /// The name of a kind's definition.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        let own = self.custom.iter().find(|one| one.kind == kind && one.version == version && one.group == group);
        match own {
            Some(own) => Some(own.name.clone()),
            None => self.types.kind(group, version, kind).and_then(|ty| ty.definition_name()).map(str::to_owned),
        }
    }

    /// A reference to a definition, which will be among [`Schemas::finish`]'s.
    pub fn reference(&mut self, definition: &str) -> Value {
        if !self.wanted.contains(definition) {
            self.wanted.insert(definition.to_owned());
        }
        Value::String(format!("{}{definition}", self.dialect.reference_prefix()))
    }

    /// The schemas of all definitions that were referred to, and of those that they refer to.
    pub fn finish(mut self) -> Map<String, Value> {
        let mut schemas = Map::new();
        loop {
            let missing: Vec<String> = self.wanted.iter().filter(|n| !schemas.contains_key(*n)).cloned().collect();
            if missing.is_empty() {
                return schemas;
            }
            for name in missing {
                let schema = self.definition(&name);
                schemas.insert(name, schema);
            }
        }
    }

    fn definition(&mut self, name: &str) -> Value {
        if let Some(own) = self.custom.iter().find(|one| one.name == name) {
            self.note_references(&own.definition);
            return own.definition.clone();
        }
        let Some(ty) = self.types.named(name) else { return json!({}) };
        let mut schema = match ty.as_struct() {
            Some(s) => self.structure(s),
            None => self.alias(ty),
        };
        self.put_description(&mut schema, name, None);
        Value::Object(schema)
    }

    /// Wants what a definition that was not written here refers to.
    fn note_references(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let reference = map.get("$ref").and_then(Value::as_str);
                if let Some(name) = reference.and_then(|text| text.strip_prefix(self.dialect.reference_prefix())) {
                    self.wanted.insert(name.to_owned());
                }
                map.values().for_each(|value| self.note_references(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.note_references(item)),
            _ => {}
        }
    }

    fn structure(&mut self, s: StructType<'_>) -> Map<String, Value> {
        let mut schema = object([("type", json!("object"))]);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in s.fields() {
            if field.required() {
                required.push(Value::from(field.name()));
            }
            let property = self.field(s.name(), field);
            properties.insert(field.name().to_owned(), Value::Object(property));
        }
        put(&mut schema, "properties", Value::Object(properties));
        if !required.is_empty() {
            put(&mut schema, "required", Value::Array(required));
        }
        let mut kinds: BTreeSet<(&str, &str, &str)> = self.types.kinds_of(s.name()).collect();
        if s.is_in_every_group() {
            kinds.extend(self.group_versions.iter().map(|(group, version)| (*group, *version, s.short_name())));
        }
        if !kinds.is_empty() {
            let kinds: Vec<Value> =
                kinds.iter().map(|(g, v, k)| json!({"group": g, "version": v, "kind": k})).collect();
            put(&mut schema, "x-kubernetes-group-version-kind", Value::Array(kinds));
        }
        put_map_kind(&mut schema, s.kind_of_definition());
        let unions: Vec<Value> = s
            .unions()
            .map(|union| {
                let members: Map<String, Value> =
                    union.members().map(|m| (m.to_owned(), Value::String(capitalized(m)))).collect();
                let mut entry = object([("fields-to-discriminateBy", Value::Object(members))]);
                if !union.discriminator().is_empty() {
                    put(&mut entry, "discriminator", json!(union.discriminator()));
                }
                Value::Object(entry)
            })
            .collect();
        if !unions.is_empty() {
            put(&mut schema, "x-kubernetes-unions", Value::Array(unions));
        }
        schema
    }

    fn alias(&mut self, ty: TypeRef<'_>) -> Map<String, Value> {
        match (self.dialect, ty.shape()) {
            (Dialect::V3, Shape::Scalar(Scalar::Quantity)) => {
                object([("oneOf", json!([{"type": "string"}, {"type": "number"}]))])
            }
            (Dialect::V3, Shape::Scalar(Scalar::IntOrString)) => object([
                ("format", json!("int-or-string")),
                ("oneOf", json!([{"type": "integer"}, {"type": "string"}])),
            ]),
            (_, Shape::Any) => Map::new(),
            _ => self.inline(ty),
        }
    }

    fn field(&mut self, definition: &str, field: FieldRef<'_>) -> Map<String, Value> {
        let mut schema = match field.ty().definition_name() {
            Some(name) => {
                let mut extras = Map::new();
                put_map_kind(&mut extras, field.ty().map_kind_here());
                self.put_facts(&mut extras, definition, field);
                let reference = object([("$ref", self.reference(name))]);
                match self.dialect {
                    // Beside a reference nothing else may stand.
                    Dialect::V3 if !extras.is_empty() => {
                        put(&mut extras, "allOf", Value::Array(vec![Value::Object(reference)]));
                        return extras;
                    }
                    Dialect::V3 | Dialect::V2 => {
                        extras.extend(reference);
                        return extras;
                    }
                }
            }
            None => self.inline(field.ty()),
        };
        self.put_facts(&mut schema, definition, field);
        schema
    }

    fn put_facts(&self, schema: &mut Map<String, Value>, definition: &str, field: FieldRef<'_>) {
        self.put_description(schema, definition, Some(field.name()));
        // Defaults are no part of the older document.
        if self.dialect == Dialect::V3
            && let Some(default) = field.default()
        {
            put(schema, "default", default.clone());
        }
        if !field.patch_strategy().is_empty() {
            put(schema, "x-kubernetes-patch-strategy", json!(field.patch_strategy()));
        }
        if let Some(key) = field.merge_key() {
            put(schema, "x-kubernetes-patch-merge-key", json!(key));
        }
        if field.string_with_list_type() {
            put(schema, "x-kubernetes-list-type", json!("atomic"));
        }
    }

    fn put_description(&self, schema: &mut Map<String, Value>, definition: &str, field: Option<&str>) {
        if let Some(description) = (self.describe)(definition, field) {
            put(schema, "description", Value::String(description));
        }
    }

    /// The schema of a type that stands where it is used.
    fn inline(&mut self, ty: TypeRef<'_>) -> Map<String, Value> {
        match ty.shape() {
            Shape::Scalar(scalar) => scalar_schema(scalar),
            Shape::List(list) => {
                let mut schema = object([("type", json!("array")), ("items", self.element(list.element))]);
                let kind = match list.kind {
                    ListKind::Undeclared => None,
                    ListKind::Atomic => Some("atomic"),
                    ListKind::Set => Some("set"),
                    ListKind::Map => Some("map"),
                };
                if let Some(kind) = kind {
                    put(&mut schema, "x-kubernetes-list-type", json!(kind));
                }
                if list.keys().len() > 0 {
                    put(&mut schema, "x-kubernetes-list-map-keys", list.keys().map(Value::from).collect());
                }
                schema
            }
            Shape::Map(map) => {
                let element = self.element(map.element);
                let mut schema = object([("type", json!("object")), ("additionalProperties", element)]);
                put_map_kind(&mut schema, map.kind);
                schema
            }
            Shape::Object | Shape::Struct(_) => object([("type", json!("object"))]),
            Shape::Any => Map::new(),
        }
    }

    fn element(&mut self, ty: TypeRef<'_>) -> Value {
        match ty.definition_name() {
            Some(name) => Value::Object(object([("$ref", self.reference(name))])),
            None => Value::Object(self.inline(ty)),
        }
    }
}

fn scalar_schema(scalar: Scalar) -> Map<String, Value> {
    let (ty, format) = match scalar {
        Scalar::String | Scalar::Quantity => ("string", None),
        Scalar::Byte => ("string", Some("byte")),
        Scalar::DateTime => ("string", Some("date-time")),
        Scalar::Int32 => ("integer", Some("int32")),
        Scalar::Int64 => ("integer", Some("int64")),
        Scalar::Integer => ("integer", None),
        Scalar::Double => ("number", Some("double")),
        Scalar::Number => ("number", None),
        Scalar::Boolean => ("boolean", None),
        Scalar::IntOrString => ("string", Some("int-or-string")),
    };
    let mut schema = object([("type", json!(ty))]);
    if let Some(format) = format {
        put(&mut schema, "format", json!(format));
    }
    schema
}

fn put_map_kind(schema: &mut Map<String, Value>, kind: Option<MapKind>) {
    let kind = match kind {
        None => return,
        Some(MapKind::Atomic) => "atomic",
        Some(MapKind::Granular) => "granular",
    };
    put(schema, "x-kubernetes-map-type", json!(kind));
}

pub(super) fn put(schema: &mut Map<String, Value>, name: &str, value: Value) {
    schema.insert(name.to_owned(), value);
}

pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
