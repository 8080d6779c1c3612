//! What expressions know of a schema's values: their types, and how large they can be (`cel/common.SchemaDeclType`).

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Decl, ListKind, ObjectType, Type};
use schema::structural::Structural;
use serde_json::Value;

/// The largest request, which bounds what has no bound of its own.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Bytes of the longest text in JSON, without the quotes.
const TEXT_BYTES_MAX: u64 = REQUEST_BYTES_MAX - 2;
/// `-9223372036s`, and more.
const DURATION_MAX: u64 = 32;
const DATE_TIME_MAX: u64 = 32;
/// Bytes of a date in quotes.
const DATE_BYTES: u64 = 12;
const DATE_TIME_BYTES_MIN: u64 = 21;
const DURATION_BYTES_MIN: u64 = 3;
const UTF8_BYTES_MAX: u64 = 4;

/// A schema with the declarations of its values, and those of all below it.
pub struct Declared {
    /// None where expressions can't see the values.
    pub decl: Option<Decl>,
    /// The least bytes that a value takes in JSON.
    bytes_min: u64,
    pub items: Option<Box<Declared>>,
    pub additional: Option<Box<Declared>>,
    pub fields: BTreeMap<String, Declared>,
}

impl Declared {
    /// `is_resource`: the values are whole resources, which have names and kinds whatever the schema says.
    pub fn new(schema: &Structural, is_resource: bool) -> Declared {
        Declared::named(schema, is_resource, "selfType")
    }

    /// `name` tells types of objects apart.
    fn named(schema: &Structural, is_resource: bool, name: &str) -> Declared {
        let below = |schema: &Structural, part: &str| {
            Declared::named(schema, schema.embedded_resource, &format!("{name}.{part}"))
        };
        let mut declared = Declared {
            decl: None,
            bytes_min: 0,
            items: schema.items.as_deref().map(|items| Box::new(below(items, "@idx"))),
            additional: schema.additional_schema().map(|values| Box::new(below(values, "@elem"))),
            fields: schema.properties.iter().map(|(name, field)| (name.clone(), below(field, name))).collect(),
        };
        if let Some((decl, bytes_min)) = declared.of(schema, is_resource, name) {
            declared.decl = Some(decl);
            declared.bytes_min = bytes_min;
        }
        declared
    }

    /// How often a value can occur in one request.
    pub fn cardinality_max(&self) -> u64 {
        REQUEST_BYTES_MAX / self.bytes_min.saturating_add(1)
    }

    fn of(&self, schema: &Structural, is_resource: bool, name: &str) -> Option<(Decl, u64)> {
        let values = &schema.values;
        let length = values.max_length.map(bound);
        if schema.int_or_string {
            let max_bytes = length.map_or(TEXT_BYTES_MAX, |length| length.saturating_mul(UTF8_BYTES_MAX));
            return Some((Decl::Any { max_bytes }, 1));
        }
        Some(match schema.ty.as_str() {
            "array" => {
                let items = self.items.as_deref()?;
                let max_items = values.max_items.map(bound).unwrap_or(TEXT_BYTES_MAX / (items.bytes_min + 1));
                let kind = match schema.list_type.as_deref() {
                    Some("set") => ListKind::Set,
                    Some("map") => ListKind::Map(schema.list_map_keys.clone().into()),
                    _ => ListKind::Atomic,
                };
                (Decl::List { items: Arc::new(items.decl.clone()?), max_items, kind }, 2)
            }
            "object" => return self.object(schema, is_resource, name),
            "string" => match values.format.as_str() {
                "byte" => (Decl::Bytes { max_length: length.unwrap_or(TEXT_BYTES_MAX) }, 2),
                "duration" => (Decl::Duration { max_length: DURATION_MAX }, DURATION_BYTES_MIN),
                "date" => (Decl::Timestamp { max_length: DATE_BYTES }, DATE_BYTES),
                "date-time" => (Decl::Timestamp { max_length: DATE_TIME_MAX }, DATE_TIME_BYTES_MIN),
                _ => (Decl::String { max_length: text_max(schema) }, 2),
            },
            "boolean" => (Decl::Plain(Type::Bool), 4),
            "number" => (Decl::Plain(Type::Double), 1),
            "integer" => (Decl::Plain(Type::Int), 1),
            _ => return None,
        })
    }

    fn object(&self, schema: &Structural, is_resource: bool, type_name: &str) -> Option<(Decl, u64)> {
        if let Some(additional) = &self.additional {
            let values = Arc::new(additional.decl.clone()?);
            let most = TEXT_BYTES_MAX / (additional.bytes_min + 6);
            let max_properties = schema.values.max_properties.map(bound).unwrap_or(most);
            return Some((Decl::Map { values, max_properties }, 2));
        }
        let mut bytes_min: u64 = 2;
        let mut fields = BTreeMap::new();
        for (name, field) in &self.fields {
            let Some(decl) = &field.decl else { continue };
            fields.insert(name.clone(), decl.clone());
            let has_default = schema.properties.get(name).is_some_and(|property| property.default.is_some());
            if schema.values.required.contains(name) && !has_default {
                let name = u64::try_from(name.len()).unwrap_or(u64::MAX);
                bytes_min = bytes_min.saturating_add(name).saturating_add(field.bytes_min).saturating_add(4);
            }
        }
        if is_resource && !has_identity(schema) {
            let text = || Decl::String { max_length: TEXT_BYTES_MAX };
            for name in ["apiVersion", "kind"] {
                fields.insert(name.to_owned(), text());
            }
            let names = ["generateName", "name"].map(|name| (name.to_owned(), text()));
            let metadata = Object { name: format!("{type_name}.metadata"), fields: names.into() };
            fields.insert("metadata".to_owned(), Decl::Object(Arc::new(metadata)));
        }
        Some((Decl::Object(Arc::new(Object { name: type_name.to_owned(), fields })), bytes_min))
    }
}

/// Whether a schema declares what identifies a resource.
fn has_identity(schema: &Structural) -> bool {
    let is = |schema: &Structural, name: &str, ty: &str| {
        schema.properties.get(name).is_some_and(|property| property.ty == ty)
    };
    let named = |metadata: &Structural| is(metadata, "name", "string") && is(metadata, "generateName", "string");
    is(schema, "kind", "string")
        && is(schema, "apiVersion", "string")
        && is(schema, "metadata", "object")
        && schema.properties.get("metadata").is_some_and(named)
}

fn text_max(schema: &Structural) -> u64 {
    let values = &schema.values;
    match values.max_length {
        Some(length) => bound(length).saturating_mul(UTF8_BYTES_MAX),
        None if values.enumeration.is_empty() => TEXT_BYTES_MAX,
        None => {
            let lengths = values.enumeration.iter().filter_map(Value::as_str).map(str::len);
            lengths.max().and_then(|length| u64::try_from(length).ok()).unwrap_or_default()
        }
    }
}

fn bound(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

struct Object {
    name: String,
    fields: BTreeMap<String, Decl>,
}

impl ObjectType for Object {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: &str) -> Option<Decl> {
        self.fields.get(name).cloned()
    }
}
