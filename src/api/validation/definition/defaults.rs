//! Defaults must be values that their schema allows (`schema/defaulting`).

use schema::structural::{self, Problem, Structural};
use serde_json::Value;

use super::Found;
use crate::custom::embedded;

/// Checks every default of a structural schema.
pub(super) fn check(schema: &Structural, path: &str, must_be_pruned: bool, found: &mut Found) {
    below(schema, path, true, false, must_be_pruned, found);
}

fn below(
    schema: &Structural,
    path: &str,
    is_resource: bool,
    in_metadata: bool,
    must_be_pruned: bool,
    found: &mut Found,
) {
    let in_metadata = in_metadata && !schema.embedded_resource;
    if let Some(default) = &schema.default {
        let path = format!("{path}.default");
        if !in_metadata {
            if must_be_pruned && is_unpruned(default, schema) {
                let text = "must not have unknown fields";
                found.push(Problem::invalid(path.as_str(), default.clone(), text));
            }
            match embedded::coerce(&mut default.clone(), schema) {
                Err(error) => found.push(error),
                Ok(_) => embedded::validate(default, schema, &mut found.errors),
            }
        }
        found.extend(structural::validate(default, schema, None, &path));
    }
    if let Some(items) = &schema.items {
        below(items, &format!("{path}.items"), false, in_metadata, must_be_pruned, found);
    }
    for (name, property) in &schema.properties {
        let meta =
            (is_resource || schema.embedded_resource) && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        let path = format!("{path}.properties[{name}]");
        below(property, &path, false, in_metadata || meta, must_be_pruned, found);
    }
}

fn is_unpruned(default: &Value, schema: &Structural) -> bool {
    let mut pruned = default.clone();
    structural::prune(&mut pruned, schema, schema.embedded_resource);
    pruned != *default
}

/// Whether no default of a schema has unknown fields; true where that cannot be said.
pub(super) fn are_pruned(json: &Value) -> bool {
    let Ok(schema) = Structural::parse(json) else { return true };
    let mut unpruned =
        |schema: &Structural| schema.default.as_ref().is_some_and(|default| is_unpruned(default, schema));
    !schema.any(&mut unpruned)
}
