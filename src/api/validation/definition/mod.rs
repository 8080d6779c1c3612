//! CustomResourceDefinitions (`apis/apiextensions/validation`).
//!
//! Upstream checks an internal form of the object, in which what all versions have in common stands once beside them
//! (`spec.validation`, `spec.subresources`, ...) and the webhook's configuration lies flat; the paths in findings are
//! that form's. An update is not refused for what was wrong before.

mod conversion;
mod defaults;
mod expressions;
mod fields;
mod schema;
mod spec;

use std::collections::BTreeSet;

use ::schema::structural::{self, Problem, Structural};
use serde_json::Value;

use crate::{custom::status, failure::FieldError, fields::Fields, format};

pub use fields::{FieldPath, field_path};
pub use schema::every_schema;

/// What was found.
#[derive(Default)]
pub(crate) struct Found {
    errors: Vec<FieldError>,
}

impl Found {
    fn push(&mut self, finding: impl Into<FieldError>) {
        self.errors.push(finding.into());
    }

    fn extend<F: Into<FieldError>>(&mut self, findings: impl IntoIterator<Item = F>) {
        self.errors.extend(findings.into_iter().map(Into::into));
    }

    fn len(&self) -> usize {
        self.errors.len()
    }
}

/// What is asked of a definition; for an update, less of what was wrong before.
pub(crate) struct Rules {
    recognized_review_version: bool,
    immutable_names: bool,
    schemas_required: bool,
    property_types: bool,
    structural: bool,
    pruned_defaults: bool,
    atomic_sets: bool,
    map_keys: bool,
    invalid_ca_bundle: bool,
    /// Versions that may keep too many selectable fields; the empty name is that of all.
    too_many_selectable: BTreeSet<String>,
    /// Versions whose schema is what it was.
    unchanged_schemas: BTreeSet<String>,
}

impl Rules {
    const CREATE: Rules = Rules {
        recognized_review_version: true,
        immutable_names: false,
        schemas_required: true,
        property_types: true,
        structural: true,
        pruned_defaults: true,
        atomic_sets: true,
        map_keys: true,
        invalid_ca_bundle: true,
        too_many_selectable: BTreeSet::new(),
        unchanged_schemas: BTreeSet::new(),
    };

    fn update(object: &Value, old: &Value) -> Rules {
        let before = old.part("spec");
        let has = |wanted: &dyn Fn(&Value) -> bool| {
            let mut found = false;
            for version in before.list("versions") {
                every_schema(version.part("schema").part("openAPIV3Schema"), &mut |schema| found |= wanted(schema));
            }
            found
        };
        let all_versions = |wanted: &dyn Fn(&Value) -> bool| {
            before.list("versions").iter().map(|one| one.part("schema").part("openAPIV3Schema")).all(wanted)
        };
        let review_versions = before.part("conversion").part("webhook").list("conversionReviewVersions");
        let spoken =
            |one: &Value| one.as_str().is_some_and(|one| crate::custom::conversion::REVIEW_VERSIONS.contains(&one));
        let bundle = before.part("conversion").part("webhook").part("clientConfig").text("caBundle");
        let established = status::is_true(old, status::ESTABLISHED);
        Rules {
            recognized_review_version: review_versions.is_empty() || review_versions.iter().any(spoken),
            immutable_names: established,
            schemas_required: all_versions(&|schema| !schema.is_null()),
            property_types: !has(&|schema| !schema::has_known_type(schema)),
            structural: all_versions(&|json| {
                json.is_null() || Structural::parse(json).is_ok_and(|schema| structural::check(&schema, "").is_empty())
            }),
            pruned_defaults: all_versions(&|json| json.is_null() || defaults::are_pruned(json)),
            atomic_sets: !has(&|schema| schema::set_of_parts(schema).is_some()),
            map_keys: !has(&|schema| !schema::map_key_problems(schema, "").is_empty()),
            invalid_ca_bundle: !established || (!bundle.is_empty() && !status::is_ca_bundle(bundle)),
            too_many_selectable: fields::too_many_before(object.part("spec"), before),
            unchanged_schemas: unchanged_schemas(object.part("spec"), before),
        }
    }
}

fn unchanged_schemas(spec: &Value, before: &Value) -> BTreeSet<String> {
    let is_old = |version: &&Value| {
        let same =
            |old: &Value| old.part("name") == version.part("name") && old.part("schema") == version.part("schema");
        before.list("versions").iter().any(same)
    };
    spec.list("versions").iter().filter(is_old).map(|version| version.text("name").to_owned()).collect()
}

/// What a new definition must be.
pub fn create(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = object.part("spec");
    let name = object.part("metadata").text("name");
    if name != format!("{}.{}", spec.part("names").text("plural"), spec.text("group")) {
        let text = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &name.into(), text));
    }
    let mut found = Found::default();
    spec::check(spec, &Rules::CREATE, &mut found);
    check_status(object, &mut found);
    check_stored_versions(object, &mut found);
    check_approval(object, None, &mut found);
    if spec.flag("preserveUnknownFields") {
        found.push(preserve_unknown_fields());
    }
    errors.append(&mut found.errors);
}

