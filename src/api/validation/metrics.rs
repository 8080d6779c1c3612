//! What an autoscaler measures: the sources of its metrics and what is aimed at.

use serde_json::Value;

use super::{Check, resources};
use crate::{fields::Fields, format, path::Path, quantity::Quantity};

const SOURCES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
/// The fields that hold them, in the order in which upstream looks at them.
const FIELDS: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];

pub(super) fn metric(check: &mut Check<'_>, metric: &Value, path: &Path<'_>) {
    let kind = metric.text("type");
    if kind.is_empty() {
        check.required(&path.field("type"), "must specify a metric source type");
    }
    if !SOURCES.contains(&kind) {
        check.not_supported(&path.field("type"), &kind.into(), SOURCES);
    }
    let present: Vec<&str> = FIELDS.into_iter().filter(|name| metric.has(name)).collect();
    if let Some(&first) = present.first() {
        source(check, metric.part(first), first, &path.field(first));
    }
    let own = FIELDS.into_iter().find(|name| name.eq_ignore_ascii_case(kind) && SOURCES.contains(&kind));
    match own {
        Some(own) if !metric.has(own) => {
            check.required(&path.field(own), "must populate information for the given metric source");
        }
        Some(_) => {}
        None => check.not_supported(&path.field("type"), &kind.into(), SOURCES),
    }
    if present.len() != 1 {
        for name in present.into_iter().filter(|&name| Some(name) != own) {
            check.forbidden(&path.field(name), "must populate the given metric source only");
        }
    }
}

fn source(check: &mut Check<'_>, source: &Value, kind: &str, path: &Path<'_>) {
    let here = path.field("target");
    let (target, average) = (source.part("target"), here.field("averageValue"));
    let (value, average_value) = (target.has("value"), target.has("averageValue"));
    match kind {
        "object" => {
            reference(check, source.part("describedObject"), &path.field("describedObject"));
            identifier(check, source, path);
            self::target(check, target, &here);
            if !value && !average_value {
                check.required(&average, "must set either a target value or averageValue");
            }
        }
        "external" => {
            identifier(check, source, path);
            self::target(check, target, &here);
            if !value && !average_value {
                check.required(&average, "must set either a target value for metric or a per-pod target");
            }
            if value && average_value {
                let text = "may not set both a target value for metric and a per-pod target";
                check.forbidden(&here.field("value"), text);
            }
        }
        "pods" => {
            identifier(check, source, path);
            self::target(check, target, &here);
            if !average_value {
                check.required(&average, "must specify a positive target averageValue");
            }
        }
        _ => {
            let name = source.text("name");
            if name.is_empty() {
                check.required(&path.field("name"), "must specify a resource name");
            } else if kind == "containerResource" {
                resources::name_for_container(check, &path.field("name"), name);
            }
            if kind == "containerResource" {
                match source.text("container") {
                    "" => check.required(&path.field("container"), "must specify a container"),
                    name => check.found(&path.field("container"), name, format::dns_label(name)),
                }
            }
            self::target(check, target, &here);
            let utilization = target.has("averageUtilization");
            if !average_value && !utilization {
                let text = "must set either a target raw value or a target utilization";
                check.required(&here.field("averageUtilization"), text);
            } else if average_value && utilization {
                check.forbidden(&average, "may not set both a target raw value and a target utilization");
            }
        }
    }
}

/// Another object, by kind and name.
pub(super) fn reference(check: &mut Check<'_>, reference: &Value, path: &Path<'_>) {
    for name in ["kind", "name"] {
        if check.text(reference, path, name) {
            let value = reference.text(name);
            check.found(&path.field(name), value, format::path_segment(value, false));
        }
    }
}

fn identifier(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    let path = path.field("metric");
    match source.part("metric").text("name") {
        "" => check.required(&path.field("name"), "must specify a metric name"),
        name => check.found(&path.field("name"), name, format::path_segment(name, false)),
    }
}

fn target(check: &mut Check<'_>, target: &Value, path: &Path<'_>) {
    let kind = target.text("type");
    if kind.is_empty() {
        check.required(&path.field("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        check.invalid(&path.field("type"), &kind.into(), "must be either Utilization, Value, or AverageValue");
    }
    for name in ["value", "averageValue"] {
        let amount = target.at(name).and_then(|value| Quantity::from_value(value).ok());
        if amount.is_some_and(|amount| amount.is_zero() || amount.is_negative()) {
            check.invalid(&path.field(name), target.part(name), "must be positive");
        }
    }
    if let Some(percent) = target.int("averageUtilization").filter(|&percent| percent < 1) {
        check.invalid(&path.field("averageUtilization"), &percent.into(), "must be greater than 0");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_metric_has_one_source_and_a_target() {
        let target = json!({"type": "Value", "value": "1"});
        for (metric, texts) in [
            (
                json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}),
                vec![],
            ),
            (
                json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue",
                "averageValue": "-1"}}}),
                vec!["m.pods.target.averageValue: Invalid value: \"-1\": must be positive"],
            ),
            (
                json!({"type": "External", "external": {"metric": {}, "target": target}}),
                vec!["m.external.metric.name: Required value: must specify a metric name"],
            ),
            (
                json!({"type": "Object", "object": {"describedObject": {"kind": "K"}, "metric": {"name": "m"},
                "target": target}}),
                vec!["m.object.describedObject.name: Required value"],
            ),
            (
                json!({"type": "Pods", "external": {"metric": {"name": "m"}, "target": target}}),
                vec!["m.pods: Required value: must populate information for the given metric source"],
            ),
            (
                json!({"type": "External", "external": {"metric": {"name": "m"}, "target": target}, "pods": {}}),
                vec!["m.pods: Forbidden: must populate the given metric source only"],
            ),
            (
                json!({"type": "ContainerResource", "containerResource": {"name": "x", "container": "C!",
                "target": {"type": "Value", "averageValue": "1"}}}),
                vec![
                    "m.containerResource.name: Invalid value: \"x\": must be a standard resource type or fully qualified",
                    "m.containerResource.name: Invalid value: \"x\": must be a standard resource for containers",
                    "m.containerResource.container: Invalid value: \"C!\": a lowercase RFC 1123 label must consist of \
                 lower case alphanumeric characters or '-', and must start and end with an alphanumeric character \
                 (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
        ] {
            let mut errors = Vec::new();
            let root = Path::Root;
            super::metric(&mut Check { errors: &mut errors }, &metric, &root.field("m"));
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), texts, "{metric}");
        }
    }
}
