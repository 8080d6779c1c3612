//! The specification of a definition.

use std::collections::BTreeSet;

use schema::structural::Problem;
use serde_json::Value;

use super::{Found, Rules, conversion, fields, joined, label, schema as schemas};
use crate::{fields::Fields, format};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const WARNING_BYTES_MAX: usize = 256;

/// What all versions have in common; upstream's internal form has it once.
struct Common {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Common {
    fn of(versions: &[Value]) -> Common {
        let same = |name: &str| match versions.split_first() {
            Some((first, rest)) => rest.iter().all(|one| one.part(name) == first.part(name)),
            None => false,
        };
        Common {
            schema: same("schema"),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }
}

pub(super) fn check(spec: &Value, rules: &Rules, found: &mut Found) {
    let group = spec.text("group");
    if group.is_empty() {
        found.push(Problem::required("spec.group", ""));
    } else {
        let findings = format::dns_subdomain(group);
        if findings.is_empty() && !group.contains('.') {
            found.push(Problem::invalid("spec.group", group, "should be a domain with at least one dot"));
        }
        joined("spec.group", group, &findings, found);
    }
    one_of(spec, "scope", "spec.scope", &["Cluster", "Namespaced"], found);
    let versions = spec.list("versions");
    let common = Common::of(versions);
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        if version.part("schema").has("openAPIV3Schema") {
            continue;
        }
        if rules.schemas_required {
            found.push(Problem::required(path, ""));
        } else if !spec.flag("preserveUnknownFields") && version.flag("served") {
            found.push(Problem::required(path, "because otherwise all fields are pruned"));
        }
    }
    if spec.flag("preserveUnknownFields") && schemas::any(spec, |schema| schema.has("default")) {
        let text = "must be false in order to use defaults in the schema";
        found.push(Problem::invalid("spec.preserveUnknownFields", true, text));
    }
    let mut names = BTreeSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = version.text("name");
        unique &= names.insert(name);
        joined(format!("{path}.name"), name, &label(name), found);
        check_version(version, &path, &common, spec, rules, found);
    }
    if !unique {
        found.push(Problem::invalid("spec.versions", versions.to_vec(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        let text = "must have exactly one version marked as storage version";
        found.push(Problem::invalid("spec.versions", versions.to_vec(), text));
    }
    if let Some(first) = versions.first() {
        let name = first.text("name");
        joined("spec.version", name, &label(name), found);
    }
    let names = spec.part("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if names.text(field).is_empty() {
            found.push(Problem::required(format!("spec.names.{field}"), ""));
        }
    }
    check_names(names, "spec.names", found);
    if let Some(first) = versions.first() {
        check_common(first, &common, spec, rules, found);
    }
    conversion::check(spec, rules, found);
}

/// What stands in a version of its own.
fn check_version(version: &Value, path: &str, common: &Common, spec: &Value, rules: &Rules, found: &mut Found) {
    check_deprecation(version, path, found);
    if !common.schema {
        let status = version.part("subresources").has("status");
        schemas::check(
            version.part("schema"),
            &format!("{path}.schema"),
            version.text("name"),
            status,
            spec,
            rules,
            found,
        );
    }
    if !common.subresources {
        check_subresources(version.part("subresources"), &format!("{path}.subresources"), found);
    }
    if !common.columns {
        check_columns(version, &format!("{path}.additionalPrinterColumns"), found);
    }
    if !common.selectable {
        let path = format!("{path}.selectableFields");
        let text = "may only be set when `version.schema.openAPIV3Schema` is not included";
        fields::check_selectable(version, &path, text, version.text("name"), rules, found);
    }
}

fn check_common(first: &Value, common: &Common, spec: &Value, rules: &Rules, found: &mut Found) {
    if common.schema {
        let status = spec.list("versions").iter().any(|version| version.part("subresources").has("status"));
        schemas::check(first.part("schema"), "spec.validation", first.text("name"), status, spec, rules, found);
    }
    if common.subresources {
        check_subresources(first.part("subresources"), "spec.subresources", found);
    }
    if common.columns {
        check_columns(first, "spec.additionalPrinterColumns", found);
    }
    if common.selectable {
        let text = "may only be set when validations.schema is included";
        fields::check_selectable(first, "spec.selectableFields", text, "", rules, found);
    }
}

fn check_deprecation(version: &Value, path: &str, found: &mut Found) {
    let Some(text) = version.at("deprecationWarning").and_then(Value::as_str) else { return };
    let path = format!("{path}.deprecationWarning");
    let mut add = |why: String| found.push(Problem::invalid(path.as_str(), text, why));
    if !version.flag("deprecated") {
        add("can only be set for deprecated versions".to_owned());
        return;
    }
    if text.len() > WARNING_BYTES_MAX {
        add(format!("must be <= {WARNING_BYTES_MAX} characters long"));
    }
    if text.is_empty() {
        add("must not be an empty string".to_owned());
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        add(format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

pub(super) fn check_names(names: &Value, path: &str, found: &mut Found) {
    for field in ["plural", "singular"] {
        let name = names.text(field);
        if !name.is_empty() {
            joined(format!("{path}.{field}"), name, &label(name), found);
        }
    }
    for field in ["kind", "listKind"] {
        let name = names.text(field);
        let findings = label(&name.to_lowercase());
        if !name.is_empty() && !findings.is_empty() {
            let text = format!("may have mixed case, but should otherwise match: {}", findings.join(","));
            found.push(Problem::invalid(format!("{path}.{field}"), name, text));
        }
    }
    let each = |field: &str, found: &mut Found| {
        for (index, name) in names.list(field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            joined(format!("{path}.{field}[{index}]"), name, &label(name), found);
        }
    };
    each("shortNames", found);
    let kind = names.text("kind");
    if !kind.is_empty() && kind == names.text("listKind") {
        found.push(Problem::invalid(format!("{path}.listKind"), kind, "kind and listKind may not be the same"));
    }
    each("categories", found);
}

fn check_columns(version: &Value, path: &str, found: &mut Found) {
    for (index, column) in version.list("additionalPrinterColumns").iter().enumerate() {
        let path = format!("{path}[{index}]");
        if column.text("name").is_empty() {
            found.push(Problem::required(format!("{path}.name"), ""));
        }
        let kind = column.text("type");
        let text = format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.is_empty() {
            found.push(Problem::required(format!("{path}.type"), text));
        } else if !COLUMN_TYPES.contains(&kind) {
            found.push(Problem::invalid(format!("{path}.type"), kind, text));
        }
        let format = column.text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let text = format!("must be one of {}", COLUMN_FORMATS.join(","));
            found.push(Problem::invalid(format!("{path}.format"), format, text));
        }
        let path = format!("{path}.JSONPath");
        match column.text("jsonPath") {
            "" => found.push(Problem::required(path, "")),
            json_path => check_simple_path(json_path, &path, found),
        }
    }
}

/// True if the path begins as it must.
fn is_simple_path(json_path: &str) -> bool {
    json_path.starts_with('.')
}

fn check_simple_path(json_path: &str, path: &str, found: &mut Found) {
    if !is_simple_path(json_path) {
        found.push(Problem::invalid(path, json_path, "must be a simple json path starting with ."));
    }
}

fn check_subresources(subresources: &Value, path: &str, found: &mut Found) {
    let Some(scale) = subresources.at("scale") else { return };
    for (field, roots, text) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let json_path = scale.text(field);
        let path = format!("{path}.scale.{field}");
        if json_path.is_empty() {
            if field != "labelSelectorPath" {
                found.push(Problem::required(path, ""));
            }
        } else if !is_simple_path(json_path) {
            check_simple_path(json_path, &path, found);
        } else if !roots.iter().any(|root| json_path.starts_with(root)) {
            found.push(Problem::invalid(path, json_path, text));
        }
    }
}

pub(super) fn one_of(holder: &Value, name: &str, path: &str, supported: &[&str], found: &mut Found) {
    match holder.text(name) {
        "" => found.push(Problem::required(path, "")),
        value if supported.contains(&value) => {}
        value => found.push(Problem::not_supported(path, value, supported)),
    }
}
