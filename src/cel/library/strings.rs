//! Strings: the standard ones and the extension's (version 2). Positions count characters.

use super::{Function, failed, function, int, list, room_for_items, room_for_text, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Value, show};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

pub const FUNCTIONS: &[Function] = &[
    function("contains", "string.(string) -> bool", Cost::Contains, |args| {
        Ok(Value::Bool(text(args, 0)?.contains(text(args, 1)?)))
    }),
    function("startsWith", "string.(string) -> bool", Cost::Affix, |args| {
        Ok(Value::Bool(text(args, 0)?.starts_with(text(args, 1)?)))
    }),
    function("endsWith", "string.(string) -> bool", Cost::Affix, |args| {
        Ok(Value::Bool(text(args, 0)?.ends_with(text(args, 1)?)))
    }),
    function("charAt", "string.(int) -> string", Cost::One, char_at),
    function("indexOf", "string.(string) -> int; string.(string, int) -> int", Cost::Traverse, index_of),
    function("lastIndexOf", "string.(string) -> int; string.(string, int) -> int", Cost::Traverse, last_index_of),
    function("lowerAscii", "string.() -> string", Cost::TextAlike, |args| {
        Ok(Value::string(text(args, 0)?.to_ascii_lowercase()))
    }),
    function("upperAscii", "string.() -> string", Cost::TextAlike, |args| {
        Ok(Value::string(text(args, 0)?.to_ascii_uppercase()))
    }),
    function("trim", "string.() -> string", Cost::TextAlike, |args| Ok(Value::string(text(args, 0)?.trim()))),
    function(
        "replace",
        "string.(string, string) -> string; string.(string, string, int) -> string",
        Cost::Replace,
        replace,
    ),
    function("split", "string.(string) -> list(string); string.(string, int) -> list(string)", Cost::Split, split),
    function("substring", "string.(int) -> string; string.(int, int) -> string", Cost::TextAlike, substring),
    function("join", "list(string).() -> string; list(string).(string) -> string", Cost::Join, join),
    function("strings.quote", "(string) -> string", Cost::Quote, |args| Ok(Value::string(quote(text(args, 0)?)))),
    function("jsonpatch.escapeKey", "(string) -> string", Cost::TextAlike, |args| {
        Ok(Value::string(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
    }),
];

fn out_of_range<T>(index: i64) -> Result<T, EvalError> {
    failed(format!("index out of range: {index}"))
}

/// Where a character starts, the end for the one behind the last.
fn byte_of(text: &str, index: i64) -> Result<usize, EvalError> {
    let Ok(wanted) = usize::try_from(index) else { return out_of_range(index) };
    let mut starts = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    starts.nth(wanted).map_or_else(|| out_of_range(index), Ok)
}

fn characters(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX)
}

fn char_at<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let whole = text(args, 0)?;
    let start = byte_of(whole, int(args, 1)?)?;
    let found: String = whole.get(start..).into_iter().flat_map(|rest| rest.chars().take(1)).collect();
    Ok(Value::string(found))
}

fn index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (whole, wanted) = (text(args, 0)?, text(args, 1)?);
    let offset = if args.len() > 2 { int(args, 2)? } else { 0 };
    if offset < 0 {
        return out_of_range(offset);
    }
    let length = characters(whole);
    if wanted.is_empty() {
        return Ok(Value::Int(offset.min(length)));
    }
    if offset >= length {
        return Ok(Value::Int(-1));
    }
    let start = byte_of(whole, offset)?;
    let found = whole.get(start..).and_then(|rest| rest.find(wanted));
    Ok(Value::Int(found.map_or(-1, |byte| characters(whole.get(..start + byte).unwrap_or_default()))))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (whole, wanted) = (text(args, 0)?, text(args, 1)?);
    let length = characters(whole);
    let offset = if args.len() > 2 { int(args, 2)? } else { length };
    if offset < 0 {
        return out_of_range(offset);
    }
    if wanted.is_empty() {
        return Ok(Value::Int(offset.min(length)));
    }
    if args.len() > 2 && offset >= length {
        return Ok(Value::Int(-1));
    }
    // What is found in this much of the text starts at the offset or before it.
    let end = (byte_of(whole, offset.min(length))? + wanted.len()).min(whole.len());
    let end = (0..=end).rev().find(|end| whole.is_char_boundary(*end)).unwrap_or(0);
    let found = whole.get(..end).and_then(|earlier| earlier.rfind(wanted));
    Ok(Value::Int(found.map_or(-1, |byte| characters(whole.get(..byte).unwrap_or_default()))))
}

fn replace<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (whole, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let limit = if args.len() > 3 { int(args, 3)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = if from.is_empty() { whole.chars().count() + 1 } else { whole.matches(from).count() };
    room_for_text(whole.len().saturating_add(count.min(limit).saturating_mul(to.len())))?;
    Ok(Value::string(whole.replacen(from, to, limit)))
}

fn split<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (whole, separator) = (text(args, 0)?, text(args, 1)?);
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<&str> = if separator.is_empty() {
        let mut parts = Vec::new();
        let mut rest = whole;
        while let Some(first) = rest.chars().next() {
            if parts.len() + 1 == limit {
                parts.push(rest);
                break;
            }
            parts.push(&rest[..first.len_utf8()]);
            rest = &rest[first.len_utf8()..];
        }
        parts
    } else {
        whole.splitn(limit, separator).collect()
    };
    room_for_items(parts.len())?;
    Ok(Value::list(parts.into_iter().map(Value::string).collect()))
}

fn substring<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let whole = text(args, 0)?;
    let start = int(args, 1)?;
    let end = if args.len() > 2 { int(args, 2)? } else { characters(whole) };
    if args.len() > 2 && start > end {
        return failed(format!("invalid substring range. start: {start}, end: {end}"));
    }
    let (from, to) = (byte_of(whole, start)?, byte_of(whole, end)?);
    Ok(Value::string(whole.get(from..to).unwrap_or_default()))
}

fn join<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let items = list(args, 0)?;
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        let item = item?;
        let Some(item) = item.as_str() else {
            return failed(format!("join: invalid input: {}", show::literal(&item)));
        };
        room_for_text(joined.len() + separator.len() + item.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item);
    }
    Ok(Value::string(joined))
}

/// As a literal, with what cannot be seen escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for found in text.chars() {
        match found {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
