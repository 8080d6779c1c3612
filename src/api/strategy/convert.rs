//! Between versions of a kind: events of both groups, and autoscalers of both versions.

use serde_json::{Value, json};

use crate::fields::Fields;

/// What the events API calls a field, and what the core group calls it.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
];

pub fn event_to_core(event: &mut Value) {
    for (new, old) in EVENT_FIELDS {
        rename(event, new, old);
    }
    rename(event, "deprecatedCount", "count");
}

pub fn event_from_core(event: &mut Value) {
    for (new, old) in EVENT_FIELDS {
        rename(event, old, new);
    }
    rename(event, "count", "deprecatedCount");
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(value) = object.as_object_mut().and_then(|fields| fields.remove(from)) {
        object.set(to, value);
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Version 1 has a field for CPU and keeps the rest in annotations.
pub fn autoscaler_to_v2(object: &mut Value) {
    let mut metrics = take_annotation(object, METRICS).and_then(into_list).unwrap_or_default();
    let behavior = take_annotation(object, BEHAVIOR);
    let current = take_annotation(object, CURRENT_METRICS).and_then(into_list).unwrap_or_default();
    let conditions = take_annotation(object, CONDITIONS);
    if let Some(spec) = object.object("spec") {
        let target = spec.int("targetCPUUtilizationPercentage");
        spec.unset("targetCPUUtilizationPercentage");
        if let Some(target) = target.or(metrics.is_empty().then_some(80)) {
            let target = json!({"type": "Utilization", "averageUtilization": target});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        spec.set("metrics", metrics);
        if let Some(behavior) = behavior {
            spec.set("behavior", behavior);
        }
    }
    let Some(status) = object.object("status") else { return };
    let mut all = current;
    if let Some(now) = status.int("currentCPUUtilizationPercentage") {
        status.unset("currentCPUUtilizationPercentage");
        let current = json!({"averageUtilization": now});
        all.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}));
    }
    if !all.is_empty() {
        status.set("currentMetrics", all);
    }
    if let Some(conditions) = conditions {
        status.set("conditions", conditions);
    }
}

pub fn autoscaler_from_v2(object: &mut Value) {
    let is_cpu = |metric: &Value| metric.text("type") == "Resource" && metric.part("resource").text("name") == "cpu";
    let mut annotations = Vec::new();
    if let Some(spec) = object.object("spec") {
        let mut metrics = take_list(spec, "metrics");
        let used = |metric: &Value| metric.part("resource").part("target").has("averageUtilization");
        if let Some(index) = metrics.iter().position(|metric| is_cpu(metric) && used(metric)) {
            let metric = metrics.remove(index);
            let target = metric.part("resource").part("target").part("averageUtilization").clone();
            spec.set("targetCPUUtilizationPercentage", target);
        }
        if !metrics.is_empty() {
            annotations.push((METRICS, Value::from(metrics)));
        }
        if let Some(behavior) = spec.as_object_mut().and_then(|spec| spec.remove("behavior")) {
            annotations.push((BEHAVIOR, behavior));
        }
    }
    if let Some(status) = object.object("status") {
        let mut current = take_list(status, "currentMetrics");
        let used = |metric: &Value| metric.part("resource").part("current").has("averageUtilization");
        if let Some(index) = current.iter().position(|metric| is_cpu(metric) && used(metric)) {
            let metric = current.remove(index);
            let now = metric.part("resource").part("current").part("averageUtilization").clone();
            status.set("currentCPUUtilizationPercentage", now);
        }
        if !current.is_empty() {
            annotations.push((CURRENT_METRICS, Value::from(current)));
        }
        if let Some(conditions) = status.as_object_mut().and_then(|status| status.remove("conditions")) {
            annotations.push((CONDITIONS, conditions));
        }
    }
    if annotations.is_empty() {
        return;
    }
    if let Some(all) = object.object("metadata").and_then(|metadata| metadata.object("annotations")) {
        for (name, value) in annotations {
            all.set(name, value.to_string());
        }
    }
}

fn take_list(holder: &mut Value, name: &str) -> Vec<Value> {
    holder.as_object_mut().and_then(|fields| fields.remove(name)).and_then(into_list).unwrap_or_default()
}

fn into_list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn take_annotation(object: &mut Value, name: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    serde_json::from_str(text.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_everything() {
        let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod"}, "note": "n", "reason": "R",
            "reportingController": "c", "deprecatedCount": 2});
        let mut core = event.clone();
        event_to_core(&mut core);
        assert_eq!(core["involvedObject"], json!({"kind": "Pod"}));
        assert_eq!((&core["message"], &core["count"]), (&json!("n"), &json!(2)));
        event_from_core(&mut core);
        assert_eq!(core, event);
    }

    #[test]
    fn autoscalers_keep_everything() {
        let v2 = json!({"metadata": {"annotations": {}}, "spec": {"maxReplicas": 3, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}},
        ], "behavior": {"scaleDown": {"selectPolicy": "Max"}}}, "status": {"conditions": [{"type": "ScalingActive"}]}});
        let mut v1 = v2.clone();
        autoscaler_from_v2(&mut v1);
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(v1["spec"].get("metrics"), None);
        autoscaler_to_v2(&mut v1);
        assert_eq!(v1, v2);
    }
}
