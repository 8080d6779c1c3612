//! Paths of fields in a schema: those by which objects may be selected, and those that rules name.

use std::collections::BTreeSet;

use schema::structural::{Additional, Problem, Structural};
use serde_json::Value;

use super::{Found, Rules};
use crate::fields::Fields;

/// Fields by which the objects of one version may be selected.
const SELECTABLE_MAX: usize = 8;

/// A path that leads to a field that the schema has.
#[derive(Debug)]
pub struct FieldPath<'s> {
    /// As findings show it: `spec.a[key]`.
    pub shown: String,
    /// The first part.
    pub root: String,
    pub schema: &'s Structural,
}

/// Follows a path such as `.spec.ports['a.b']` through a schema (`ValidFieldPath`).
pub fn field_path<'s>(path: &str, schema: &'s Structural, arrays: bool) -> Result<FieldPath<'s>, String> {
    let mut at = FieldPath { shown: String::new(), root: String::new(), schema };
    let tokens = tokens(path);
    let mut tokens = tokens.iter().map(String::as_str);
    let end = || "unexpected end of JSON path".to_owned();
    while let Some(token) = tokens.next() {
        match token {
            "[" if !arrays => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = tokens.next().ok_or_else(end)?;
                let inside = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let inside = inside.filter(|_| quoted.len() >= 2);
                let inside = inside.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                let name = unescaped(inside)?;
                at = at.step(&name)?;
                match tokens.next().ok_or_else(end)? {
                    "]" => {}
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            "." => at = at.step(tokens.next().ok_or_else(end)?)?,
            other => return Err(format!("expected [ or . but got: {other}")),
        }
    }
    Ok(at)
}

impl<'s> FieldPath<'s> {
    fn step(mut self, name: &str) -> Result<FieldPath<'s>, String> {
        let nothing = || "does not refer to a valid field".to_owned();
        if self.shown.is_empty() {
            name.clone_into(&mut self.root);
        }
        if self.schema.properties.is_empty() {
            let Some(Additional::Schema(schema)) = &self.schema.additional else { return Err(nothing()) };
            self.shown.push_str(&format!("[{name}]"));
            self.schema = schema;
        } else {
            self.schema = self.schema.properties.get(name).ok_or_else(nothing)?;
            if !self.shown.is_empty() {
                self.shown.push('.');
            }
            self.shown.push_str(name);
        }
        Ok(self)
    }
}

/// Delimiters and what is between them; in single quotes delimiters are nothing special.
fn tokens(path: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' if current.is_empty() => {
                current.push(c);
                let mut last = c;
                for c in chars.by_ref() {
                    current.push(c);
                    if c == '\'' && last != '\\' {
                        break;
                    }
                    last = c;
                }
                tokens.push(std::mem::take(&mut current));
            }
            '.' | '[' | ']' => {
                if !current.is_empty() {
                    tokens.push(std::mem::take(&mut current));
                }
                tokens.push(c.to_string());
            }
            c => current.push(c),
        }
    }
    if !current.is_empty() {
        tokens.push(current);
    }
    tokens
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some(c @ ('\'' | '\\')) => c,
            Some(c) => return Err(format!("invalid string literal: invalid escape char \\{c}")),
            None => '\\',
        });
    }
    Ok(out)
}

pub(super) fn check_selectable(
    version: &Value,
    path: &str,
    without_schema: &str,
    name: &str,
    rules: &Rules,
    found: &mut Found,
) {
    let selectable = version.list("selectableFields");
    if selectable.is_empty() {
        return;
    }
    let Some(json) = version.part("schema").at("openAPIV3Schema") else {
        found.push(Problem::invalid(path, "", without_schema));
        return;
    };
    // What is wrong with the schema is said where the schema is.
    let Ok(schema) = Structural::parse(json) else { return };
    let mut unique = BTreeSet::new();
    for (index, field) in selectable.iter().enumerate() {
        let json_path = field.text("jsonPath");
        let path = format!("{path}[{index}].jsonPath");
        if json_path.is_empty() {
            found.push(Problem::required(path, ""));
            continue;
        }
        let at = match field_path(json_path, &schema, false) {
            Ok(at) => at,
            Err(why) => {
                found.push(Problem::invalid(path, json_path, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if at.root == "metadata" {
            found.push(Problem::invalid(path.as_str(), json_path, "must not point to fields in metadata"));
        }
        if !matches!(at.schema.ty.as_str(), "string" | "boolean" | "integer") {
            let text = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                        formats are allowed.";
            found.push(Problem::invalid(path.as_str(), json_path, text));
        }
        if !unique.insert(at.shown) {
            found.push(Problem::duplicate(path, json_path));
        }
    }
    if unique.len() > SELECTABLE_MAX && !rules.too_many_selectable.contains(name) {
        found.push(Problem::too_many(path, unique.len(), SELECTABLE_MAX.try_into().unwrap_or(i64::MAX)));
    }
}

/// The versions that had too many before and have the same now; the empty name where that is all of them.
pub(super) fn too_many_before(spec: &Value, before: &Value) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = spec
        .list("versions")
        .iter()
        .filter(|version| {
            let old = before.list("versions").iter().find(|old| old.part("name") == version.part("name"));
            let same = |old: &Value| old.part("selectableFields") == version.part("selectableFields");
            version.list("selectableFields").len() > SELECTABLE_MAX && old.is_some_and(same)
        })
        .map(|version| version.text("name").to_owned())
        .collect();
    if names.len() == spec.list("versions").len() {
        names.insert(String::new());
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_followed_through_the_schema() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a.b": {"type": "string"}, "map": {"type": "object", "additionalProperties": {"type": "integer"}}}}}});
        let schema = Structural::parse(&schema).unwrap();
        let follow = |path: &str, arrays| field_path(path, &schema, arrays).map(|at| at.shown);
        assert_eq!(follow(".spec['a.b']", true).unwrap(), "spec.a.b");
        assert_eq!(follow(".spec.map['k']", true).unwrap(), "spec.map[k]");
        assert_eq!(follow(".spec['a.b']", false).unwrap_err(), "array notation is not allowed");
        assert_eq!(follow(".spec.none", true).unwrap_err(), "does not refer to a valid field");
        assert_eq!(follow("spec", true).unwrap_err(), "expected [ or . but got: spec");
        assert_eq!(follow(".", true).unwrap_err(), "unexpected end of JSON path");
    }
}
