//! Schemas that come at run time: those of custom resources.
//!
//! A schema is a `JSONSchemaProps` of a CustomResourceDefinition. It is *structural* when it says for every field
//! what it is, apart from what values it may have ([`check`]); only then can unknown fields be pruned, defaults be
//! filled in and values be validated field by field. Upstream: `apiextensions-apiserver/pkg/apiserver/schema` and,
//! for the values, kube-openapi's `validation/validate`.
//!
//! | module | what |
//! |---|---|
//! | [`parse`] | a schema from its JSON |
//! | [`invariants`] | whether it is structural |
//! | [`prune`] | takes out what it does not know, and nulls that may not be |
//! | [`default`] | fills in defaults |
//! | [`values`] | checks values, with or without their predecessors |
//! | [`older`] | which part of an older value is at the same place, and whether it is the same |
//! | [`lists`] | sets without duplicates, maps with unique keys |
//! | [`types`] | the schema as [`crate::Types`], for field ownership |
//! | [`publish`] | the schema in OpenAPI documents |
//!
//! Limitation: `uniqueItems`, which definitions may not have, is not looked at.

mod default;
mod formats;
mod invariants;
mod lists;
mod numbers;
mod older;
mod parse;
mod pattern;
mod problem;
mod prune;
mod publish;
mod types;
mod values;

use std::collections::BTreeMap;

use serde_json::Value;

pub use default::{default, drop_nulls};
pub use formats::is_known as is_known_format;
pub use invariants::check;
pub use lists::unique;
pub use older::{Olds, is_same};
pub use pattern::Pattern;
pub use problem::{Kind, Problem};
pub use prune::prune;
pub use publish::{publish_v2, publish_v3};
pub use values::validate;

/// A schema, or a part of one. Parts below `allOf`, `anyOf`, `oneOf` and `not` have the same form; [`check`] sees to it
/// that they say nothing but which values are allowed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Structural {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty.
    pub ty: String,
    pub description: String,
    pub title: String,
    pub default: Option<Value>,
    pub nullable: bool,
    pub external_docs: Option<Value>,
    pub example: Option<Value>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-list-type`
    pub list_type: Option<String>,
    /// `x-kubernetes-map-type`
    pub map_type: Option<String>,
    /// `x-kubernetes-validations`
    pub rules: Vec<Rule>,
    pub items: Option<Box<Structural>>,
    pub properties: BTreeMap<String, Structural>,
    pub additional: Option<Additional>,
    pub values: Constraints,
}

/// `additionalProperties`
#[derive(Debug, Clone, PartialEq)]
pub enum Additional {
    Any(bool),
    Schema(Box<Structural>),
}

/// Which values are allowed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Constraints {
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    pub enumeration: Vec<Value>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<String>,
    pub all_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

/// One of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    /// `FieldValueInvalid` where it is none.
    pub reason: Option<String>,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

/// Fields that every object has, whatever its schema says.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Structural {
    /// The schema of elements that `additionalProperties` has.
    pub fn additional_schema(&self) -> Option<&Structural> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            Some(Additional::Any(_)) | None => None,
        }
    }

    /// The schema of a field: the declared one, or that of all others.
    pub fn field(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name).or_else(|| self.additional_schema())
    }

    /// Whether this schema or any below it, also below `allOf` and its like, is as asked for.
    pub fn any(&self, wanted: &mut dyn FnMut(&Structural) -> bool) -> bool {
        wanted(self)
            || self.children().any(|child| child.any(wanted))
            || self.values.junctors().any(|child| child.any(wanted))
    }

    /// The schemas of fields and elements.
    pub fn children(&self) -> impl Iterator<Item = &Structural> {
        self.items.as_deref().into_iter().chain(self.properties.values()).chain(self.additional_schema())
    }

    /// Whether elements of the two lists can be told to be the same (`x-kubernetes-list-type: map`).
    pub fn is_keyed_list(&self) -> bool {
        self.list_type.as_deref() == Some("map") && !self.list_map_keys.is_empty()
    }
}

impl Constraints {
    /// The schemas below `allOf`, `anyOf`, `oneOf` and `not`.
    pub fn junctors(&self) -> impl Iterator<Item = &Structural> {
        self.all_of.iter().chain(&self.any_of).chain(&self.one_of).chain(self.not.as_deref())
    }
}
