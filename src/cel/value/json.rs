//! From JSON and back.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{Key, List, Map, Text, Value, show};
use crate::error::EvalError;
use crate::library::{base64, time};
use crate::types::{Decl, ListKind, Type};

impl<'a> Value<'a> {
    /// The value that the declaration makes of this JSON; lists and objects are converted as they are looked at.
    pub fn of_json(json: &'a Json, decl: &Decl) -> Result<Value<'a>, EvalError> {
        Ok(match (json, decl) {
            (Json::Null, _) => Value::Null,
            (Json::Bool(value), _) => Value::Bool(*value),
            (Json::Number(number), Decl::Plain(Type::Double)) => Value::Double(number.as_f64().unwrap_or_default()),
            (Json::Number(number), _) => match number.as_i64() {
                Some(value) => Value::Int(value),
                None => Value::Double(number.as_f64().unwrap_or_default()),
            },
            (Json::String(text), Decl::Timestamp { .. } | Decl::Plain(Type::Timestamp)) => {
                Value::Timestamp(time::timestamp_or_date(text)?)
            }
            (Json::String(text), Decl::Duration { .. } | Decl::Plain(Type::Duration)) => Value::Duration(
                time::duration(text).map_err(|why| EvalError::failed(format!("Invalid duration: {why}")))?,
            ),
            (Json::String(text), Decl::Bytes { .. } | Decl::Plain(Type::Bytes)) => Value::Bytes(
                base64::decode(text).ok_or_else(|| EvalError::failed("illegal base64 data".to_owned()))?.into(),
            ),
            (Json::String(text), _) => Value::String(Text::Borrowed(text)),
            (Json::Array(items), Decl::List { items: decl, kind, .. }) => {
                Value::List(List::Json { items, decl: decl.clone(), kind: kind.clone() })
            }
            (Json::Array(items), _) => Value::List(List::Json { items, decl: dynamic(), kind: ListKind::Atomic }),
            (Json::Object(object), Decl::Map { values, .. }) => Value::Map(Map::Json(object, values.clone())),
            (Json::Object(object), Decl::Object(declared)) => Value::Map(Map::Object(object, declared.clone())),
            (Json::Object(object), Decl::Plain(Type::Object(declared))) => {
                Value::Map(Map::Object(object, declared.clone()))
            }
            (Json::Object(object), _) => Value::Map(Map::Json(object, dynamic())),
        })
    }

    /// JSON of which nothing is known.
    pub fn of_plain_json(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Value::Double(number.as_f64().unwrap_or_default()), Value::Int)
            }
            Json::String(text) => Value::String(Text::Borrowed(text)),
            Json::Array(items) => Value::List(List::Json { items, decl: dynamic(), kind: ListKind::Atomic }),
            Json::Object(object) => Value::Map(Map::Json(object, dynamic())),
        }
    }

    /// As JSON; an error names the type that has no form there. Absent optionals are left out of lists and objects.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        self.to_json_or_absent().map(|json| json.unwrap_or(Json::Null))
    }

    fn to_json_or_absent(&self) -> Result<Option<Json>, EvalError> {
        Ok(Some(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Uint(value) => Json::from(*value),
            Value::Double(value) => Json::from(*value),
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(base64::encode(bytes)),
            Value::Timestamp(_) | Value::Duration(_) => Json::String(show::plain(self)),
            Value::List(List::Json { items, .. }) => Json::Array(items.to_vec()),
            Value::List(list) => {
                let mut items = Vec::with_capacity(list.len());
                for item in list.iter() {
                    items.extend(item?.to_json_or_absent()?);
                }
                Json::Array(items)
            }
            Value::Map(Map::Json(object, _) | Map::Object(object, _)) => Json::Object((*object).clone()),
            Value::Map(map) => map_to_json(map)?,
            Value::Struct(of) => map_to_json(&of.fields)?,
            Value::Optional(Some(value)) => return value.to_json_or_absent(),
            Value::Optional(None) => return Ok(None),
            Value::Library(_) | Value::Type(_) | Value::Lazy(_) => {
                return Err(EvalError::failed(format!("type conversion error from '{}' to JSON", self.type_name())));
            }
        }))
    }
}

fn map_to_json(map: &Map<'_>) -> Result<Json, EvalError> {
    let mut object = serde_json::Map::new();
    for key in map.keys() {
        let Some(value) = map.get(&key) else { continue };
        if let Some(json) = value?.to_json_or_absent()? {
            object.insert(show::key(&key), json);
        }
    }
    Ok(Json::Object(object))
}

fn dynamic() -> Arc<Decl> {
    static DYNAMIC: std::sync::OnceLock<Arc<Decl>> = std::sync::OnceLock::new();
    DYNAMIC.get_or_init(|| Arc::new(Decl::dynamic())).clone()
}

impl From<Key<'_>> for String {
    fn from(key: Key<'_>) -> String {
        show::key(&key)
    }
}
