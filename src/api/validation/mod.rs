//! What an object must be to be stored, kind by kind, with upstream's field paths, reasons and texts.
//!
//! Objects come here defaulted, with known fields of the right JSON types (the schema's work); a field of another
//! type counts as missing. Rules of kinds that few write by hand are the essential ones only; each file says which.

use serde_json::Value;

use crate::{failure::FieldError, fields::Fields, format, path::Path, quantity::Quantity};

pub mod access_review;
pub mod api_service;
pub mod apps;
pub mod authorization;
pub mod autoscaling;
pub mod balancer;
pub mod batch;
pub mod claims;
mod conditions;
pub mod config;
pub mod container;
pub mod definition;
mod device_capacity;
pub mod device_rules;
mod device_selectors;
pub mod devices;
mod downward;
pub mod events;
pub mod flowcontrol;
pub mod furniture;
mod job_policies;
pub mod labels;
pub mod lease_candidates;
mod metrics;
mod mounts;
pub mod network;
pub mod node;
mod os;
pub mod placement;
pub mod pod;
mod pod_annotations;
pub mod pod_certificates;
mod pod_claims;
pub mod pod_groups;
mod pod_status;
pub mod policies;
mod probes;
mod projected;
pub mod quotas;
pub mod resources;
mod security;
pub mod service;
pub mod storage;
pub mod storage_versions;
pub mod trust;
mod volume_drivers;
pub mod volumes;
pub mod webhooks;
mod windows;

pub(crate) const IMMUTABLE: &str = "field is immutable";
const NEGATIVE: &str = "must be greater than or equal to 0";

/// Where findings are collected, with the checks that every kind needs.
pub(crate) struct Check<'e> {
    pub errors: &'e mut Vec<FieldError>,
}

