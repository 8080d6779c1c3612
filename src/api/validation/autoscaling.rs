//! Autoscalers, disruption budgets, priority classes.

use serde_json::Value;

use super::{Check, labels};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const METRICS: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

pub fn autoscaler(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let (min, max) = (spec.int("minReplicas").unwrap_or(1), spec.int("maxReplicas").unwrap_or_default());
    if min < 1 {
        check.invalid(&path.field("minReplicas"), &min.into(), "must be greater than or equal to 1");
    }
    if max == 0 {
        check.required(&path.field("maxReplicas"), "must be set and greater than 0");
    } else if max < 1 {
        check.invalid(&path.field("maxReplicas"), &max.into(), "must be greater than or equal to 1");
    } else if max < min {
        let text = "must be greater than or equal to `minReplicas`";
        check.invalid(&path.field("maxReplicas"), &max.into(), text);
    }
    let target = path.field("scaleTargetRef");
    for name in ["kind", "name"] {
        let value = spec.part("scaleTargetRef").text(name);
        if value.is_empty() {
            check.required(&target.field(name), "");
        } else {
            check.found(&target.field(name), value, format::path_segment(value, false));
        }
    }
    if let Some(percent) = spec.int("targetCPUUtilizationPercentage").filter(|&percent| percent < 1) {
        let text = "must be greater than 0";
        check.invalid(&path.field("targetCPUUtilizationPercentage"), &percent.into(), text);
    }
    let list = path.field("metrics");
    for (index, metric) in spec.list("metrics").iter().enumerate() {
        self::metric(check, metric, &list.index(index));
    }
    let behavior = path.field("behavior");
    for name in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.part("behavior").at(name) {
            scaling_rules(check, rules, &behavior.field(name));
        }
    }
}

fn metric(check: &mut Check<'_>, metric: &Value, path: &Path<'_>) {
    let kind = metric.text("type");
    if kind.is_empty() {
        return check.required(&path.field("type"), "must specify a metric source type");
    }
    if !METRICS.contains(&kind) {
        return check.not_supported(&path.field("type"), &kind.into(), METRICS);
    }
    let (first, rest) = kind.split_at(1);
    let name = format!("{}{rest}", first.to_ascii_lowercase());
    let path = path.field(&name);
    let Some(source) = metric.at(&name) else {
        return check.required(&path, "must populate information for the given metric source");
    };
    let here = path.field("target");
    let target = source.part("target");
    match target.text("type") {
        "" => check.required(&here.field("type"), "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            let text = "must be either Utilization, Value, or AverageValue";
            check.invalid(&here.field("type"), &other.into(), text);
        }
    }
    if let Some(percent) = target.int("averageUtilization").filter(|&percent| percent < 1) {
        check.invalid(&here.field("averageUtilization"), &percent.into(), "must be greater than 0");
    }
    let (average, utilization) = (target.has("averageValue"), target.has("averageUtilization"));
    match kind {
        "Resource" | "ContainerResource" => {
            if source.text("name").is_empty() {
                check.required(&path.field("name"), "must specify a resource name");
            }
            if kind == "ContainerResource" && source.text("container").is_empty() {
                check.required(&path.field("container"), "must specify a container");
            }
            if !average && !utilization {
                let text = "must set either a target raw value or a target utilization";
                check.required(&here.field("averageUtilization"), text);
            } else if average && utilization {
                let text = "may not set both a target raw value and a target utilization";
                check.forbidden(&here.field("averageValue"), text);
            }
        }
        _ => {
            if source.part("metric").text("name").is_empty() {
                let path = path.field("metric");
                check.required(&path.field("name"), "must specify a metric name");
            }
            if kind == "Pods" && !average {
                check.required(&here.field("averageValue"), "must specify a positive target averageValue");
            }
        }
    }
}

fn scaling_rules(check: &mut Check<'_>, rules: &Value, path: &Path<'_>) {
    let window = path.field("stabilizationWindowSeconds");
    match rules.int("stabilizationWindowSeconds") {
        Some(seconds) if seconds < 0 => {
            check.invalid(&window, &seconds.into(), "must be greater than or equal to zero");
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            check.invalid(&window, &seconds.into(), &format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
        }
        _ => {}
    }
    check.one_of(rules, path, "selectPolicy", &["Max", "Min", "Disabled"]);
    let list = path.field("policies");
    if rules.list("policies").is_empty() {
        check.required(&list, "must specify at least one Policy");
    }
    for (index, policy) in rules.list("policies").iter().enumerate() {
        let path = list.index(index);
        check.choice(policy, &path, "type", &["Percent", "Pods"]);
        for name in ["value", "periodSeconds"] {
            let number = policy.int(name).unwrap_or_default();
            if number <= 0 {
                check.invalid(&path.field(name), &number.into(), "must be greater than zero");
            }
        }
        let period = policy.int("periodSeconds").unwrap_or_default();
        if period > PERIOD_SECONDS_MAX {
            let text = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            check.invalid(&path.field("periodSeconds"), &period.into(), &text);
        }
    }
}

pub fn disruption_budget(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        check.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for name in ["minAvailable", "maxUnavailable"] {
        check.int_or_percent(spec, &path, name);
        check.at_most_100_percent(spec, &path, name);
    }
    labels::selector(check, spec.part("selector"), &path.field("selector"));
    check.one_of(spec, &path, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]);
}

pub fn disruption_budget_update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource != Some("status") {
        return disruption_budget(object, errors);
    }
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("status");
    for name in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        check.not_negative(object.part("status"), &path, name);
    }
}

pub fn priority_class(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let name = object.part("metadata").text("name");
    let value = object.int("value").unwrap_or_default();
    if name.starts_with("system-") {
        let known = match name {
            "system-node-critical" => Some(2_000_001_000),
            "system-cluster-critical" => Some(2_000_000_000),
            _ => None,
        };
        let error = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some(known) if known != value => Some(format!("value of {name} PriorityClass must be {known}")),
            Some(_) if object.flag("globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(error) = error {
            let path = root.field("metadata");
            let text =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {error}");
            check.forbidden(&path.field("name"), &text);
        }
    } else if value > USER_PRIORITY_MAX {
        let text = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        check.forbidden(&root.field("value"), &text);
    }
    check.one_of(object, &root, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
}

pub fn priority_class_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    if object.int("value") != old.int("value") {
        check.forbidden(&root.field("value"), "may not be changed in an update.");
    }
    check.unchanged(object, old, &root, "preemptionPolicy");
}
