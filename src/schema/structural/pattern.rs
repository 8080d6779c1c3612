//! Regular expressions in Go's syntax (RE2), on the `regex` crate.
//!
//! Both are linear in the text. Where they differ, the text is rewritten: in Go `\d`, `\w`, `\s` and `\b` are ASCII,
//! a brace that repeats nothing is a brace, and in a class `[`, `&&`, `--` and `~~` have no meaning of their own.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// What one compiled expression may weigh; upstream has no bound.
const COMPILED_BYTES_MAX: usize = 4 << 20;

/// A pattern, compiled when it is first used.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    pub fn new(text: impl Into<String>) -> Pattern {
        Pattern { text: text.into(), compiled: OnceLock::new() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why it does not compile.
    pub fn error(&self) -> Option<String> {
        compile(&self.text).err()
    }

    /// Whether the pattern is found in the text; `None` if it does not compile.
    pub fn is_match(&self, text: &str) -> Option<bool> {
        let compiled = self.compiled.get_or_init(|| compile(&self.text).ok());
        compiled.as_ref().map(|regex| regex.is_match(text))
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(&rewritten(text))
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| format!("error parsing regexp: {}", error.to_string().lines().last().unwrap_or_default()))
}

fn rewritten(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = chars.next() {
        let first_in_class = std::mem::take(&mut class_start);
        match c {
            '\\' => escape(&mut chars, in_class, &mut out),
            '[' if in_class && chars.peek() == Some(&':') => {
                out.push('[');
                // The name of a class such as [:alpha:].
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                class_start = true;
            }
            ']' if in_class && first_in_class => out.push_str("\\]"),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '[' | '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && chars.peek() == Some(&'-') => out.push_str("\\-"),
            '{' if !in_class && !is_repetition(chars.clone()) => out.push_str("\\{"),
            '(' if !in_class && chars.peek() == Some(&'?') => out.push('('),
            c => out.push(c),
        }
    }
    out
}

fn escape(chars: &mut Peekable<Chars<'_>>, in_class: bool, out: &mut String) {
    let Some(c) = chars.next() else {
        out.push('\\');
        return;
    };
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'B' if !in_class => out.push_str("(?-u:\\B)"),
        'Q' => {
            let mut quoted = String::new();
            while let Some(c) = chars.next() {
                if c == '\\' && chars.peek() == Some(&'E') {
                    chars.next();
                    break;
                }
                quoted.push(c);
            }
            out.push_str(&regex::escape(&quoted));
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => {
            // Go takes any punctuation behind a backslash for itself.
            let _ = write!(out, "\\x{:02X}", u32::from(c));
        }
        c => {
            out.push('\\');
            out.push(c);
            // A class or a character by its name, as `\p{L}` and `\x{41}`.
            if matches!(c, 'p' | 'P' | 'x') && chars.peek() == Some(&'{') {
                for c in chars.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
        }
    }
}

/// Whether what follows a brace makes it a repetition: `2}`, `2,}`, `2,5}`.
fn is_repetition(chars: Peekable<Chars<'_>>) -> bool {
    let mut digits = 0;
    let mut commas = 0;
    for c in chars {
        match c {
            '0'..='9' => digits += 1,
            ',' if digits > 0 && commas == 0 => commas += 1,
            '}' => return digits > 0,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "१२", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[[]a$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[a&&b]+$", "&b", true),
            (r"^{.*}$", "{x}", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^a{,3}$", "a{,3}", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "ab-c", true),
            (r"^\/x\_y$", "/x_y", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"\Qa.b\E$", "a.b", true),
            (r"(?i)^ABC$", "abc", true),
            (r"^[^\s]+$", "a b", false),
            (r"^\p{L}+$", "äb", true),
            (r"\bfoo\b", "a foo b", true),
        ] {
            assert_eq!(Pattern::new(pattern).is_match(text), Some(expected), "{pattern} {text}");
        }
        assert!(Pattern::new("a(").error().is_some());
        assert_eq!(Pattern::new("a(").is_match("a"), None);
    }
}
