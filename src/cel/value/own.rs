//! Values that outlive what they were found in.

use std::sync::Arc;

use super::{Key, Library, List, Map, Struct, Text, Value};

impl Value<'_> {
    /// The same value with everything it borrows copied. `None` for what cannot be kept: an authorizer, and fields
    /// computed on demand; and for JSON that is not what it is declared to be.
    pub fn to_static(&self) -> Option<Value<'static>> {
        Some(match self {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(*value),
            Value::Int(value) => Value::Int(*value),
            Value::Uint(value) => Value::Uint(*value),
            Value::Double(value) => Value::Double(*value),
            Value::String(text) => Value::String(text_to_static(text)),
            Value::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Value::Timestamp(at) => Value::Timestamp(*at),
            Value::Duration(nanos) => Value::Duration(*nanos),
            Value::Type(name) => Value::Type(name.clone()),
            Value::Optional(None) => Value::Optional(None),
            Value::Optional(Some(value)) => Value::some(value.to_static()?),
            Value::List(list) => {
                let items: Option<Vec<Value<'static>>> = list.iter().map(|item| item.ok()?.to_static()).collect();
                Value::List(List::Shared(Arc::new(items?)))
            }
            Value::Map(map) => Value::Map(map_to_static(map)?),
            Value::Struct(of) => {
                Value::Struct(Arc::new(Struct { name: of.name.clone(), fields: map_to_static(&of.fields)? }))
            }
            Value::Library(value) => Value::Library(match value {
                Library::Url(url) => Library::Url(url.clone()),
                Library::Ip(address) => Library::Ip(*address),
                Library::Cidr(cidr) => Library::Cidr(*cidr),
                Library::Quantity(quantity) => Library::Quantity(*quantity),
                Library::Semver(version) => Library::Semver(version.clone()),
                Library::Format(format) => Library::Format(*format),
                Library::Decision(decided) => Library::Decision(decided.clone()),
                Library::Authorizer(_) => return None,
            }),
            Value::Lazy(_) => return None,
        })
    }
}

fn text_to_static(text: &Text<'_>) -> Text<'static> {
    match text {
        Text::Borrowed(text) => Text::Shared((*text).into()),
        Text::Shared(text) => Text::Shared(text.clone()),
    }
}

fn map_to_static(map: &Map<'_>) -> Option<Map<'static>> {
    let entry = |key: Key<'_>| {
        let value = map.get(&key)?.ok()?.to_static()?;
        let key = match key {
            Key::Bool(value) => Key::Bool(value),
            Key::Int(value) => Key::Int(value),
            Key::Uint(value) => Key::Uint(value),
            Key::String(text) => Key::String(text_to_static(&text)),
        };
        Some((key, value))
    };
    let entries: Option<_> = map.keys().into_iter().map(entry).collect();
    Some(Map::Shared(Arc::new(entries?)))
}