impl Check<'_> {
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.errors.push(FieldError::required(path, detail));
    }

    pub fn invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.errors.push(FieldError::invalid(path, value, detail));
    }

    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.errors.push(FieldError::forbidden(path, detail));
    }

    pub fn duplicate(&mut self, path: &Path<'_>, value: &Value) {
        self.errors.push(FieldError::duplicate(path, value));
    }

    pub fn not_found(&mut self, path: &Path<'_>, value: &Value) {
        self.errors.push(FieldError::not_found(path, value));
    }

    pub fn not_supported(&mut self, path: &Path<'_>, value: &Value, supported: &[&str]) {
        self.errors.push(FieldError::not_supported(path, value, supported));
    }

    /// What a format check found.
    pub fn found(&mut self, path: &Path<'_>, value: &str, findings: Vec<String>) {
        for finding in findings {
            self.errors.push(FieldError::invalid(path, &Value::from(value), &finding));
        }
    }

    /// A field that must not be empty.
    pub fn text(&mut self, holder: &Value, path: &Path<'_>, name: &str) -> bool {
        let empty = holder.text(name).is_empty();
        if empty {
            self.required(&path.field(name), "");
        }
        !empty
    }

    /// A field that may be missing and is not below zero.
    pub fn not_negative(&mut self, holder: &Value, path: &Path<'_>, name: &str) {
        if let Some(number) = holder.int(name).filter(|&number| number < 0) {
            self.invalid(&path.field(name), &number.into(), NEGATIVE);
        }
    }

    pub fn in_range(&mut self, holder: &Value, path: &Path<'_>, name: &str, min: i64, max: i64) {
        if let Some(number) = holder.int(name).filter(|number| !(min..=max).contains(number)) {
            self.invalid(&path.field(name), &number.into(), &format::range_text(min, max));
        }
    }

    /// One of `supported`, if it is there.
    pub fn one_of(&mut self, holder: &Value, path: &Path<'_>, name: &str, supported: &[&str]) {
        if let Some(value) = holder.at(name)
            && !value.as_str().is_some_and(|text| supported.contains(&text))
        {
            self.not_supported(&path.field(name), value, supported);
        }
    }

    /// One of `supported`, and there.
    pub fn choice(&mut self, holder: &Value, path: &Path<'_>, name: &str, supported: &[&str]) {
        if self.text(holder, path, name) {
            self.one_of(holder, path, name, supported);
        }
    }

    /// One of `supported`; nothing is as wrong as anything else.
    pub fn choice_or_not_supported(&mut self, holder: &Value, path: &Path<'_>, name: &str, supported: &[&str]) {
        if !supported.contains(&holder.text(name)) {
            self.not_supported(&path.field(name), &holder.text(name).into(), supported);
        }
    }

    /// A domain and a path in it (upstream: `IsDomainPrefixedPath`).
    pub fn domain_prefixed(&mut self, path: &Path<'_>, value: &str) {
        const PATTERN: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
        match value.split_once('/') {
            _ if value.is_empty() => self.required(path, ""),
            Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
                self.found(path, domain, format::dns_subdomain(domain));
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
                if !rest.bytes().all(fits) {
                    let text = format!("Invalid path (regex used for validation is '{PATTERN}')");
                    self.invalid(path, &rest.into(), &text);
                }
            }
            _ => self.invalid(path, &value.into(), "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        }
    }

    /// The same as before, where it was set before or is now.
    pub fn unchanged(&mut self, new: &Value, old: &Value, path: &Path<'_>, name: &str) {
        if !same(new.part(name), old.part(name)) {
            self.invalid(&path.field(name), new.part(name), IMMUTABLE);
        }
    }

    /// A number that is not negative, or a percentage.
    pub fn int_or_percent(&mut self, holder: &Value, path: &Path<'_>, name: &str) {
        match holder.at(name) {
            Some(Value::String(text)) => self.found(&path.field(name), text, format::percent(text)),
            Some(_) => self.not_negative(holder, path, name),
            None => {}
        }
    }

    pub fn at_most_100_percent(&mut self, holder: &Value, path: &Path<'_>, name: &str) {
        let value = holder.part(name);
        if crate::int_or_string::percent(value).is_some_and(|percent| percent > 100) {
            self.invalid(&path.field(name), value, "must not be greater than 100%");
        }
    }

    /// A port by number or by name.
    pub fn port(&mut self, holder: &Value, path: &Path<'_>, name: &str) {
        match holder.part(name) {
            Value::String(text) => self.found(&path.field(name), text, format::port_name(text)),
            number => {
                let port = number.as_i64().unwrap_or_default();
                for finding in format::port_number(port) {
                    self.invalid(&path.field(name), &port.into(), &finding);
                }
            }
        }
    }

    /// A quantity that can be read and is not negative.
    pub fn quantity(&mut self, path: &Path<'_>, value: &Value) -> Option<Quantity> {
        match Quantity::from_value(value) {
            Ok(quantity) if quantity.is_negative() => {
                self.invalid(path, value, NEGATIVE);
                None
            }
            Ok(quantity) => Some(quantity),
            Err(error) => {
                self.invalid(path, value, &error.to_string());
                None
            }
        }
    }
}

/// Fields that are maps or plain structs in Go, where an empty one says no more than none.
const EMPTY_IS_NONE: &[&str] = &[
    "annotations",
    "binaryData",
    "data",
    "labels",
    "limits",
    "matchLabels",
    "metadata",
    "nodeSelector",
    "overhead",
    "parameters",
    "requests",
    "resources",
    "status",
    "strategy",
    "updateStrategy",
];

/// Equal as Go compares API objects (`Semantic.DeepEqual`): a missing field is as good as null, an empty string or an
/// empty list. An empty object mostly says something (`emptyDir: {}`, `podSelector: {}`) and is none only where
/// that is known.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left_fields), Value::Object(right_fields)) => {
            let pair = |name: &String, value: &Value, other: &Value| {
                let none = |value: &Value| {
                    is_none(value) || (is_empty_object(value) && EMPTY_IS_NONE.contains(&name.as_str()))
                };
                same(value, other) || (none(value) && none(other))
            };
            left_fields.iter().all(|(name, value)| pair(name, value, right.part(name)))
                && right_fields
                    .iter()
                    .all(|(name, value)| left_fields.contains_key(name) || pair(name, value, &Value::Null))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        _ => left == right || (is_none(left) && is_none(right)),
    }
}

fn is_empty_object(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn is_none(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// What an integer or percentage counts as when it is only asked whether it is zero.
pub(crate) fn is_zero(value: &Value) -> bool {
    crate::int_or_string::percent(value).or(value.as_i64()).unwrap_or_default() == 0
}

#[cfg(test)]
mod status_tests;
#[cfg(test)]
mod tests;
