//! The functions: signatures, what they do, what they cost.
//!
//! The set is that of Kubernetes 1.36's base environment: the standard library, strings (version 2), lists (version 3)
//! and Kubernetes' own lists, sets, two-variable loops, optionals, regex, URLs, addresses, quantities, semantic
//! versions, named formats and the authorizer.

pub mod authz;
pub mod base64;
mod convert;
pub mod format;
mod format_string;
pub mod ip;
mod lists;
mod operators;
mod optional;
pub mod quantity;
pub mod re;
pub mod semver;
mod sets;
mod strings;
pub mod time;
pub mod url;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::check::signature::{self, Overload};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Library, List, Map, Value};

/// The arguments, the target first.
pub type Run = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// A text made by an expression is at most this long.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// A list made by an expression has at most so many items.
pub const ITEMS_MAX: usize = 1 << 20;

pub struct Function {
    pub name: &'static str,
    /// Such as `string.(int) -> string; (A, list(A)) -> bool`: before the dot the target of a member function.
    pub overloads: &'static str,
    pub cost: Cost,
    pub run: Run,
}

const fn function(name: &'static str, overloads: &'static str, cost: Cost, run: Run) -> Function {
    Function { name, overloads, cost, run }
}

const TABLES: [&[Function]; 16] = [
    operators::FUNCTIONS,
    convert::FUNCTIONS,
    time::FUNCTIONS,
    strings::FUNCTIONS,
    format_string::FUNCTIONS,
    lists::FUNCTIONS,
    sets::FUNCTIONS,
    optional::FUNCTIONS,
    re::FUNCTIONS,
    url::FUNCTIONS,
    ip::FUNCTIONS,
    quantity::FUNCTIONS,
    semver::FUNCTIONS,
    format::FUNCTIONS,
    authz::FUNCTIONS,
    format::NAMED,
];

/// All functions of one name. Where several libraries have it, each overload brings its own.
pub struct Declared {
    pub overloads: Vec<(Overload, &'static Function)>,
}

/// `None`: there is no function of that name.
pub fn find(name: &str) -> Option<&'static Declared> {
    static ALL: OnceLock<HashMap<&'static str, Declared>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all: HashMap<&'static str, Declared> = HashMap::new();
        for function in TABLES.into_iter().flatten() {
            let declared = all.entry(function.name).or_insert_with(|| Declared { overloads: Vec::new() });
            declared.overloads.extend(signature::parse(function.overloads).into_iter().map(|one| (one, function)));
        }
        all
    });
    all.get(name)
}

fn bad<T>() -> Result<T, EvalError> {
    Err(EvalError::no_overload())
}

fn failed<T>(text: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::failed(text))
}

fn text<'v>(args: &'v [Value<'_>], index: usize) -> Result<&'v str, EvalError> {
    args.get(index).and_then(Value::as_str).ok_or_else(EvalError::no_overload)
}

fn int(args: &[Value<'_>], index: usize) -> Result<i64, EvalError> {
    match args.get(index) {
        Some(Value::Int(value)) => Ok(*value),
        _ => bad(),
    }
}

fn boolean(args: &[Value<'_>], index: usize) -> Result<bool, EvalError> {
    args.get(index).and_then(Value::as_bool).ok_or_else(EvalError::no_overload)
}

fn list<'v, 'a>(args: &'v [Value<'a>], index: usize) -> Result<&'v List<'a>, EvalError> {
    match args.get(index) {
        Some(Value::List(list)) => Ok(list),
        _ => bad(),
    }
}

fn map<'v, 'a>(args: &'v [Value<'a>], index: usize) -> Result<&'v Map<'a>, EvalError> {
    match args.get(index) {
        Some(Value::Map(map)) => Ok(map),
        _ => bad(),
    }
}

fn library<'v, 'a>(args: &'v [Value<'a>], index: usize) -> Result<&'v Library<'a>, EvalError> {
    match args.get(index) {
        Some(Value::Library(value)) => Ok(value),
        _ => bad(),
    }
}

/// Refuses texts beyond the limit before they are made.
fn room_for_text(bytes: usize) -> Result<(), EvalError> {
    if bytes > TEXT_BYTES_MAX { failed("resulting string is too long") } else { Ok(()) }
}

fn room_for_items(items: usize) -> Result<(), EvalError> {
    if items > ITEMS_MAX { failed("resulting list is too long") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_signatures_can_be_read() {
        for function in TABLES.into_iter().flatten() {
            let found = signature::parse(function.overloads).len();
            assert_eq!(found, function.overloads.split(';').count(), "{}: {}", function.name, function.overloads);
        }
    }
}
