//! Arithmetic, comparison, containment, size.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, bad, failed, function, list, map, room_for_items, room_for_text, time};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::syntax::ast::operators as op;
use crate::types::ListKind;
use crate::value::{Key, List, Map, Value, compare};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

const COMPARED: &str = "(bool, bool) -> bool; (int, int) -> bool; (int, double) -> bool; (int, uint) -> bool; \
                        (uint, uint) -> bool; (uint, double) -> bool; (uint, int) -> bool; (double, double) -> bool; \
                        (double, int) -> bool; (double, uint) -> bool; (string, string) -> bool; \
                        (bytes, bytes) -> bool; (timestamp, timestamp) -> bool; (duration, duration) -> bool";

pub const FUNCTIONS: &[Function] = &[
    function(op::CONDITIONAL, "(bool, A, A) -> A", Cost::Conditional, special),
    function(op::AND, "(bool, bool) -> bool", Cost::Logical, special),
    function(op::OR, "(bool, bool) -> bool", Cost::Logical, special),
    function(op::NOT, "(bool) -> bool", Cost::One, not),
    function(op::NOT_STRICTLY_FALSE, "(bool) -> bool", Cost::One, special),
    function(op::EQUALS, "(A, A) -> bool", Cost::Equal, |args| Ok(Value::Bool(compare::equal(&args[0], &args[1])?))),
    function(op::NOT_EQUALS, "(A, A) -> bool", Cost::Compare, |args| {
        Ok(Value::Bool(!compare::equal(&args[0], &args[1])?))
    }),
    function(op::LESS, COMPARED, Cost::Compare, |args| Ok(Value::Bool(order(args)? == Ordering::Less))),
    function(op::LESS_EQUALS, COMPARED, Cost::Compare, |args| Ok(Value::Bool(order(args)? != Ordering::Greater))),
    function(op::GREATER, COMPARED, Cost::Compare, |args| Ok(Value::Bool(order(args)? == Ordering::Greater))),
    function(op::GREATER_EQUALS, COMPARED, Cost::Compare, |args| Ok(Value::Bool(order(args)? != Ordering::Less))),
    function(
        op::ADD,
        "(bytes, bytes) -> bytes; (double, double) -> double; (duration, duration) -> duration; \
         (duration, timestamp) -> timestamp; (timestamp, duration) -> timestamp; (int, int) -> int; \
         (list(A), list(A)) -> list(A); (string, string) -> string; (uint, uint) -> uint",
        Cost::Add,
        add,
    ),
    function(
        op::SUBTRACT,
        "(double, double) -> double; (duration, duration) -> duration; (int, int) -> int; \
         (timestamp, duration) -> timestamp; (timestamp, timestamp) -> duration; (uint, uint) -> uint",
        Cost::One,
        subtract,
    ),
    function(op::MULTIPLY, "(double, double) -> double; (int, int) -> int; (uint, uint) -> uint", Cost::One, multiply),
    function(op::DIVIDE, "(double, double) -> double; (int, int) -> int; (uint, uint) -> uint", Cost::One, divide),
    function(op::MODULO, "(int, int) -> int; (uint, uint) -> uint", Cost::One, modulo),
    function(op::NEGATE, "(double) -> double; (int) -> int", Cost::One, negate),
    function(op::IN, "(A, list(A)) -> bool; (A, map(A, B)) -> bool", Cost::In, contained),
    function(
        op::INDEX,
        "(list(A), int) -> A; (map(A, B), A) -> B; (optional_type(list(A)), int) -> optional_type(A); \
         (optional_type(map(A, B)), A) -> optional_type(B)",
        Cost::One,
        special,
    ),
    function(
        op::OPT_INDEX,
        "(list(A), int) -> optional_type(A); (optional_type(list(A)), int) -> optional_type(A); \
         (map(A, B), A) -> optional_type(B); (optional_type(map(A, B)), A) -> optional_type(B)",
        Cost::One,
        special,
    ),
    function(
        "size",
        "(bytes) -> int; bytes.() -> int; (list(A)) -> int; list(A).() -> int; (map(A, B)) -> int; \
         map(A, B).() -> int; (string) -> int; string.() -> int",
        Cost::One,
        size,
    ),
    function(op::MAP_INSERT, "(map(A, B), A, B) -> map(A, B); (map(A, B), map(A, B)) -> map(A, B)", Cost::One, insert),
];

/// Not called: the evaluator does it itself.
fn special<'a>(_: &[Value<'a>]) -> Evaluated<'a> {
    bad()
}

fn order(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    let [a, b] = args else { return bad() };
    compare::order(a, b)
}

fn not<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => bad(),
    }
}

const INT: &str = "integer overflow";
const UINT: &str = "unsigned integer overflow";

fn checked<'a, T>(result: Option<T>, make: fn(T) -> Value<'a>, overflow: &str) -> Evaluated<'a> {
    result.map(make).ok_or_else(|| EvalError::failed(overflow))
}

