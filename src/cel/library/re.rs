//! Regular expressions as RE2 reads them.

use regex::{Regex, RegexBuilder};

use super::{Function, failed, function, int, room_for_items, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::Value;

/// A compiled expression is at most this large.
const REGEX_BYTES_MAX: usize = 1 << 20;
const NESTING_MAX: u32 = 100;

pub const FUNCTIONS: &[Function] = &[
    function("matches", "(string, string) -> bool; string.(string) -> bool", Cost::Matches, |args| {
        matches(text(args, 0)?, &compile(text(args, 1)?).map_err(EvalError::Failed)?)
    }),
    function("find", "string.(string) -> string", Cost::Find, |args| {
        find(text(args, 0)?, &compile_or_illegal(text(args, 1)?)?)
    }),
    function("findAll", "string.(string) -> list(string); string.(string, int) -> list(string)", Cost::Find, |args| {
        let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
        find_all(text(args, 0)?, &compile_or_illegal(text(args, 1)?)?, limit)
    }),
];

/// Functions whose second argument is an expression to compile beforehand if it is known.
pub fn takes_regex(function: &str) -> bool {
    matches!(function, "matches" | "find" | "findAll")
}

/// One of these functions with its expression compiled.
pub fn call<'a>(function: &str, args: &[Value<'a>], regex: &Regex) -> Result<Value<'a>, EvalError> {
    let whole = text(args, 0)?;
    match function {
        "matches" => matches(whole, regex),
        "find" => find(whole, regex),
        _ => find_all(whole, regex, if args.len() > 2 { int(args, 2)? } else { -1 }),
    }
}

fn matches<'a>(whole: &str, regex: &Regex) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(regex.is_match(whole)))
}

fn find<'a>(whole: &str, regex: &Regex) -> Result<Value<'a>, EvalError> {
    Ok(Value::string(regex.find(whole).map_or("", |found| found.as_str())))
}

fn find_all<'a>(whole: &str, regex: &Regex, limit: i64) -> Result<Value<'a>, EvalError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    for one in regex.find_iter(whole).take(limit) {
        room_for_items(found.len() + 1)?;
        found.push(Value::string(one.as_str()));
    }
    Ok(Value::list(found))
}

fn compile_or_illegal(pattern: &str) -> Result<Regex, EvalError> {
    compile(pattern).or_else(|why| failed(format!("Illegal regex: {why}")))
}

/// The error is the text for clients.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| format!("error parsing regexp: {}: `{pattern}`", reason(&error)))
}

fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "expression too large".to_owned(),
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

/// The crate's syntax has Unicode classes, set operations within brackets and no `\Q`; RE2's has not.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(found) = rest.chars().next() {
        let after = &rest[found.len_utf8()..];
        match found {
            '\\' => {
                let Some(escaped) = after.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &after[escaped.len_utf8()..];
                match escaped {
                    'd' if in_class => out.push_str("0-9"),
                    'w' if in_class => out.push_str("0-9A-Za-z_"),
                    's' if in_class => out.push_str("\\t\\n\\x0C\\r "),
                    'd' => out.push_str("[0-9]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    's' => out.push_str("[\\t\\n\\x0C\\r ]"),
                    'D' => out.push_str("[^0-9]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    'S' => out.push_str("[^\\t\\n\\x0C\\r ]"),
                    'b' if !in_class => out.push_str("(?-u:\\b)"),
                    'B' if !in_class => out.push_str("(?-u:\\B)"),
                    'Q' => {
                        let (literal, tail) = rest.split_once("\\E").unwrap_or((rest, ""));
                        out.push_str(&regex::escape(literal));
                        rest = tail;
                    }
                    other => {
                        out.push('\\');
                        out.push(other);
                    }
                }
                continue;
            }
            '[' if in_class && !after.starts_with(':') => out.push_str("\\["),
            '[' if in_class => {
                // A class by name, whole.
                let end = after.find(":]").map_or(after.len(), |end| end + 2);
                out.push('[');
                out.push_str(&after[..end]);
                rest = &after[end..];
                continue;
            }
            '[' => {
                in_class = true;
                out.push('[');
                let negated = after.starts_with('^');
                let tail = if negated { &after[1..] } else { after };
                if negated {
                    out.push('^');
                }
                if let Some(tail) = tail.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = tail;
                } else {
                    rest = tail;
                }
                continue;
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(found);
            }
            '-' if in_class && after.starts_with('-') => out.push_str("\\-"),
            other => out.push(other),
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_re2_takes_them_for() {
        let cases = [
            (r"^\d+$", "\u{663}", false),
            (r"^\d+$", "42", true),
            (r"^[\w.]+$", "a_1.b", true),
            (r"^[[a]$", "[", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[^]a]$", "b", true),
            (r"^\S+$", "a b", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(compile(pattern).unwrap().is_match(text), expected, "{pattern} on {text}");
        }
        assert!(compile("a(").unwrap_err().starts_with("error parsing regexp: "));
    }
}
