//! Field names that are no identifiers of the language, and how expressions write them.

/// Words that the language itself uses.
const WORDS: [&str; 4] = ["true", "false", "null", "in"];
/// Words that the language keeps for itself: no name in an expression may be one of them.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const PARTS: [(&str, &str); 4] = [("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

fn is_keyword(name: &str) -> bool {
    WORDS.contains(&name) || RESERVED.contains(&name)
}

/// The name in expressions, `None` if there is none for this field (upstream: `cel.Escape`).
pub fn escape(name: &str) -> Option<String> {
    if is_keyword(name) {
        return Some(format!("__{name}__"));
    }
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let fits = |found: char| found.is_ascii_alphanumeric() || matches!(found, '_' | '.' | '-' | '/');
    if !name.chars().all(fits) {
        return None;
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    'next: while let Some(first) = rest.chars().next() {
        for (plain, written) in PARTS {
            if let Some(tail) = rest.strip_prefix(plain) {
                escaped.push_str(written);
                rest = tail;
                continue 'next;
            }
        }
        escaped.push(first);
        rest = &rest[first.len_utf8()..];
    }
    Some(escaped)
}

/// The field's name, `None` if nothing is written like that (upstream: `cel.Unescape`).
pub fn unescape(name: &str) -> Option<String> {
    if let Some(keyword) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && is_keyword(keyword)
    {
        return Some(keyword.to_owned());
    }
    if !name.contains("__") {
        return Some(name.to_owned());
    }
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(start) = rest.find("__") {
        plain.push_str(&rest[..start]);
        let (found, written) = PARTS.iter().find(|(_, written)| rest[start..].starts_with(written))?;
        plain.push_str(found);
        rest = &rest[start + written.len()..];
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        let cases = [
            ("plain", "plain"),
            ("a.b-c/d", "a__dot__b__dash__c__slash__d"),
            ("a__b", "a__underscores__b"),
            ("namespace", "__namespace__"),
            ("__namespace__", "__underscores__namespace__underscores__"),
            ("x___y", "x__underscores___y"),
        ];
        for (name, written) in cases {
            assert_eq!(escape(name).as_deref(), Some(written), "{name}");
            assert_eq!(unescape(written).as_deref(), Some(name), "{written}");
        }
        assert_eq!(escape("1a"), None);
        assert_eq!(escape("a b"), None);
        assert_eq!(unescape("a__b"), None);
    }
}
