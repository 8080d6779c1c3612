//! The downward API: what a pod's files and variables may say of the pod itself.

use serde_json::Value;

use super::{Check, volumes};
use crate::{fields::Fields, format, path::Path, quantity::Quantity};

/// What there is of a pod in text, wherever it may be used.
const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const IN_VOLUMES: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const IN_VARIABLES: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// A file of the downward API. Upstream names the volume in its findings, not the item.
pub(crate) fn file(check: &mut Check<'_>, file: &Value, path: &Path<'_>) {
    check.text(file, path, "path");
    volumes::not_reserved(check, file.text("path"), &path.field("path"));
    match (file.at("fieldRef"), file.at("resourceFieldRef")) {
        (Some(field), other) => {
            field_ref(check, field, IN_VOLUMES, &path.field("fieldRef"));
            if other.is_some() {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                check.invalid(path, &"resource".into(), text);
            }
        }
        (None, Some(field)) => resource_ref(check, field, true, &path.field("resourceFieldRef")),
        (None, None) => check.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    volumes::mode(check, file, path, "mode");
}

pub(crate) fn variable(check: &mut Check<'_>, field: &Value, path: &Path<'_>) {
    field_ref(check, field, IN_VARIABLES, path);
}

pub(crate) fn variable_of_resource(check: &mut Check<'_>, field: &Value, path: &Path<'_>) {
    resource_ref(check, field, false, path);
}

/// Labels and annotations also one by one: `metadata.labels['app']`.
fn field_ref(check: &mut Check<'_>, field: &Value, allowed: &[&str], path: &Path<'_>) {
    if !check.text(field, path, "apiVersion") || !check.text(field, path, "fieldPath") {
        return;
    }
    let (version, whole) = (field.text("apiVersion"), field.text("fieldPath"));
    let subscript = whole.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let unknown = match subscript {
        _ if version != "v1" => format!("unsupported pod version: {version}"),
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            return check.found(path, &key, format::label_key(&key));
        }
        Some(("metadata.labels", key)) => return check.found(path, key, format::label_key(key)),
        Some(_) => format!("field label does not support subscript: {whole}"),
        None if FIELDS.contains(&whole) => {
            // What old clients write.
            let name = if whole == "spec.host" { "spec.nodeName" } else { whole };
            if !allowed.contains(&name) {
                check.not_supported(&path.field("fieldPath"), &name.into(), allowed);
            }
            return;
        }
        None => format!("field label not supported: {whole}"),
    };
    let text = format!("error converting fieldPath: {unknown}");
    check.invalid(&path.field("fieldPath"), field.part("fieldPath"), &text);
}

fn resource_ref(check: &mut Check<'_>, field: &Value, in_volume: bool, path: &Path<'_>) {
    let resource = field.text("resource");
    if in_volume && field.text("containerName").is_empty() {
        check.required(&path.field("containerName"), "");
    } else if check.text(field, path, "resource") && !is_huge(resource) && !RESOURCES.contains(&resource) {
        check.not_supported(&path.field("resource"), field.part("resource"), RESOURCES);
    }
    divisor(check, field, path);
}

fn is_huge(resource: &str) -> bool {
    resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-")
}

/// The unit that an amount is told in: one of its own powers.
fn divisor(check: &mut Check<'_>, field: &Value, path: &Path<'_>) {
    let Ok(divisor) = Quantity::from_value(field.part("divisor")) else { return };
    if divisor.is_zero() {
        return;
    }
    let resource = field.text("resource");
    let (units, named) = match resource {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"][..], "cpu"),
        "limits.memory" | "requests.memory" => (BYTE_UNITS, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (BYTE_UNITS, "local ephemeral storage"),
        huge if is_huge(huge) => (BYTE_UNITS, "hugepages"),
        _ => return,
    };
    if !units.contains(&divisor.to_string().as_str()) {
        let listed = if units.len() == 2 { units.join(" and ") } else { units.join(", ") };
        let text = format!("only divisor's values {listed} are supported with the {named} resource");
        check.invalid(&path.field("divisor"), &resource.into(), &text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_some_of_a_pod_is_told() {
        let cases: &[(Value, &[&str])] = &[
            (json!({"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['a/b']"}}), &[]),
            (json!({"path": "a"}), &["p: Required value: one of fieldRef and resourceFieldRef is required"]),
            (
                json!({"path": "a", "fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}}),
                &[
                    "p.fieldRef.fieldPath: Invalid value: \"metadata.name\": error converting fieldPath: unsupported pod version: v2",
                ],
            ),
            (
                json!({"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "spec.x['a']"}}),
                &[
                    "p.fieldRef.fieldPath: Invalid value: \"spec.x['a']\": error converting fieldPath: field label does not support \
                   subscript: spec.x['a']",
                ],
            ),
            (
                json!({"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "status.phase"}}),
                &[
                    "p.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.annotations\", \
                   \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
                ],
            ),
            (
                json!({"path": "a", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "2"}}),
                &[
                    "p.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with \
                   the cpu resource",
                ],
            ),
        ];
        for (value, expected) in cases {
            let mut errors = Vec::new();
            file(&mut Check { errors: &mut errors }, value, &Path::Root.field("p"));
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected);
        }
    }
}
