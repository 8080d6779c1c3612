//! Maps and objects.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Text, Value};
use crate::error::EvalError;
use crate::names;
use crate::types::{Decl, ObjectType, declared_field};

/// What a map can be asked for. Whole numbers are the same key whatever their type.
#[derive(Clone)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

#[derive(Clone)]
pub enum Map<'a> {
    /// Entries of one declared type (`Decl::Plain(Dyn)` where nothing is known).
    Json(&'a serde_json::Map<String, serde_json::Value>, Arc<Decl>),
    /// Declared fields; whatever else the object has is not there.
    Object(&'a serde_json::Map<String, serde_json::Value>, Arc<dyn ObjectType>),
    Shared(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

impl<'a> Map<'a> {
    pub fn type_name(&self) -> &str {
        match self {
            Map::Object(_, object) => object.name(),
            _ => "map",
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Map::Json(object, _) | Map::Object(object, _) => object.len(),
            Map::Shared(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &Key<'_>) -> Option<Result<Value<'a>, EvalError>> {
        match (self, key) {
            (Map::Json(object, decl), Key::String(name)) => {
                object.get(&**name).map(|value| Value::of_json(value, decl))
            }
            (Map::Object(..), Key::String(name)) => self.field(name),
            // A shorter life of the key is enough to look it up.
            (Map::Shared(entries), key) => look_up(entries, key).cloned().map(Ok),
            _ => None,
        }
    }

    /// A field by its name in expressions.
    pub fn field(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Map::Json(object, decl) => object.get(name).map(|value| Value::of_json(value, decl)),
            Map::Object(object, declared) => {
                let decl = declared_field(&**declared, name)?;
                let value = if declared.plain_names() || !name.contains("__") {
                    object.get(name)?
                } else {
                    object.get(&names::unescape(name)?)?
                };
                Some(Value::of_json(value, &decl))
            }
            Map::Shared(entries) => look_up(entries, &Key::String(Text::Borrowed(name))).cloned().map(Ok),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        match self {
            Map::Json(object, _) => object.contains_key(name),
            _ => self.field(name).is_some(),
        }
    }

    pub fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Map::Json(object, _) => object.keys().map(|key| Key::String(Text::Borrowed(key))).collect(),
            Map::Object(object, declared) => object
                .keys()
                .filter_map(|key| {
                    if declared.plain_names() {
                        return Some(Key::String(Text::Borrowed(key)));
                    }
                    Some(Key::String(Text::Shared(names::escape(key)?.into())))
                })
                .filter(|key| self.get(key).is_some())
                .collect(),
            Map::Shared(entries) => entries.keys().cloned().collect(),
        }
    }
}

fn look_up<'m, 'a>(entries: &'m BTreeMap<Key<'a>, Value<'a>>, key: &Key<'_>) -> Option<&'m Value<'a>> {
    // `BTreeMap::get` wants a key of the same lifetime; both are looked at through what has none.
    entries.get::<dyn Lookup + '_>(key as &dyn Lookup)
}

/// A key seen without its lifetime.
trait Lookup {
    fn seen(&self) -> Seen<'_>;
}

#[derive(PartialEq, Eq)]
enum Seen<'k> {
    Bool(bool),
    Number(i128),
    String(&'k str),
}

impl Lookup for Key<'_> {
    fn seen(&self) -> Seen<'_> {
        match self {
            Key::Bool(value) => Seen::Bool(*value),
            Key::Int(value) => Seen::Number(i128::from(*value)),
            Key::Uint(value) => Seen::Number(i128::from(*value)),
            Key::String(text) => Seen::String(text),
        }
    }
}

impl<'k, 'a: 'k> std::borrow::Borrow<dyn Lookup + 'k> for Key<'a> {
    fn borrow(&self) -> &(dyn Lookup + 'k) {
        self
    }
}

impl PartialOrd for Seen<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seen<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Seen::Bool(a), Seen::Bool(b)) => a.cmp(b),
            (Seen::Number(a), Seen::Number(b)) => a.cmp(b),
            (Seen::String(a), Seen::String(b)) => a.cmp(b),
            (Seen::Bool(_), _) | (Seen::Number(_), Seen::String(_)) => Ordering::Less,
            _ => Ordering::Greater,
        }
    }
}

impl PartialEq for dyn Lookup + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.seen() == other.seen()
    }
}

impl Eq for dyn Lookup + '_ {}

impl PartialOrd for dyn Lookup + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Lookup + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.seen().cmp(&other.seen())
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.seen() == other.seen()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.seen().cmp(&other.seen())
    }
}

impl<'a> Key<'a> {
    /// `None`: a value of this type is no key.
    pub fn of(value: &Value<'a>) -> Option<Key<'a>> {
        Some(match value {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) => Key::Int(*value),
            Value::Uint(value) => Key::Uint(*value),
            Value::String(text) => Key::String(text.clone()),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => Key::Int(*value as i64),
            _ => return None,
        })
    }

    pub fn value(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(text) => Value::String(text.clone()),
        }
    }
}
