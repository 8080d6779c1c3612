//! How custom resources are completed, checked and shown (`registry/customresource`).

use std::borrow::Cow;

use jiff::Timestamp;
use schema::structural::{self, Structural};
use serde_json::{Value, json};

use super::jsonpath::JsonPath;
use super::{Compiled, Scale, Version, embedded};
use crate::{failure::FieldError, fields::Fields, format, print, print::Column, strategy, strategy::Strategy};

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// Reasons after which no rules are run.
const BLOCKS_RULES: [&str; 5] =
    ["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];
const RULES_NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the \
                                 existing errors to complete validation";

impl Version {
    /// The compiled version.
    pub fn compiled(&self) -> Option<&Compiled> {
        self.definition.versions.get(&self.name)
    }

    fn schema(&self) -> Option<&Structural> {
        self.compiled()?.schema.as_ref()
    }

    fn has_status(&self) -> bool {
        self.compiled().is_some_and(|compiled| compiled.has_status)
    }

    /// Takes out of a request's object what the schema does not know, and wrong nulls; returns the paths of unknown
    /// fields. Metadata is the caller's.
    pub fn coerce(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        let Some(schema) = self.schema() else { return Ok(Vec::new()) };
        let mut unknown = Vec::new();
        if !self.definition.preserve_unknown_fields {
            unknown = structural::prune(object, schema, true);
            super::drop_nulls(object, schema);
        }
        unknown.extend(embedded::coerce(object, schema)?);
        Ok(unknown)
    }

    fn check(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let first = errors.len();
        let scale = self.compiled().and_then(|compiled| compiled.scale.as_ref());
        if let Some(schema) = self.schema() {
            errors.extend(structural::validate(object, schema, old, "").into_iter().map(FieldError::from));
        }
        if let Some(scale) = scale {
            check_replicas(object, &scale.spec_replicas_path, errors);
            check_scale_status(object, scale, errors);
        }
        if let Some(schema) = self.schema() {
            embedded::validate(object, schema, errors);
            check_lists(object, old, schema, errors);
        }
        self.check_rules(object, old, first, errors);
    }

    fn check_status(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let first = errors.len();
        let status_schema = self.schema().and_then(|schema| schema.properties.get("status"));
        if let (Some(status), Some(schema)) = (object.get("status"), status_schema) {
            let found = structural::validate(status, schema, old.get("status"), "status");
            errors.extend(found.into_iter().map(FieldError::from));
        }
        if let Some(scale) = self.compiled().and_then(|compiled| compiled.scale.as_ref()) {
            check_scale_status(object, scale, errors);
        }
        if let Some(schema) = self.schema() {
            check_lists(object, Some(old), schema, errors);
        }
        self.check_rules(object, Some(old), first, errors);
    }

    /// Rules count on the schema: after findings that say that it does not hold they are not run.
    fn check_rules(&self, object: &Value, old: Option<&Value>, first: usize, errors: &mut Vec<FieldError>) {
        let compiled = self.compiled();
        let Some(rules) = compiled.and_then(Compiled::rules) else { return };
        let Some(schema) = self.schema() else { return };
        if errors.get(first..).unwrap_or_default().iter().any(|error| BLOCKS_RULES.contains(&error.reason)) {
            errors.push(FieldError::invalid("<nil>", &Value::Null, RULES_NOT_CHECKED));
        } else {
            errors.extend(rules.check(object, schema, old));
        }
    }
}

/// Duplicates that were there before do not refuse an update.
fn check_lists(object: &Value, old: Option<&Value>, schema: &Structural, errors: &mut Vec<FieldError>) {
    let found = structural::unique(object, schema);
    if !found.is_empty() && old.is_none_or(|old| structural::unique(old, schema).is_empty()) {
        errors.extend(found.into_iter().map(FieldError::from));
    }
}

fn check_replicas(object: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match at(object, path) {
        None => {}
        Some(value) => match value.as_i64() {
            None => {
                let text =
                    format!("{path} accessor error: {} is of the type {}, expected int64", go(value), go_type(value));
                errors.push(FieldError::invalid(path, &json!(0), &text));
            }
            Some(replicas) if replicas < 0 => {
                errors.push(FieldError::invalid(path, value, "should be a non-negative integer"));
            }
            Some(replicas) if replicas > i64::from(i32::MAX) => {
                let text = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(path, value, &text));
            }
            Some(_) => {}
        },
    }
}

