//! One step of a field's path.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

/// One step of a path, as `FieldsV1` has it. Keys and values are held as compact JSON, keys sorted by
/// name, so that elements compare and serialise as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathElement<'a> {
    /// `f:name`: a struct's field or a map's key.
    Field(Cow<'a, str>),
    /// `k:{"name":"a"}`: an element of a list with keys.
    Key(Cow<'a, str>),
    /// `v:"a"`: an element of a set.
    Value(Cow<'a, str>),
    /// `i:0`: a list's position; read, but never made here.
    Index(i64),
}

impl<'a> PathElement<'a> {
    /// A struct's field or a map's key.
    pub fn field(name: &'a str) -> PathElement<'a> {
        PathElement::Field(Cow::Borrowed(name))
    }

    /// Reads the form of `FieldsV1`; None if it has a form that is not known here.
    pub fn parse(text: &'a str) -> Option<PathElement<'a>> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(PathElement::Field(Cow::Borrowed(rest))),
            "k" => Some(PathElement::Key(canonical(rest)?)),
            "v" => Some(PathElement::Value(canonical(rest)?)),
            "i" => rest.parse().ok().map(PathElement::Index),
            _ => None,
        }
    }

    /// The form of `FieldsV1`.
    pub fn to_text(&self) -> String {
        match self {
            PathElement::Field(name) => format!("f:{name}"),
            PathElement::Key(json) => format!("k:{json}"),
            PathElement::Value(json) => format!("v:{json}"),
            PathElement::Index(index) => format!("i:{index}"),
        }
    }

    pub fn into_owned(self) -> PathElement<'static> {
        match self {
            PathElement::Field(name) => PathElement::Field(Cow::Owned(name.into_owned())),
            PathElement::Key(json) => PathElement::Key(Cow::Owned(json.into_owned())),
            PathElement::Value(json) => PathElement::Value(Cow::Owned(json.into_owned())),
            PathElement::Index(index) => PathElement::Index(index),
        }
    }
}

/// As upstream shows it: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
impl fmt::Display for PathElement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(json) => {
                let fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| *name);
                f.write_str("[")?;
                for (at, (name, value)) in fields.into_iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            PathElement::Value(json) => write!(f, "[={json}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The one way to write a piece of JSON. What we and upstream write is that already, unless it has escapes.
fn canonical(json: &str) -> Option<Cow<'_, str>> {
    let plain = !json.contains(['\\', ' ', '\n', '\t', '\r']);
    if plain && !json.is_empty() {
        return Some(Cow::Borrowed(json));
    }
    let value: Value = serde_json::from_str(json).ok()?;
    Some(Cow::Owned(match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&str, &Value)> = fields.iter().map(|(k, v)| (k.as_str(), v)).collect();
            fields.sort_by_key(|(name, _)| *name);
            key_json(&fields)
        }
        value => value.to_string(),
    }))
}

/// A key's JSON; the fields must be sorted.
pub(super) fn key_json(fields: &[(&str, &Value)]) -> String {
    let mut json = String::with_capacity(32);
    json.push('{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        push_string(&mut json, name);
        json.push(':');
        push_value(&mut json, value);
    }
    json.push('}');
    json
}

/// A scalar's JSON.
pub(super) fn value_json(value: &Value) -> String {
    let mut json = String::new();
    push_value(&mut json, value);
    json
}

fn push_value(json: &mut String, value: &Value) {
    use fmt::Write as _;
    match value {
        Value::String(text) => push_string(json, text),
        // Writing to a string does not fail.
        other => drop(write!(json, "{other}")),
    }
}

fn push_string(json: &mut String, text: &str) {
    use fmt::Write as _;
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        let _ = write!(json, "{}", Value::from(text));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_read_written_and_shown() {
        for (text, shown) in [
            ("f:spec", ".spec"),
            ("f:a:b", ".a:b"),
            (r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"[containerPort=80,protocol="TCP"]"#),
            (r#"v:"x""#, r#"[="x"]"#),
            ("v:1", "[=1]"),
            ("i:3", "[3]"),
        ] {
            let element = PathElement::parse(text).unwrap();
            assert_eq!(element.to_text(), text);
            assert_eq!(element.to_string(), shown);
        }
        assert_eq!(PathElement::parse("x:1"), None);
        assert_eq!(PathElement::parse("f"), None);
        assert_eq!(PathElement::parse("i:x"), None);
        assert_eq!(PathElement::parse("k:"), None);
    }

    #[test]
    fn differently_written_keys_are_the_same() {
        let ours = PathElement::Key(key_json(&[("a", &json!("x<y")), ("b", &json!(1))]).into());
        assert_eq!(PathElement::parse(r#"k:{"b": 1, "a": "x\u003cy"}"#).unwrap(), ours);
        assert_eq!(value_json(&json!("a\"b")), r#""a\"b""#);
    }
}
