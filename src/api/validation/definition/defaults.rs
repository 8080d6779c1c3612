//! Defaults must be values that their schema allows (`schema/defaulting`).

use schema::structural::{self, Problem, Structural};
use serde_json::Value;

use super::Found;
use crate::custom::{embedded, rules::Rules};

/// Checks every default of a structural schema.
pub(super) fn check(schema: &Structural, path: &str, must_be_pruned: bool, found: &mut Found) {
    Defaults { must_be_pruned, cost_left: cel::REQUEST_COST_MAX, found }.below(schema, path, true, false);
}

struct Defaults<'f> {
    must_be_pruned: bool,
    /// What rules may still cost.
    cost_left: u64,
    found: &'f mut Found,
}

impl Defaults<'_> {
    fn below(&mut self, schema: &Structural, path: &str, is_resource: bool, in_metadata: bool) {
        let in_metadata = in_metadata && !schema.embedded_resource;
        let is_resource = is_resource || schema.embedded_resource;
        if let Some(default) = &schema.default {
            self.one(default, schema, &format!("{path}.default"), is_resource, in_metadata);
        }
        if let Some(items) = &schema.items {
            self.below(items, &format!("{path}.items"), false, in_metadata);
        }
        for (name, property) in &schema.properties {
            let meta = is_resource && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
            self.below(property, &format!("{path}.properties[{name}]"), false, in_metadata || meta);
        }
    }

    fn one(&mut self, default: &Value, schema: &Structural, path: &str, is_resource: bool, in_metadata: bool) {
        let found = &mut *self.found;
        if !in_metadata && self.must_be_pruned && is_unpruned(default, schema) {
            found.push(Problem::invalid(path, default.clone(), "must not have unknown fields"));
        }
        let before = found.len();
        if !in_metadata {
            match embedded::coerce(&mut default.clone(), schema) {
                Err(error) => found.push(error),
                Ok(_) => embedded::validate(default, schema, &mut found.errors),
            }
        }
        if found.len() == before {
            found.extend(structural::validate(default, schema, None, path));
        }
        if found.len() == before
            && let Some(rules) = Rules::new(schema, is_resource)
        {
            found.extend(rules.check_default(default, schema, path, &mut self.cost_left));
        }
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