fn check_scale_status(object: &Value, scale: &Scale, errors: &mut Vec<FieldError>) {
    check_replicas(object, &scale.status_replicas_path, errors);
    if let Some(path) = &scale.label_selector_path
        && let Some(value) = at(object, path).filter(|value| !value.is_string())
    {
        let text = format!("{path} accessor error: {} is of the type {}, expected string", go(value), go_type(value));
        errors.push(FieldError::invalid(path.as_str(), &json!(""), &text));
    }
}

/// The value at a path such as `.spec.replicas`.
pub(crate) fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    Scale::parts(path).into_iter().try_fold(object, |value, name| value.get(name))
}

fn go(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

impl Strategy for Version {
    fn default(&self, object: &mut Value) {
        if let Some(schema) = self.schema() {
            structural::default(object, schema);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.has_status() {
            object.unset("status");
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>) {
        match subresource {
            None | Some("scale") if self.has_status() => strategy::keep(object, old, "status"),
            Some("status") => {
                let owners = object.part("metadata").part("managedFields").clone();
                let version = object.part("metadata").part("resourceVersion").clone();
                let status = object.at("status").cloned();
                *object = old.clone();
                if let Some(metadata) = object.object("metadata") {
                    metadata.set("resourceVersion", version);
                    if owners.is_null() {
                        metadata.unset("managedFields");
                    } else {
                        metadata.set("managedFields", owners);
                    }
                }
                match status {
                    Some(status) => object.set("status", status),
                    None => object.unset("status"),
                }
            }
            _ => {}
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        self.check(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
        if subresource == Some("status") {
            self.check_status(object, old, errors);
        } else {
            self.check(object, Some(old), errors);
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let before = old.map(|old| old.part("metadata").list("finalizers")).unwrap_or_default();
        let mut new: Vec<&str> = object
            .part("metadata")
            .list("finalizers")
            .iter()
            .filter(|one| !before.contains(one))
            .filter_map(Value::as_str)
            .collect();
        new.sort_unstable();
        new.into_iter().flat_map(finalizer_warnings).collect()
    }

    fn to_storage(&self, object: &mut Value) {
        self.definition.prune(object, &self.definition.storage_version);
    }

    fn to_served(&self, object: &mut Value) {
        self.definition.as_read(object);
        self.definition.prune(object, &self.name);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(self.compiled().map(|compiled| compiled.columns.as_slice()).unwrap_or_default())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let Some(compiled) = self.compiled() else { return Vec::new() };
        let name = Value::from(object.part("metadata").text("name"));
        let others = compiled.columns.iter().skip(1).zip(&compiled.paths);
        std::iter::once(name).chain(others.map(|(column, path)| cell(&column.kind, path.first(object), now))).collect()
    }
}

fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    let warning = |text: &str| format!("metadata.finalizers: {finalizer:?}: {text}");
    let mut warnings: Vec<String> = format::label_key(finalizer).iter().map(|finding| warning(finding)).collect();
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        warnings.push(warning(if finalizer.contains('.') {
            "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
        } else {
            "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
        }));
    }
    warnings
}

/// The columns of a version and, but for the name, where their cells come from. Without any it is the age.
pub(super) fn columns(declared: &[Value]) -> (Vec<Column>, Vec<JsonPath>) {
    let age = [json!({
        "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        "description": "Time since the object was created.",
    })];
    let declared = if declared.is_empty() { age.as_slice() } else { declared };
    let mut columns = vec![Column::name()];
    let mut paths = Vec::new();
    for column in declared {
        let text = column.text("jsonPath");
        // A path that cannot be read leaves what stands before it, as upstream has it.
        let Ok(path) = JsonPath::parse(text) else { break };
        let description = match column.text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {text}"),
            description => description.to_owned(),
        };
        columns.push(Column {
            name: column.text("name").to_owned().into(),
            kind: column.text("type").to_owned().into(),
            format: column.text("format").to_owned().into(),
            description: description.into(),
            priority: i32::try_from(column.int("priority").unwrap_or_default()).unwrap_or_default(),
        });
        paths.push(path);
    }
    (columns, paths)
}

fn cell(kind: &str, value: Option<&Value>, now: Timestamp) -> Value {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Value::Null };
    match (kind, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => int.into(),
            #[expect(clippy::cast_possible_truncation, reason = "cut off as upstream cuts it off")]
            (None, Some(float)) => (float as i64).into(),
            (None, None) => Value::Null,
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(_) => print::age(Some(text), now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