pub fn add<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => return checked(a.checked_add(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => return checked(a.checked_add(*b), Value::Uint, UINT),
        [Value::Double(a), Value::Double(b)] => Value::Double(a + b),
        [Value::String(a), Value::String(b)] => {
            room_for_text(a.len() + b.len())?;
            Value::string(format!("{}{}", &**a, &**b))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            room_for_text(a.len() + b.len())?;
            Value::Bytes(a.iter().chain(b.iter()).copied().collect())
        }
        [Value::Duration(a), Value::Duration(b)] => {
            return checked(a.checked_add(*b), Value::Duration, time::DURATION_OVERFLOW);
        }
        [Value::Timestamp(at), Value::Duration(nanos)] | [Value::Duration(nanos), Value::Timestamp(at)] => {
            Value::Timestamp(time::shift(at, i128::from(*nanos))?)
        }
        [Value::List(a), Value::List(b)] => Value::List(concatenate(a, b)?),
        [Value::Map(a), Value::Map(b)] => Value::Map(merge(a, b)?),
        _ => return bad(),
    })
}

/// `+` of lists: lists that are sets or keyed in their schema unite (upstream: `unstructuredSetList.Add`).
fn concatenate<'a>(a: &List<'a>, b: &List<'a>) -> Result<List<'a>, EvalError> {
    room_for_items(a.len() + b.len())?;
    let mut items = a.to_vec()?;
    let kind = match a {
        List::Json { kind, .. } => kind.clone(),
        List::Shared(_) => ListKind::Atomic,
    };
    for item in b.iter() {
        let item = item?;
        let mut place = None;
        if kind != ListKind::Atomic {
            for (index, found) in items.iter().enumerate() {
                let same = match &kind {
                    ListKind::Map(keys) => compare::same_keys(found, &item, keys)?,
                    _ => compare::equal(found, &item)?,
                };
                if same {
                    place = Some(index);
                    break;
                }
            }
        }
        match place.and_then(|index| items.get_mut(index)) {
            Some(found) => *found = item,
            None => items.push(item),
        }
    }
    Ok(List::Shared(Arc::new(items)))
}

fn merge<'a>(a: &Map<'a>, b: &Map<'a>) -> Result<Map<'a>, EvalError> {
    let mut entries = std::collections::BTreeMap::new();
    for one in [a, b] {
        for key in one.keys() {
            if let Some(value) = one.get(&key) {
                entries.insert(key, value?);
            }
        }
    }
    Ok(Map::Shared(Arc::new(entries)))
}

fn subtract<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => return checked(a.checked_sub(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => return checked(a.checked_sub(*b), Value::Uint, UINT),
        [Value::Double(a), Value::Double(b)] => Value::Double(a - b),
        [Value::Duration(a), Value::Duration(b)] => {
            return checked(a.checked_sub(*b), Value::Duration, time::DURATION_OVERFLOW);
        }
        [Value::Timestamp(at), Value::Duration(nanos)] => Value::Timestamp(time::shift(at, -i128::from(*nanos))?),
        [Value::Timestamp(a), Value::Timestamp(b)] => Value::Duration(time::between(a, b)?),
        _ => return bad(),
    })
}

fn multiply<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => checked(a.checked_mul(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => checked(a.checked_mul(*b), Value::Uint, UINT),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => bad(),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => failed("division by zero"),
        [Value::Int(a), Value::Int(b)] => checked(a.checked_div(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => bad(),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => failed("modulus by zero"),
        [Value::Int(a), Value::Int(b)] => checked(a.checked_rem(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => bad(),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(a)] => checked(a.checked_neg(), Value::Int, INT),
        [Value::Double(a)] => Ok(Value::Double(-a)),
        _ => bad(),
    }
}

fn contained<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [value, Value::List(_) | Value::Map(_)] = args else { return bad() };
    if let Ok(list) = list(args, 1) {
        for item in list.iter() {
            if compare::equal(value, &item?)? {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    let map = map(args, 1)?;
    Ok(Value::Bool(match (value, Key::of(value)) {
        (Value::String(name), _) if matches!(map, Map::Json(..)) => map.has(name),
        (_, Some(key)) => map.get(&key).is_some(),
        _ => false,
    }))
}

fn size<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let size = args.first().and_then(Value::size).ok_or_else(EvalError::no_overload)?;
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

/// One entry, or all of a map, into a map that has none of the keys yet.
fn insert<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let into = map(args, 0)?;
    let mut entries = std::collections::BTreeMap::new();
    for key in into.keys() {
        if let Some(value) = into.get(&key) {
            entries.insert(key, value?);
        }
    }
    let added = match args {
        [_, key, value] => vec![(Key::of(key).ok_or_else(EvalError::no_overload)?, value.clone())],
        [_, Value::Map(more)] => {
            let mut added = Vec::new();
            for key in more.keys() {
                if let Some(value) = more.get(&key) {
                    added.push((key, value?));
                }
            }
            added
        }
        _ => return bad(),
    };
    for (key, value) in added {
        let shown = crate::value::show::key(&key);
        if entries.insert(key, value).is_some() {
            return failed(format!("insert failed: key {shown} already exists"));
        }
    }
    Ok(Value::Map(Map::Shared(Arc::new(entries))))
}