/// What an update must leave and may change.
pub fn update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let mut found = Found::default();
    if subresource.is_none() {
        let (spec, before) = (object.part("spec"), old.part("spec"));
        let rules = Rules::update(object, old);
        spec::check(spec, &rules, &mut found);
        let mut unchanged = |path: &str, new: &Value, old: &Value| {
            if new != old {
                found.push(Problem::invalid(path, new.clone(), super::IMMUTABLE));
            }
        };
        let (names, names_before) = (spec.part("names"), before.part("names"));
        if rules.immutable_names {
            unchanged("spec.scope", spec.part("scope"), before.part("scope"));
            unchanged("spec.names.kind", names.part("kind"), names_before.part("kind"));
        }
        unchanged("spec.group", spec.part("group"), before.part("group"));
        unchanged("spec.names.plural", names.part("plural"), names_before.part("plural"));
    }
    check_status(object, &mut found);
    if subresource.is_none() {
        check_stored_versions(object, &mut found);
        check_approval(object, Some(old), &mut found);
        if object.part("spec").flag("preserveUnknownFields") && !old.part("spec").flag("preserveUnknownFields") {
            found.push(preserve_unknown_fields());
        }
    }
    errors.append(&mut found.errors);
}

/// Formats that nothing checks, and sets that field ownership does not support.
pub fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let gather = |definition: &Value| {
        let (mut formats, mut sets) = (Vec::new(), BTreeSet::new());
        for version in definition.part("spec").list("versions") {
            every_schema(version.part("schema").part("openAPIV3Schema"), &mut |schema| {
                let format = schema.text("format");
                let known = match schema.text("type") {
                    "" | "string" => structural::is_known_format(format),
                    "integer" => matches!(format, "int32" | "int64"),
                    "number" => matches!(format, "float" | "double"),
                    _ => false,
                };
                if !format.is_empty() && !known {
                    formats.push(format!("unrecognized format {format:?}"));
                }
                let items = schema.part("items").text("type");
                if schema.text("x-kubernetes-list-type") == "set" && matches!(items, "object" | "array") {
                    sets.insert(format!(
                        "x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply \
                         or CEL validation rules"
                    ));
                }
            });
        }
        formats.extend(sets);
        formats
    };
    let before = old.map(gather).unwrap_or_default();
    gather(object).into_iter().filter(|warning| !before.contains(warning)).collect()
}

fn preserve_unknown_fields() -> Problem {
    let text =
        "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
    Problem::invalid("spec.preserveUnknownFields", true, text)
}

fn check_status(object: &Value, found: &mut Found) {
    spec::check_names(object.part("status").part("acceptedNames"), "status.acceptedNames", found);
}

fn check_stored_versions(object: &Value, found: &mut Found) {
    let path = "status.storedVersions";
    let stored = object.part("status").list("storedVersions");
    let shown = || Value::Array(stored.to_vec());
    if stored.is_empty() {
        found.push(Problem::invalid(path, shown(), "must have at least one stored version"));
        return;
    }
    let versions = object.part("spec").list("versions");
    for version in versions.iter().filter(|version| version.flag("storage")) {
        if !stored.contains(version.part("name")) {
            let text = format!("must have the storage version {}", version.text("name"));
            found.push(Problem::invalid(path, shown(), text));
        }
    }
    for (index, one) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.part("name") == one) {
            let name = one.as_str().unwrap_or_default();
            let text = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            found.push(Problem::invalid(format!("{path}[{index}]"), name, text));
        }
    }
}

fn check_approval(object: &Value, old: Option<&Value>, found: &mut Found) {
    use status::Approval;
    if !status::is_protected(object.part("spec").text("group")) {
        return;
    }
    let (approval, text) = status::approval_of(object);
    if old.is_some_and(|old| status::approval_of(old).0 == approval) {
        return;
    }
    let path = format!("metadata.annotations[{}]", status::APPROVED_ANNOTATION);
    match approval {
        Approval::Missing => found.push(Problem::required(path, text)),
        Approval::Invalid => {
            let value = object.part("metadata").part("annotations").text(status::APPROVED_ANNOTATION);
            found.push(Problem::invalid(path, value, text));
        }
        Approval::Approved | Approval::Bypassed => {}
    }
}

/// Findings of a format check, in one line.
fn joined(path: impl Into<String>, value: &str, findings: &[String], found: &mut Found) {
    if !findings.is_empty() {
        found.push(Problem::invalid(path, value, findings.join(",")));
    }
}

fn label(value: &str) -> Vec<String> {
    format::dns_1035_label(value)
}

#[cfg(test)]
mod tests;
