//! How ownership sees a type: what is a leaf, what has parts with owners of their own.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;

use super::element::{PathElement, key_json, value_json};
use crate::types::{FieldRef, ListType, Shape, StructType, TypeRef};

pub(super) static NULL: Value = Value::Null;
static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(serde_json::Map::new()));

/// A type, or what the value itself shows where there is none (below free-form objects).
#[derive(Clone, Copy)]
pub(super) enum Ty<'t> {
    Known(TypeRef<'t>),
    Deduced,
}

/// What a value of a type is to its owners.
#[derive(Clone, Copy)]
pub(super) enum Kind<'t> {
    /// Scalars, atomic lists, atomic maps and structs.
    Leaf,
    /// A list whose elements are known by key or value.
    List(ListType<'t>),
    Struct(StructType<'t>),
    /// A map with elements of the type.
    Map(Ty<'t>),
}

impl<'t> Ty<'t> {
    /// `example` is a value of the type, for where the value decides.
    pub fn kind(self, example: Option<&Value>) -> Kind<'t> {
        match self {
            Ty::Deduced => match example {
                Some(Value::Object(_)) => Kind::Map(Ty::Deduced),
                _ => Kind::Leaf,
            },
            Ty::Known(ty) => match ty.shape() {
                Shape::Scalar(_) | Shape::Any => Kind::Leaf,
                Shape::List(l) if l.is_associative() => Kind::List(l),
                Shape::List(_) => Kind::Leaf,
                Shape::Map(m) if m.is_atomic() => Kind::Leaf,
                Shape::Map(m) => Kind::Map(Ty::Known(m.element)),
                Shape::Struct(s) if s.is_atomic() => Kind::Leaf,
                Shape::Struct(s) => Kind::Struct(s),
                // Go keeps it as bytes; only schemas that come at run time look into it.
                Shape::Object if ty.types().zero_when_absent() => Kind::Leaf,
                Shape::Object => Ty::Deduced.kind(example),
            },
        }
    }
}

/// The type of a struct's field: the declared one, or what the value shows where undeclared fields are kept.
pub(super) fn member<'t>(s: StructType<'t>, name: &str) -> Option<Ty<'t>> {
    match s.field(name) {
        Some(field) => Some(Ty::Known(field.ty())),
        None => s.is_open().then_some(Ty::Deduced),
    }
}

/// A struct's field as Go's decoder leaves it: a struct that is no pointer is always there, as is a field
/// that is not omitted when empty; empty lists and maps of others are not.
pub(super) fn as_decoded<'v>(field: FieldRef<'v>, value: Option<&'v Value>) -> Option<&'v Value> {
    let ty = field.ty();
    if !ty.types().zero_when_absent() {
        return value;
    }
    match value {
        None | Some(Value::Null) => match field.default() {
            Some(Value::Object(_)) => Some(LazyLock::force(&EMPTY)),
            default if field.kept_when_zero() => Some(default.unwrap_or(&NULL)),
            _ => None,
        },
        Some(Value::Array(items)) if items.is_empty() && !field.kept_when_zero() => None,
        Some(Value::Object(map))
            if map.is_empty() && !field.kept_when_zero() && matches!(ty.shape(), Shape::Map(_)) =>
        {
            None
        }
        value => value,
    }
}

/// Whether a field is there even when it is not written.
pub(super) fn is_always_there(field: FieldRef<'_>) -> bool {
    field.ty().types().zero_when_absent() && field.kept_when_zero()
}

/// What identifies an element of a list, or why nothing does.
pub(super) fn list_element<'v>(list: ListType<'_>, item: &'v Value) -> Result<PathElement<'v>, String> {
    if list.keys().len() == 0 {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(PathElement::Value(Cow::Owned(value_json(scalar)))),
        };
    }
    let map = match item {
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        Value::Object(map) => map,
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let element = list.element.as_struct();
    let mut fields: Vec<(&str, &Value)> = Vec::with_capacity(list.keys().len());
    for key in list.keys() {
        let value = map.get(key).or_else(|| element?.field(key)?.default());
        fields.extend(value.map(|value| (key, value)));
    }
    if fields.is_empty() {
        let keys: Vec<&str> = list.keys().collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields {keys:?} \
             (and doesn't have default values for any key fields)"
        ));
    }
    fields.sort_by_key(|(name, _)| *name);
    Ok(PathElement::Key(Cow::Owned(key_json(&fields))))
}

/// Equality of leaves, in which `1` is `1.0`.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.as_f64() == b.as_f64() && (a.is_f64() || b.is_f64())),
        _ => a == b,
    }
}
