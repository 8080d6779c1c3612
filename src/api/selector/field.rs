//! Field selectors (`metadata.name=a,status.phase!=Running`) over the fields that a kind allows.

use std::borrow::Cow;

use serde_json::Value;

use super::SelectorError;
use crate::table::Row;

/// A field by which lists of a kind may be narrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// What selectors call it.
    pub label: Cow<'static, str>,
    /// Where it lies in the object.
    pub path: Cow<'static, str>,
    /// Where to look when `path` is empty.
    pub fallback: Cow<'static, str>,
    /// What a missing field counts as.
    pub missing: Cow<'static, str>,
}

impl SelectableField {
    pub const fn text(path: &'static str) -> SelectableField {
        SelectableField::at(path, path, "")
    }

    pub const fn boolean(path: &'static str) -> SelectableField {
        SelectableField::at(path, path, "false")
    }

    pub const fn number(path: &'static str) -> SelectableField {
        SelectableField::at(path, path, "0")
    }

    pub const fn at(label: &'static str, path: &'static str, missing: &'static str) -> SelectableField {
        SelectableField {
            label: Cow::Borrowed(label),
            path: Cow::Borrowed(path),
            fallback: Cow::Borrowed(""),
            missing: Cow::Borrowed(missing),
        }
    }

    pub const fn either(label: &'static str, path: &'static str, fallback: &'static str) -> SelectableField {
        SelectableField {
            label: Cow::Borrowed(label),
            path: Cow::Borrowed(path),
            fallback: Cow::Borrowed(fallback),
            missing: Cow::Borrowed(""),
        }
    }

    /// The field as text.
    pub fn of<'a>(&'a self, object: &'a Value) -> Cow<'a, str> {
        let found = text_at(object, &self.path);
        let found = if self.fallback.is_empty() {
            found
        } else {
            found.filter(|text| !text.is_empty()).or_else(|| text_at(object, &self.fallback))
        };
        found.unwrap_or(Cow::Borrowed(&self.missing))
    }
}

fn text_at<'a>(object: &'a Value, path: &str) -> Option<Cow<'a, str>> {
    let mut value = object;
    for name in path.split('.') {
        value = value.get(name)?;
    }
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(_) | Value::Number(_) => Some(Cow::Owned(value.to_string())),
        _ => None,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: SelectableField,
    pub value: String,
    /// `!=`.
    pub negated: bool,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// A selector for the fields that the row allows; others are refused with upstream's text.
    pub fn parse(text: &str, row: &Row) -> Result<FieldSelector, SelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let malformed = || SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (label, value, negated) = split_term(term).ok_or_else(malformed)?;
            terms.push(FieldTerm { field: field_of(label, row)?, value: unescape(value)?, negated });
        }
        Ok(FieldSelector { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| (term.field.of(object) == term.value.as_str()) != term.negated)
    }

    /// The value that the field must have, if the selector says so: a list of `metadata.name=x` is a get.
    pub fn requires(&self, label: &str) -> Option<&str> {
        self.terms.iter().find(|term| !term.negated && term.field.label == label).map(|term| term.value.as_str())
    }
}

fn field_of(label: &str, row: &Row) -> Result<SelectableField, SelectorError> {
    match label {
        "metadata.name" => Ok(SelectableField::text("metadata.name")),
        "metadata.namespace" if row.namespaced => Ok(SelectableField::text("metadata.namespace")),
        _ => match row.selectable_fields.iter().find(|field| field.label == label) {
            Some(field) => Ok(field.clone()),
            // Kinds with fields of their own say it shorter than the rest.
            None if !row.selectable_fields.is_empty() || row.custom.is_some() => {
                Err(SelectorError(format!("field label not supported: {label}")))
            }
            None => Err(SelectorError(format!(
                "\"{label}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ))),
        },
    }
}

/// At the commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find("!=").into_iter().chain(term.find('=')).min()?;
    let (label, rest) = term.split_at(at);
    rest.strip_prefix("!=")
        .map(|value| (label, value, true))
        .or_else(|| rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).map(|value| (label, value, false)))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                )));
            }
            _ => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_select() {
        let pods = Row::find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "n"}});
        for (text, expected) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,spec.nodeName=n", true),
            ("spec.nodeName!=n", false),
            ("status.phase=", true),
            ("spec.hostNetwork=false", true),
            ("spec.host=n", true),
        ] {
            assert_eq!(FieldSelector::parse(text, pods).unwrap().matches(&pod), expected, "{text}");
        }
        assert_eq!(FieldSelector::parse("metadata.name=a\\,b", pods).unwrap().requires("metadata.name"), Some("a,b"));
        assert_eq!(
            FieldSelector::parse("spec.foo=a", pods).unwrap_err().to_string(),
            "field label not supported: spec.foo"
        );
        let maps = Row::find("", "v1", "configmaps").unwrap();
        assert_eq!(
            FieldSelector::parse("data=a", maps).unwrap_err().to_string(),
            "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        assert_eq!(
            FieldSelector::parse("foo", maps).unwrap_err().to_string(),
            "invalid selector: 'foo'; can't understand 'foo'"
        );
    }

    #[test]
    fn an_events_source_falls_back_to_its_reporter() {
        let events = Row::find("", "v1", "events").unwrap();
        let selector = FieldSelector::parse("source=kubelet", events).unwrap();
        assert!(selector.matches(&json!({"source": {}, "reportingComponent": "kubelet"})));
        assert!(!selector.matches(&json!({"source": {"component": "x"}, "reportingComponent": "kubelet"})));
    }
}
