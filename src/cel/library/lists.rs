//! Lists: Kubernetes' own functions and the extension's (version 3).

use std::cmp::Ordering;

use super::{Function, bad, failed, function, int, list, operators, room_for_items};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::syntax::ast::operators as op;
use crate::value::{Value, compare};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

const ORDERED: &str = "list(int).() -> bool; list(uint).() -> bool; list(double).() -> bool; list(bool).() -> bool; \
                       list(duration).() -> bool; list(timestamp).() -> bool; list(string).() -> bool; \
                       list(bytes).() -> bool";
const EXTREME: &str = "list(int).() -> int; list(uint).() -> uint; list(double).() -> double; list(bool).() -> bool; \
                       list(duration).() -> duration; list(timestamp).() -> timestamp; list(string).() -> string; \
                       list(bytes).() -> bytes";
const SORTED: &str = "list(int).() -> list(int); list(uint).() -> list(uint); list(double).() -> list(double); \
                      list(bool).() -> list(bool); list(duration).() -> list(duration); \
                      list(timestamp).() -> list(timestamp); list(string).() -> list(string); \
                      list(bytes).() -> list(bytes)";
const SORTED_BY: &str = "list(A).(list(int)) -> list(A); list(A).(list(uint)) -> list(A); \
                         list(A).(list(double)) -> list(A); list(A).(list(bool)) -> list(A); \
                         list(A).(list(duration)) -> list(A); list(A).(list(timestamp)) -> list(A); \
                         list(A).(list(string)) -> list(A); list(A).(list(bytes)) -> list(A)";

pub const FUNCTIONS: &[Function] = &[
    function("isSorted", ORDERED, Cost::Traverse, is_sorted),
    function(
        "sum",
        "list(int).() -> int; list(uint).() -> uint; list(double).() -> double; list(duration).() -> duration",
        Cost::Traverse,
        sum,
    ),
    function("max", EXTREME, Cost::Traverse, |args| extreme(args, "max", Ordering::Greater)),
    function("min", EXTREME, Cost::Traverse, |args| extreme(args, "min", Ordering::Less)),
    function("indexOf", "list(A).(A) -> int", Cost::Traverse, |args| position(args, false)),
    function("lastIndexOf", "list(A).(A) -> int", Cost::Traverse, |args| position(args, true)),
    function("slice", "list(A).(int, int) -> list(A)", Cost::Slice, slice),
    function("flatten", "list(list(A)).() -> list(A); list(dyn).(int) -> list(dyn)", Cost::Flatten, flatten),
    function("sort", SORTED, Cost::Sort, |args| {
        let items = list(args, 0)?.to_vec()?;
        sort(items.clone(), items)
    }),
    function(op::SORT_BY_KEYS, SORTED_BY, Cost::SortBy, |args| {
        sort(list(args, 0)?.to_vec()?, list(args, 1)?.to_vec()?)
    }),
    function("lists.range", "(int) -> list(int)", Cost::Range, range),
    function("reverse", "list(A).() -> list(A)", Cost::Reverse, |args| {
        let mut items = list(args, 0)?.to_vec()?;
        items.reverse();
        Ok(Value::list(items))
    }),
    function("distinct", "list(A).() -> list(A)", Cost::Distinct, distinct),
];

fn is_sorted<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let items = list(args, 0)?.to_vec()?;
    for pair in items.windows(2) {
        let [a, b] = pair else { continue };
        if compare::order(a, b)? == Ordering::Greater {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut total = None;
    for item in list(args, 0)?.iter() {
        total = Some(match total {
            None => item?,
            Some(total) => operators::add(&[total, item?])?,
        });
    }
    // The type of an empty list's items is not known here; zero of any type equals the others but for durations.
    Ok(total.unwrap_or(Value::Int(0)))
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Evaluated<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list(args, 0)?.iter() {
        let item = item?;
        match &best {
            Some(found) if compare::order(&item, found)? != wanted => {}
            _ => best = Some(item),
        }
    }
    best.map_or_else(|| failed(format!("{name} called on empty list")), Ok)
}

fn position<'a>(args: &[Value<'a>], last: bool) -> Evaluated<'a> {
    let [_, wanted] = args else { return bad() };
    let mut found = -1;
    for (index, item) in list(args, 0)?.iter().enumerate() {
        if compare::equal(&item?, wanted)? {
            found = i64::try_from(index).unwrap_or(i64::MAX);
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn slice<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let items = list(args, 0)?;
    let (start, end) = (int(args, 1)?, int(args, 2)?);
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return failed(format!("cannot slice({start}, {end}), negative indexes not supported"));
    };
    if from > to {
        return failed(format!("cannot slice({start}, {end}), start index must be less than or equal to end index"));
    }
    if to > items.len() {
        return failed(format!("cannot slice({start}, {end}), list is length {}", items.len()));
    }
    (from..to).filter_map(|index| items.get(index)).collect::<Result<_, _>>().map(Value::list)
}

fn flatten<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let levels = if args.len() > 1 { int(args, 1)? } else { 1 };
    if levels < 0 {
        return failed("level must be non-negative");
    }
    let mut items = list(args, 0)?.to_vec()?;
    for _ in 0..levels {
        if !items.iter().any(|item| matches!(item, Value::List(_))) {
            break;
        }
        let mut flat = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Value::List(inner) => {
                    room_for_items(flat.len() + inner.len())?;
                    flat.extend(inner.to_vec()?);
                }
                other => flat.push(other),
            }
        }
        items = flat;
    }
    Ok(Value::list(items))
}

fn sort<'a>(items: Vec<Value<'a>>, keys: Vec<Value<'a>>) -> Evaluated<'a> {
    if items.len() != keys.len() {
        return failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            items.len(),
            keys.len()
        ));
    }
    let mut failure = None;
    let mut paired: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(items).collect();
    if let Some((first, _)) = paired.first() {
        let kind = first.type_name().to_owned();
        if compare::order(first, first).is_err() && !matches!(first, Value::Double(_)) {
            return failed("list elements must be comparable");
        }
        if paired.iter().any(|(key, _)| key.type_name() != kind) {
            return failed("list elements must have the same type");
        }
    }
    paired.sort_by(|(a, _), (b, _)| {
        compare::order(a, b).unwrap_or_else(|error| {
            failure = Some(error);
            // A total order nevertheless: what is not a number comes last.
            let nan = |value: &Value<'_>| matches!(value, Value::Double(number) if number.is_nan());
            nan(a).cmp(&nan(b))
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(Value::list(paired.into_iter().map(|(_, item)| item).collect())),
    }
}

fn range<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let count = usize::try_from(int(args, 0)?).unwrap_or(0);
    room_for_items(count)?;
    Ok(Value::list((0..count).map(|index| Value::Int(i64::try_from(index).unwrap_or(i64::MAX))).collect()))
}

fn distinct<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut unique: Vec<Value<'a>> = Vec::new();
    'items: for item in list(args, 0)?.iter() {
        let item = item?;
        for found in &unique {
            if compare::equal(&item, found)? {
                continue 'items;
            }
        }
        unique.push(item);
    }
    Ok(Value::list(unique))
}
