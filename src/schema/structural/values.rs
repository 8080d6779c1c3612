//! Whether a value is one that its schema allows, in the words of kube-openapi's validator.
//!
//! With an older value beside it, what did not change is not held against the newer one (ratcheting): findings about
//! a part that is equal to the part of the older value at the same place are dropped.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::numbers::{self, Num};
use super::problem::{Kind, Problem};
use super::{Additional, Olds, Structural, formats, is_same};

/// Findings that are collected for one value at most.
const FINDINGS_MAX: usize = 1000;

/// Checks a value. `base` is the path that findings' paths begin with; `old` is the value's predecessor.
pub fn validate(value: &Value, schema: &Structural, old: Option<&Value>, base: &str) -> Vec<Problem> {
    let mut path = String::new();
    let run = correlated(schema, value, old, &mut path);
    run.findings.into_iter().map(|finding| finding.at(base)).collect()
}

/// What was found in one part.
#[derive(Default)]
pub(super) struct Run {
    findings: Vec<Finding>,
    /// How many checks passed, by which the best of several alternatives is told.
    pub matches: usize,
}

pub(super) struct Finding {
    kind: Kind,
    /// `None` where upstream names no field.
    name: Option<String>,
    value: Option<Value>,
    detail: String,
}

impl Finding {
    pub fn general(text: String) -> Finding {
        Finding { kind: Kind::Invalid, name: None, value: Some(Value::from("")), detail: text }
    }

    fn at(self, base: &str) -> Problem {
        let name = self.name.as_deref().map(|name| name.trim_start_matches('.')).unwrap_or_default();
        let path = match (base.is_empty(), name.is_empty()) {
            (true, true) => "<nil>".to_owned(),
            (false, true) => base.to_owned(),
            (true, false) => name.to_owned(),
            (false, false) => format!("{base}.{name}"),
        };
        Problem { kind: self.kind, path, value: self.value, detail: self.detail }
    }
}

