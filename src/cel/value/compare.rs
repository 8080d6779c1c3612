//! Equality and order across types.

use std::cmp::Ordering;

use super::{Library, List, Map, Value};
use crate::error::EvalError;
use crate::types::ListKind;

/// Lists as sets and keyed lists compare pairwise; beyond so many items that is refused.
const PAIRS_MAX: usize = 1 << 22;

/// `a == b`: values of different kinds are unequal, numbers compare by value whatever their type.
pub fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::List(a), Value::List(b)) => lists_equal(a, b)?,
        (Value::Map(a), Value::Map(b)) => maps_equal(a, b)?,
        (Value::Struct(a), Value::Struct(b)) => a.name == b.name && maps_equal(&a.fields, &b.fields)?,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b)?,
            (None, None) => true,
            _ => false,
        },
        (Value::Library(a), Value::Library(b)) => match (a, b) {
            (Library::Url(a), Library::Url(b)) => a.text() == b.text(),
            (Library::Ip(a), Library::Ip(b)) => a == b,
            (Library::Cidr(a), Library::Cidr(b)) => a == b,
            (Library::Quantity(a), Library::Quantity(b)) => a == b,
            (Library::Semver(a), Library::Semver(b)) => a.cmp(b) == Ordering::Equal,
            (Library::Format(a), Library::Format(b)) => a.name() == b.name(),
            _ => false,
        },
        _ => numbers(a, b) == Some(Some(Ordering::Equal)),
    })
}

fn lists_equal(a: &List<'_>, b: &List<'_>) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let List::Json { kind: kind @ (ListKind::Set | ListKind::Map(_)), .. } = a {
        return all_in(a, b, kind);
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equal(&a?, &b?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Order does not matter: each item has an equal one on the other side.
fn all_in(a: &List<'_>, b: &List<'_>, kind: &ListKind) -> Result<bool, EvalError> {
    if a.len().saturating_mul(b.len()) > PAIRS_MAX {
        return Err(EvalError::failed("list is too long to compare regardless of order".to_owned()));
    }
    let others = b.to_vec()?;
    'items: for item in a.iter() {
        let item = item?;
        for other in &others {
            if matches!(kind, ListKind::Map(keys) if !same_keys(&item, other, keys)?) {
                continue;
            }
            if equal(&item, other)? {
                continue 'items;
            }
        }
        return Ok(false);
    }
    Ok(true)
}

/// Two items of a keyed list are about the same thing.
pub fn same_keys(a: &Value<'_>, b: &Value<'_>, keys: &[String]) -> Result<bool, EvalError> {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return Ok(false) };
    for key in keys {
        let same = match (a.field(key), b.field(key)) {
            (Some(a), Some(b)) => equal(&a?, &b?)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps_equal(a: &Map<'_>, b: &Map<'_>) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for key in a.keys() {
        let (Some(a), Some(b)) = (a.get(&key), b.get(&key)) else { return Ok(false) };
        if !equal(&a?, &b?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `None`: not both are numbers. `Some(None)`: one is not a number (NaN).
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => match b {
            Value::Double(b) => whole_and_double(a, *b),
            _ => return None,
        },
        (None, Some(b)) => match a {
            Value::Double(a) => whole_and_double(b, *a).map(Ordering::reverse),
            _ => return None,
        },
        (None, None) => match (a, b) {
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            _ => return None,
        },
    })
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}

fn whole_and_double(whole: i128, double: f64) -> Option<Ordering> {
    // Whole numbers here have 64 bits; what is beyond them compares as it does after rounding.
    let floor = double.floor();
    if double.is_nan() {
        None
    } else if floor < -1.0e19 {
        Some(Ordering::Greater)
    } else if floor > 2.0e19 {
        Some(Ordering::Less)
    } else {
        let order = whole.cmp(&(floor as i128));
        Some(if order == Ordering::Equal && double > floor { Ordering::Less } else { order })
    }
}

/// `a < b` and its kin.
pub fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    if let Some(order) = numbers(a, b) {
        return order.ok_or_else(|| EvalError::failed("NaN values cannot be ordered".to_owned()));
    }
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => return Err(EvalError::no_overload()),
    })
}
