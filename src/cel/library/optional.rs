//! Values that may be absent.

use super::{Function, bad, failed, function, list};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::Value;

pub const FUNCTIONS: &[Function] = &[
    function("optional.of", "(A) -> optional_type(A)", Cost::One, |args| Ok(Value::some(first(args)?))),
    function("optional.ofNonZeroValue", "(A) -> optional_type(A)", Cost::One, |args| {
        let value = first(args)?;
        Ok(if value.is_zero() { Value::Optional(None) } else { Value::some(value) })
    }),
    function("optional.none", "() -> optional_type(A)", Cost::One, |_| Ok(Value::Optional(None))),
    function("value", "optional_type(A).() -> A", Cost::One, |args| match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => failed("optional.none() dereference"),
        _ => bad(),
    }),
    function("hasValue", "optional_type(A).() -> bool", Cost::One, |args| match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => bad(),
    }),
    function("or", "optional_type(A).(optional_type(A)) -> optional_type(A)", Cost::One, |args| match args {
        [Value::Optional(Some(_)), _] => first(args),
        [Value::Optional(None), other @ Value::Optional(_)] => Ok(other.clone()),
        _ => bad(),
    }),
    function("orValue", "optional_type(A).(A) -> A", Cost::One, |args| match args {
        [Value::Optional(Some(value)), _] => Ok((**value).clone()),
        [Value::Optional(None), other] => Ok(other.clone()),
        _ => bad(),
    }),
    function("first", "list(A).() -> optional_type(A)", Cost::One, |args| {
        let found = list(args, 0)?.get(0).transpose()?;
        Ok(found.map_or(Value::Optional(None), Value::some))
    }),
    function("last", "list(A).() -> optional_type(A)", Cost::One, |args| {
        let items = list(args, 0)?;
        let found = items.len().checked_sub(1).and_then(|index| items.get(index)).transpose()?;
        Ok(found.map_or(Value::Optional(None), Value::some))
    }),
    function("optional.unwrap", "(list(optional_type(A))) -> list(A)", Cost::One, unwrap),
    function("unwrapOpt", "list(optional_type(A)).() -> list(A)", Cost::One, unwrap),
];

fn first<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    args.first().cloned().ok_or_else(EvalError::no_overload)
}

fn unwrap<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let mut present = Vec::new();
    for item in list(args, 0)?.iter() {
        match item? {
            Value::Optional(Some(value)) => present.push((*value).clone()),
            Value::Optional(None) => {}
            other => return failed(format!("value {other:?} is not optional")),
        }
    }
    Ok(Value::list(present))
}
