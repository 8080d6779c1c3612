//! Autoscalers, disruption budgets, priority classes.

use serde_json::Value;

use super::{Check, labels, metrics};
use crate::{failure::FieldError, fields::Fields, path::Path};

const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

pub fn autoscaler(object: &Value, errors: &mut Vec<FieldError>) {
    autoscaler_update(object, &Value::Null, None, errors);
}

pub fn autoscaler_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let (reference, before) = (object.part("spec").part("scaleTargetRef"), old.part("spec").part("scaleTargetRef"));
    if subresource == Some("status") {
        let check = &mut Check { errors };
        for name in ["currentReplicas", "desiredReplicas"] {
            check.not_negative(object.part("status"), &Path::Root.field("status"), name);
        }
        return;
    }
    autoscaler_spec(object, errors);
    // What was accepted once may stay.
    let same = |name: &str| reference.text(name) == before.text(name);
    if !(old.is_object() && same("apiVersion") && same("kind")) {
        let root = Path::Root;
        let path = root.field("spec");
        let target = path.field("scaleTargetRef");
        api_version(&mut Check { errors }, reference, &target.field("apiVersion"));
    }
}

fn autoscaler_spec(object: &Value, errors: &mut Vec<FieldError>) {
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
    metrics::reference(check, spec.part("scaleTargetRef"), &target);
    if let Some(percent) = spec.int("targetCPUUtilizationPercentage").filter(|&percent| percent < 1) {
        let text = "must be greater than 0";
        check.invalid(&path.field("targetCPUUtilizationPercentage"), &percent.into(), text);
    }
    let list = path.field("metrics");
    for (index, metric) in spec.list("metrics").iter().enumerate() {
        metrics::metric(check, metric, &list.index(index));
    }
    let behavior = path.field("behavior");
    for name in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.part("behavior").at(name) {
            scaling_rules(check, rules, &behavior.field(name));
        }
    }
}

/// What is scaled has a group, but for the one kind of the core group that can be.
fn api_version(check: &mut Check<'_>, reference: &Value, path: &Path<'_>) {
    let version = reference.text("apiVersion");
    let text = match version.split('/').count() {
        1 if reference.text("kind") != "ReplicationController" => "apiVersion must specify API group".to_owned(),
        1 | 2 => return,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    check.invalid(path, &version.into(), &text);
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
    if let Some(tolerance) = rules.at("tolerance") {
        check.quantity(&path.field("tolerance"), tolerance);
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
    super::conditions::conditions(check, object.part("status"), &path);
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
