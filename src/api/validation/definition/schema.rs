//! The schema of a version: what no schema of a custom resource may have, and what its extensions ask for.

use std::collections::BTreeSet;

use schema::structural::{self, Problem, Structural};
use serde_json::Value;

use super::expressions::{Expressions, Node};
use super::{Found, Rules, defaults, field_path};
use crate::{custom::rules::Declared, fields::Fields};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// Fields of a schema's root that keep a status' part of it whole, in Go's names.
const ROOT_FIELDS: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
                           MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties \
                           ExternalDocs Example XPreserveUnknownFields XValidations]";
/// The others.
const NOT_AT_ROOT: [&str; 22] = [
    "$ref",
    "$schema",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "default",
    "definitions",
    "dependencies",
    "enum",
    "id",
    "maxProperties",
    "minProperties",
    "not",
    "nullable",
    "oneOf",
    "patternProperties",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];

/// Checks `schema` of a version, or what stands for that of all. `version` is the version's name, the first's for all.
pub(super) fn check(
    validation: &Value,
    path: &str,
    version: &str,
    status: bool,
    spec: &Value,
    rules: &Rules,
    found: &mut Found,
) {
    let Some(schema) = validation.at("openAPIV3Schema") else { return };
    let first = found.len();
    let path = format!("{path}.openAPIV3Schema");
    if status {
        check_root(schema, &path, found);
    }
    if schema.flag("nullable") {
        found.push(Problem::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut unreadable = None;
    let mut sound = None;
    let must_be_structural = rules.structural
        || !spec.flag("preserveUnknownFields")
        || any(spec, |schema| schema.has("default") || has_extensions(schema));
    if must_be_structural {
        match Structural::parse(schema) {
            Err(error) => unreadable = Some(Problem::invalid(path.as_str(), "", error)),
            Ok(parsed) => {
                let problems = structural::check(&parsed, &path);
                if problems.is_empty() {
                    let before = found.len();
                    defaults::check(&parsed, &path, rules.pruned_defaults, found);
                    sound = (found.len() == before).then_some(parsed);
                } else {
                    found.extend(problems);
                }
            }
        }
    }
    // Only of a sound schema it can be told what expressions see.
    let declared = sound.as_ref().map(|schema| (schema, Declared::new(schema, true)));
    let node = declared.as_ref().map(|(schema, declared)| Node::root(schema, declared));
    let place = Place { defaults_forbidden: None, in_metadata: false, uncorrelatable: None, node };
    let mut expressions = Expressions::default();
    expressions.costs_are_old = rules.unchanged_schemas.contains(version);
    walk(schema, &path, &place, true, rules, &mut expressions, found);
    found.extend(std::mem::take(&mut expressions.errors));
    if found.len() == first
        && let Some(problem) = unreadable
    {
        found.push(problem);
    }
    found.extend(expressions.total(&path));
}

fn check_root(schema: &Value, path: &str, found: &mut Found) {
    let kind = schema.text("type");
    if !kind.is_empty() && kind != "object" {
        let text =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        found.push(Problem::invalid(format!("{path}.type"), kind, text));
    } else if NOT_AT_ROOT.iter().any(|name| is_set(schema.part(name))) {
        let text = format!(
            "only {ROOT_FIELDS} fields are allowed at the root of the schema if the status subresource is enabled"
        );
        found.push(Problem::invalid(path, schema.clone(), text));
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// Where in the schema this is.
#[derive(Clone)]
struct Place<'s> {
    /// Why there may be no defaults.
    defaults_forbidden: Option<String>,
    /// In the type or metadata of the object or of an embedded one.
    in_metadata: bool,
    /// The list in which elements have no keys by which their older values can be told.
    uncorrelatable: Option<String>,
    /// Where rules are to be compiled: not below `allOf` and the like, and not in what is not structural.
    node: Option<Node<'s>>,
}

fn walk(
    schema: &Value,
    path: &str,
    place: &Place<'_>,
    is_root: bool,
    rules: &Rules,
    expressions: &mut Expressions,
    found: &mut Found,
) {
    if !schema.is_object() {
        return;
    }
    let before = found.len();
    check_keywords(schema, path, place, rules, found);
    if let Some(additional) = schema.at("additionalProperties") {
        let has_properties = schema.map("properties").is_some_and(|map| !map.is_empty());
        if has_properties && *additional != Value::Bool(true) {
            let text = "additionalProperties and properties are mutual exclusive";
            found.push(Problem::forbidden(format!("{path}.additionalProperties"), text));
        }
        let mut place = Place { node: place.node.and_then(Node::additional), ..place.clone() };
        if place.in_metadata {
            place.defaults_forbidden = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        walk(additional, &format!("{path}.additionalProperties"), &place, false, rules, expressions, found);
    }
    for (name, property) in schema.map("properties").into_iter().flatten() {
        let mut place = Place { node: place.node.and_then(|node| node.field(name)), ..place.clone() };
        let is_meta = matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        if is_meta && (is_root || schema.flag("x-kubernetes-embedded-resource")) {
            place.in_metadata = true;
            if is_root {
                place.defaults_forbidden = Some(format!("in top-level {name}"));
            }
        }
        walk(property, &format!("{path}.properties[{name}]"), &place, false, rules, expressions, found);
    }
    let nested = Place { node: None, ..place.clone() };
    walk(schema.part("not"), &format!("{path}.not"), &nested, false, rules, expressions, found);
    for name in ["allOf", "oneOf", "anyOf"] {
        for (index, one) in schema.list(name).iter().enumerate() {
            walk(one, &format!("{path}.{name}[{index}]"), &nested, false, rules, expressions, found);
        }
    }
    for (name, definition) in schema.map("definitions").into_iter().flatten() {
        walk(definition, &format!("{path}.definitions[{name}]"), &nested, false, rules, expressions, found);
    }
    let mut inner = Place { node: place.node.and_then(Node::items), ..place.clone() };
    if schema.text("x-kubernetes-list-type") != "map" {
        inner.uncorrelatable = Some(path.to_owned());
    }
    match schema.part("items") {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{path}.items[{index}]"), &inner, false, rules, expressions, found);
            }
        }
        items => walk(items, &format!("{path}.items"), &inner, false, rules, expressions, found),
    }
    check_extensions(schema, path, rules, found);
    if rules.map_keys {
        found.extend(map_key_problems(schema, path));
    }
    check_rules(schema, path, found);
    if let Some(node) = place.node
        && found.len() == before
    {
        expressions.check(node, schema, path, place.uncorrelatable.as_deref());
    }
}

fn check_keywords(schema: &Value, path: &str, place: &Place<'_>, rules: &Rules, found: &mut Found) {
    if rules.property_types && !has_known_type(schema) {
        found.push(Problem::not_supported(format!("{path}.type"), schema.text("type"), &TYPES));
    }
    let mut forbid = |is_set: bool, name: &str, text: &str| {
        if is_set {
            found.push(Problem::forbidden(format!("{path}.{name}"), text));
        }
    };
    if let Some(reason) = &place.defaults_forbidden {
        forbid(schema.has("default"), "default", &format!("must not be set {reason}"));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let there = if matches!(name, "additionalItems" | "dependencies" | "$ref") {
            schema.has(name)
        } else {
            is_set(schema.part(name))
        };
        forbid(there, name, &format!("{name} is not supported"));
    }
    let null = schema.text("type") == "null";
    forbid(null, "type", "type cannot be set to null, use nullable as an alternative");
    let list = schema.part("items").as_array().is_some_and(|items| !items.is_empty());
    forbid(list, "items", "items must be a schema object and not an array");
    let embedded = place.in_metadata && schema.flag("x-kubernetes-embedded-resource");
    forbid(embedded, "x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    let text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
    forbid(schema.flag("uniqueItems"), "uniqueItems", text);
}

pub(super) fn has_known_type(schema: &Value) -> bool {
    let kind = schema.text("type");
    kind.is_empty() || TYPES.contains(&kind)
}

fn has_extensions(schema: &Value) -> bool {
    schema.flag("x-kubernetes-embedded-resource")
        || schema.has("x-kubernetes-preserve-unknown-fields")
        || schema.flag("x-kubernetes-int-or-string")
        || !schema.list("x-kubernetes-list-map-keys").is_empty()
        || schema.has("x-kubernetes-list-type")
        || !schema.list("x-kubernetes-validations").is_empty()
}

/// A set whose elements have parts with owners of their own; the field that says so.
pub(super) fn set_of_parts(schema: &Value) -> Option<&'static str> {
    if schema.text("x-kubernetes-list-type") != "set" {
        return None;
    }
    let items = schema.part("items");
    match items.text("type") {
        "array" if !matches!(items.text("x-kubernetes-list-type"), "" | "atomic") => Some("x-kubernetes-list-type"),
        "object" if items.text("x-kubernetes-map-type") != "atomic" => Some("x-kubernetes-map-type"),
        _ => None,
    }
}

fn check_extensions(schema: &Value, path: &str, rules: &Rules, found: &mut Found) {
    if schema.part("x-kubernetes-preserve-unknown-fields") == &Value::Bool(false) {
        let path = format!("{path}.x-kubernetes-preserve-unknown-fields");
        found.push(Problem::invalid(path, false, "must be true or undefined"));
    }
    let kind = schema.text("type");
    let needs = |name: &str, wanted: &str, found: &mut Found| {
        if !schema.has(name) || kind == wanted {
            return;
        }
        let path = format!("{path}.type");
        let text = format!("must be {wanted} if {name} is specified");
        found.push(if kind.is_empty() { Problem::required(path, text) } else { Problem::invalid(path, kind, text) });
    };
    needs("x-kubernetes-map-type", "object", found);
    let supported = |name: &str, values: &[&str], found: &mut Found| {
        let value = schema.text(name);
        if schema.has(name) && !values.contains(&value) {
            found.push(Problem::not_supported(format!("{path}.{name}"), value, values));
        }
    };
    supported("x-kubernetes-map-type", &["atomic", "granular"], found);
    needs("x-kubernetes-list-type", "array", found);
    if rules.atomic_sets
        && kind == "array"
        && let Some(field) = set_of_parts(schema)
    {
        let text = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let value = schema.part("items").part("x-kubernetes-list-type").clone();
        found.push(Problem::invalid(format!("{path}.items.{field}"), value, text));
    }
    supported("x-kubernetes-list-type", &["atomic", "set", "map"], found);
    check_list_map(schema, path, found);
}

fn check_list_map(schema: &Value, path: &str, found: &mut Found) {
    let keys = schema.list("x-kubernetes-list-map-keys");
    let list_type = schema.text("x-kubernetes-list-type");
    if !keys.is_empty() && list_type != "map" {
        let path = format!("{path}.x-kubernetes-list-type");
        let text = "must be map if x-kubernetes-list-map-keys is non-empty";
        found.push(if schema.has("x-kubernetes-list-type") {
            Problem::invalid(path, list_type, text)
        } else {
            Problem::required(path, text)
        });
    }
    if list_type != "map" {
        return;
    }
    let keys_path = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let text = "must not be empty if x-kubernetes-list-type is map";
        found.push(Problem::required(keys_path.as_str(), text));
    }
    let items = schema.part("items");
    match items {
        Value::Null => {
            let text = "must have a schema if x-kubernetes-list-type is map";
            found.push(Problem::required(format!("{path}.items"), text));
        }
        Value::Array(_) => {
            let text = "must only have a single schema if x-kubernetes-list-type is map";
            found.push(Problem::invalid(format!("{path}.items"), items.clone(), text));
        }
        _ if items.text("type") != "object" => {
            let text = "must be object if parent array's x-kubernetes-list-type is map";
            found.push(Problem::invalid(format!("{path}.items.type"), items.text("type"), text));
        }
        _ => {
            let mut seen = BTreeSet::new();
            for key in keys.iter().filter_map(Value::as_str) {
                match items.part("properties").at(key) {
                    Some(property) if matches!(property.text("type"), "array" | "object") => {
                        let path = format!("{path}.items.properties[{key}].type");
                        let text = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                        found.push(Problem::invalid(path, items.text("type"), text));
                    }
                    Some(_) => {}
                    None => {
                        let text = "entries must all be names of item properties";
                        found.push(Problem::invalid(keys_path.as_str(), keys.to_vec(), text));
                    }
                }
                if !seen.insert(key) {
                    let text = "must not contain duplicate entries";
                    found.push(Problem::invalid(keys_path.as_str(), keys.to_vec(), text));
                }
            }
        }
    }
}

/// Elements of sets and maps, and the keys of maps, must be there.
pub(super) fn map_key_problems(schema: &Value, path: &str) -> Vec<Problem> {
    let mut found = Vec::new();
    let list_type = schema.text("x-kubernetes-list-type");
    let items = schema.part("items");
    if !items.is_object() || !matches!(list_type, "set" | "map") {
        return found;
    }
    if items.flag("nullable") {
        let text = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        found.push(Problem::forbidden(format!("{path}.items.nullable"), text));
    }
    if list_type == "set" {
        return found;
    }
    let required = items.list("required");
    for key in schema.list("x-kubernetes-list-map-keys") {
        let Some(name) = key.as_str() else { continue };
        let Some(property) = items.part("properties").at(name) else { continue };
        let path = format!("{path}.items.properties[{name}]");
        if !required.contains(key) && !property.has("default") {
            let text =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            found.push(Problem::required(format!("{path}.default"), text));
        }
        if property.flag("nullable") {
            let text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            found.push(Problem::forbidden(format!("{path}.nullable"), text));
        }
    }
    found
}

/// What can be said of rules without reading their expressions.
fn check_rules(schema: &Value, path: &str, found: &mut Found) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (index, rule) in schema.list("x-kubernetes-validations").iter().enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{index}]");
        let (text, message) = (rule.text("rule").trim(), rule.text("message"));
        if text.is_empty() {
            found.push(Problem::required(format!("{path}.rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            found.push(Problem::invalid(format!("{path}.message"), message, "must be non-empty if specified"));
        } else if breaks(message.trim()) {
            found.push(Problem::invalid(format!("{path}.message"), message, "must not contain line breaks"));
        } else if breaks(text) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            found.push(Problem::required(format!("{path}.message"), why));
        }
        let expression = rule.text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            found.push(Problem::required(format!("{path}.messageExpression"), why));
        }
        if let Some(reason) = rule.at("reason").and_then(Value::as_str).filter(|one| !REASONS.contains(one)) {
            found.push(Problem::not_supported(format!("{path}.reason"), reason, &REASONS));
        }
        let field = rule.text("fieldPath");
        if field.is_empty() {
            continue;
        }
        let path = format!("{path}.fieldPath");
        if field.trim().is_empty() {
            found.push(Problem::invalid(path.as_str(), field, "must be non-empty if specified"));
        }
        if breaks(field) {
            found.push(Problem::invalid(path.as_str(), field, "must not contain line breaks"));
        }
        if let Ok(parsed) = Structural::parse(schema)
            && field_path(field, &parsed, true).is_err()
        {
            found.push(Problem::invalid(path, field, "must be a valid path"));
        }
    }
}

/// Whether any schema of any version is as asked for.
pub(super) fn any(spec: &Value, wanted: impl Fn(&Value) -> bool) -> bool {
    let mut found = false;
    for version in spec.list("versions") {
        every_schema(version.part("schema").part("openAPIV3Schema"), &mut |schema| found |= wanted(schema));
    }
    found
}

/// Visits a schema and all that it is made of.
pub fn every_schema(schema: &Value, visit: &mut dyn FnMut(&Value)) {
    if !schema.is_object() {
        return;
    }
    visit(schema);
    for name in ["items", "not", "additionalProperties", "additionalItems"] {
        match schema.part(name) {
            Value::Array(all) => all.iter().for_each(|one| every_schema(one, visit)),
            one => every_schema(one, visit),
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.list(name).iter().for_each(|one| every_schema(one, visit));
    }
    for name in ["properties", "patternProperties", "definitions", "dependencies"] {
        schema.map(name).into_iter().flatten().for_each(|(_, one)| every_schema(one, visit));
    }
}
