//! Lists looked at as sets.

use super::{Function, function, list};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{List, Value, compare};

const BOTH: &str = "(list(A), list(A)) -> bool";

pub const FUNCTIONS: &[Function] = &[
    function("sets.contains", BOTH, Cost::Sets(1), |args| Ok(Value::Bool(contains(list(args, 0)?, list(args, 1)?)?))),
    function("sets.equivalent", BOTH, Cost::Sets(2), |args| {
        let (a, b) = (list(args, 0)?, list(args, 1)?);
        Ok(Value::Bool(contains(a, b)? && contains(b, a)?))
    }),
    function("sets.intersects", BOTH, Cost::Sets(1), |args| {
        let other = list(args, 1)?.to_vec()?;
        for item in list(args, 0)?.iter() {
            if among(&item?, &other)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
];

fn contains(all: &List<'_>, some: &List<'_>) -> Result<bool, EvalError> {
    let all = all.to_vec()?;
    for item in some.iter() {
        if !among(&item?, &all)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn among(item: &Value<'_>, items: &[Value<'_>]) -> Result<bool, EvalError> {
    for found in items {
        if compare::equal(item, found)? {
            return Ok(true);
        }
    }
    Ok(false)
}