impl Run {
    fn is_valid(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn add(&mut self, finding: Finding) {
        let known =
            |one: &Finding| one.kind == finding.kind && one.name == finding.name && one.detail == finding.detail;
        if self.findings.len() < FINDINGS_MAX && !self.findings.iter().any(known) {
            self.findings.push(finding);
        }
    }

    pub fn invalid(&mut self, path: &str, value: Value, detail: String) {
        self.add(Finding { kind: Kind::Invalid, name: Some(path.to_owned()), value: Some(value), detail });
    }

    fn merge(&mut self, other: Run) {
        self.matches += other.matches;
        for finding in other.findings {
            self.add(finding);
        }
    }
}

/// Checks a part that may have an older one at its place.
fn correlated(schema: &Structural, value: &Value, old: Option<&Value>, path: &mut String) -> Run {
    let mut run = check(schema, value, old, path);
    if !run.is_valid() && old.is_some_and(|old| is_same(schema, value, old)) {
        run.findings.clear();
    }
    run
}

fn check(schema: &Structural, value: &Value, old: Option<&Value>, path: &mut String) -> Run {
    let mut run = Run::default();
    if value.is_null() {
        if has_type(schema) {
            run.matches += 1;
            if !schema.nullable {
                type_error(&mut run, path, &type_names(schema), "null");
            }
        }
        enumeration(schema, value, path, &mut run);
        return run;
    }
    if has_type(schema) || !format_of(schema).is_empty() {
        type_of(schema, value, path, &mut run);
        run.matches += 1;
    }
    junctors(schema, value, old, path, &mut run);
    run.matches += 2;
    match value {
        Value::String(text) => string(schema, text, path, &mut run),
        Value::Number(number) => {
            numbers::check(schema, number, path, &mut run);
            run.matches += 1;
        }
        Value::Array(items) => array(schema, items, old, path, &mut run),
        Value::Object(map) => object(schema, map, old, path, &mut run),
        Value::Null | Value::Bool(_) => {}
    }
    enumeration(schema, value, path, &mut run);
    run.matches += 2;
    run
}

fn has_type(schema: &Structural) -> bool {
    !schema.ty.is_empty() || schema.int_or_string
}

fn type_names(schema: &Structural) -> String {
    if schema.int_or_string { "integer,string".to_owned() } else { schema.ty.clone() }
}

fn allows_type(schema: &Structural, ty: &str) -> bool {
    if schema.int_or_string { matches!(ty, "integer" | "string") } else { schema.ty == ty }
}

/// The format, if it is one that goes with the type; others say nothing.
fn format_of(schema: &Structural) -> &str {
    let format = schema.values.format.as_str();
    let counts = match schema.ty.as_str() {
        _ if schema.int_or_string => false,
        "" | "string" => formats::is_known(format),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    };
    if counts { format } else { "" }
}

fn type_error(run: &mut Run, path: &str, expected: &str, found: &str) {
    let detail = format!("{path} in body must be of type {expected}: {found:?}");
    let value = Some(Value::from(found));
    run.add(Finding { kind: Kind::TypeInvalid, name: Some(path.to_owned()), value, detail });
}

fn type_of(schema: &Structural, value: &Value, path: &str, run: &mut Run) {
    let (ty, format, is_integer) = match value {
        Value::Null => return,
        Value::Bool(_) => ("boolean", "", false),
        Value::String(_) => ("string", "", false),
        Value::Number(number) => match Num::of(number) {
            Num::Int(_) => ("integer", "int64", true),
            float @ Num::Float(_) => ("number", "float64", float.is_integer()),
        },
        Value::Array(_) => ("array", "", false),
        Value::Object(_) => ("object", "", false),
    };
    let wanted = format_of(schema);
    let fits = allows_type(schema, ty)
        || (ty == "number" && is_integer && allows_type(schema, "integer"))
        || (ty == "integer" && allows_type(schema, "number"));
    let textual = matches!(value, Value::String(_) | Value::Array(_));
    if !textual && !wanted.is_empty() && !fits && format != wanted {
        return type_error(run, path, wanted, format);
    }
    let numeric = allows_type(schema, "number") || allows_type(schema, "integer");
    if !numeric && !wanted.is_empty() && textual {
        run.matches += 1;
        return;
    }
    if fits || !has_type(schema) {
        run.matches += 1;
    } else {
        type_error(run, path, &type_names(schema), ty);
    }
}

fn enumeration(schema: &Structural, value: &Value, path: &str, run: &mut Run) {
    let allowed = &schema.values.enumeration;
    let same = |one: &Value| match (one, value) {
        (Value::Null, _) => false,
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    };
    if allowed.is_empty() || allowed.iter().any(same) {
        return;
    }
    let names: Vec<String> =
        allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
    let problem = Problem::not_supported(path, value.clone(), &names);
    run.add(Finding { kind: problem.kind, name: Some(problem.path), value: problem.value, detail: problem.detail });
}

fn string(schema: &Structural, text: &str, path: &str, run: &mut Run) {
    let v = &schema.values;
    run.matches += 1;
    let chars = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(max) = v.max_length.filter(|max| chars() > *max) {
        let problem = Problem::too_long(path, max);
        run.add(Finding { kind: problem.kind, name: Some(problem.path), value: None, detail: problem.detail });
    } else if let Some(min) = v.min_length.filter(|min| chars() < *min) {
        run.invalid(path, text.into(), format!("{path} in body should be at least {min} chars long"));
    } else if let Some(pattern) = &v.pattern {
        match pattern.is_match(text) {
            Some(true) => {}
            Some(false) => run.invalid(path, text.into(), format!("{path} in body should match '{}'", pattern.text())),
            None => {
                let text_of = pattern.text();
                let detail = format!("{path} in body should match '{text_of}, but pattern is invalid'");
                run.invalid(path, text.into(), detail);
            }
        }
    }
    let format = format_of(schema);
    if matches!(schema.ty.as_str(), "" | "string") && !format.is_empty() {
        run.matches += 1;
        if !formats::fits(format, text) {
            let detail = format!("{path} in body must be of type {format}: {text:?}");
            let value = Some(Value::from(text));
            run.add(Finding { kind: Kind::TypeInvalid, name: Some(path.to_owned()), value, detail });
        }
    }
}

fn array(schema: &Structural, items: &[Value], old: Option<&Value>, path: &mut String, run: &mut Run) {
    if let Some(element) = schema.items.as_deref() {
        let olds = Olds::new(schema, old);
        for (index, item) in items.iter().enumerate() {
            let before = olds.find(item);
            let mark = path.len();
            let _ = write!(path, "[{index}]");
            run.merge(correlated(element, item, before, path));
            path.truncate(mark);
        }
    }
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(min) = schema.values.min_items.filter(|min| size < *min) {
        run.invalid(path, size.into(), format!("{path} in body should have at least {min} items"));
    }
    if let Some(max) = schema.values.max_items.filter(|max| size > *max) {
        too_many(path, items.len(), max, run);
    }
    run.matches += 2;
}

fn too_many(path: &str, actual: usize, max: i64, run: &mut Run) {
    let problem = Problem::too_many(path, actual, max);
    run.add(Finding { kind: problem.kind, name: Some(problem.path), value: problem.value, detail: problem.detail });
}

fn object(schema: &Structural, map: &Map<String, Value>, old: Option<&Value>, path: &mut String, run: &mut Run) {
    let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(min) = schema.values.min_properties.filter(|min| size < *min) {
        run.invalid(path, size.into(), format!("{path} in body should have at least {min} properties"));
    }
    if let Some(max) = schema.values.max_properties.filter(|max| size > *max) {
        too_many(path, map.len(), max, run);
    }
    let olds = old.and_then(Value::as_object);
    let at_root = path.is_empty();
    for (name, value) in map {
        let declared = schema.properties.get(name);
        if declared.is_none() && schema.additional == Some(Additional::Any(false)) {
            run.invalid(path, name.as_str().into(), format!("{path}.{name} in body is a forbidden property"));
        }
        let Some(below) = declared.or_else(|| schema.additional_schema()) else { continue };
        // A change of the type is no change of the object: both come in the same version.
        let typed = at_root && matches!(name.as_str(), "kind" | "apiVersion");
        let before = olds.filter(|_| !typed).and_then(|olds| olds.get(name));
        let mark = path.len();
        if !at_root || declared.is_none() {
            path.push('.');
        }
        path.push_str(name);
        run.merge(correlated(below, value, before, path));
        path.truncate(mark);
    }
    for name in schema.values.required.iter().filter(|name| !map.contains_key(name.as_str())) {
        let name = Some(format!("{path}.{name}"));
        run.add(Finding { kind: Kind::Required, name, value: None, detail: String::new() });
    }
    run.matches += 1;
}

fn junctors(schema: &Structural, value: &Value, old: Option<&Value>, path: &mut String, run: &mut Run) {
    let v = &schema.values;
    if !v.any_of.is_empty() {
        match best(&v.any_of, value, old, path, true) {
            (0, failure) => {
                run.add(Finding::general(format!("{path:?} must validate at least one schema (anyOf)")));
                run.merge(failure);
            }
            (_, success) => run.merge(success),
        }
    }
    if !v.one_of.is_empty() {
        let must =
            |found: &str| Finding::general(format!("{path:?} must validate one and only one schema (oneOf). {found}"));
        let none = must("Found none valid");
        match best(&v.one_of, value, old, &mut path.clone(), false) {
            (0, failure) => {
                run.add(none);
                run.merge(failure);
            }
            (1, success) => run.merge(success),
            (many, _) => run.add(must(&format!("Found {many} valid alternatives"))),
        }
    }
    if !v.all_of.is_empty() {
        let mut valid = 0;
        for one in &v.all_of {
            let found = check(one, value, old, path);
            valid += usize::from(found.is_valid());
            run.merge(found);
        }
        if valid != v.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            run.add(Finding::general(format!("{path:?} must validate all the schemas (allOf){none}")));
        }
    }
    if let Some(not) = &v.not
        && check(not, value, old, path).is_valid()
    {
        run.add(Finding::general(format!("{path:?} must not validate the schema (not)")));
    }
}

/// How many alternatives hold, and what the first of them found; or, if none does, what the one found that came
/// closest.
fn best(all: &[Structural], value: &Value, old: Option<&Value>, path: &mut String, first_only: bool) -> (usize, Run) {
    let mut valid = 0;
    let mut chosen: Option<Run> = None;
    for one in all {
        let found = check(one, value, old, path);
        if found.is_valid() {
            valid += 1;
            if valid == 1 {
                chosen = Some(found);
            }
            if first_only {
                break;
            }
        } else if valid == 0 && chosen.as_ref().is_none_or(|chosen| found.matches > chosen.matches) {
            chosen = Some(found);
        }
    }
    (valid, chosen.unwrap_or_default())
}

#[cfg(test)]
mod tests;
