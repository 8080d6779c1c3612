//! What a call costs, from its arguments and result.

use super::{CHECK, Cost, LIST, REGEX, STRUCT, TRAVERSAL, times};
use crate::value::{Library, Value};

/// Charged after the call, as upstream does; what a call makes is bounded on its own.
pub fn call(cost: Cost, args: &[Value<'_>], result: &Value<'_>) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Value::cost_size);
    match cost {
        Cost::One => 1,
        Cost::Conditional | Cost::Logical => 0,
        Cost::Equal if matches!(args.first(), Some(Value::Library(_))) => 1,
        Cost::Equal | Cost::Compare => times(size(0).min(size(1)), TRAVERSAL),
        Cost::Add => match args.first() {
            Some(Value::String(_) | Value::Bytes(_)) => times(size(0).saturating_add(size(1)), TRAVERSAL),
            _ => 1,
        },
        Cost::In => match args.get(1) {
            Some(Value::List(list)) => list.len() as u64,
            _ => 1,
        },
        Cost::Text | Cost::TextAlike | Cost::Affix | Cost::FormatString | Cost::Quote => times(size(0), TRAVERSAL),
        Cost::TextTwice | Cost::Replace | Cost::Split => times(size(0), 2.0 * TRAVERSAL),
        Cost::Join => times(result.cost_size(), 2.0 * TRAVERSAL),
        Cost::ToBytes => match args.first() {
            Some(Value::String(_)) => times(size(0), TRAVERSAL),
            _ => 1,
        },
        Cost::ToString => match args.first() {
            Some(Value::Bytes(_)) => times(size(0), TRAVERSAL),
            _ => 1,
        },
        Cost::Traverse => args.first().map_or(0, traversal),
        Cost::Contains => times(size(0), TRAVERSAL).saturating_mul(times(size(1), TRAVERSAL)),
        Cost::Matches | Cost::Find => times(size(0).saturating_add(1), TRAVERSAL).saturating_mul(times(size(1), REGEX)),
        Cost::Validate => match args.first() {
            Some(Value::Library(Library::Format(format))) => {
                times(size(1).saturating_add(1), TRAVERSAL).saturating_mul(times(format.regex_size, REGEX))
            }
            _ => 1,
        },
        Cost::ContainsIp => times(2 * size(0), TRAVERSAL) + text_cost(args.get(1)),
        Cost::ContainsCidr => times(2 * size(0), TRAVERSAL) + times(size(0), TRAVERSAL) + 1 + text_cost(args.get(1)),
        Cost::Selector => selector(size(1)),
        Cost::Check => CHECK,
        Cost::Sets(factor) => 1u64.saturating_add(size(0).saturating_mul(size(1)).saturating_mul(u64::from(factor))),
        Cost::Slice | Cost::Range | Cost::Reverse => made(result.cost_size()),
        Cost::Flatten => {
            let levels = match args.get(1) {
                Some(Value::Int(levels)) => u64::try_from(*levels).unwrap_or(0),
                _ => 1,
            };
            made(size(0).saturating_mul(levels))
        }
        Cost::Distinct | Cost::Sort => made(self_compared(args.first())),
        Cost::SortBy => made(self_compared(args.get(1))),
    }
}

/// A list that is made.
fn made(cost: u64) -> u64 {
    cost.saturating_add(1 + LIST)
}

fn self_compared(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let size = list.len() as u64;
    let factor = match list.get(0) {
        Some(Ok(Value::String(_) | Value::Bytes(_))) => 2.0 + TRAVERSAL,
        _ => 2.0,
    };
    times(size.saturating_mul(size), factor)
}

fn text_cost(value: Option<&Value<'_>>) -> u64 {
    match value {
        Some(value @ Value::String(_)) => times(value.cost_size(), TRAVERSAL),
        _ => 0,
    }
}

/// A selector is read, and each requirement in it is a structure with a list.
pub(super) fn selector(length: u64) -> u64 {
    let requirements = times(length, 0.5);
    LIST.saturating_add(times(length, TRAVERSAL)).saturating_add(requirements.saturating_mul(LIST + STRUCT))
}

/// Going through all of a value. Lists and maps within count what is in them.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list.iter().flatten().map(|item| traversal(&item)).sum(),
        Value::Map(map) => map
            .keys()
            .iter()
            .map(|key| traversal(&key.value()) + map.get(key).and_then(Result::ok).map_or(0, |value| traversal(&value)))
            .sum(),
        _ => 1,
    }
}
