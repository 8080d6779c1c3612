//! Workload controllers: apps, batch, autoscaling and the ReplicationController.

use serde_json::{Value, json};

use super::{empty_object, pod, quantity, storage};
use crate::fields::Fields;

const DEADLINE_SECONDS: i64 = 600;
const REVISIONS: i64 = 10;

pub fn deployment(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    pod::template(spec);
    spec.fill("replicas", 1);
    if let Some(strategy) = spec.object("strategy") {
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.object("rollingUpdate")
        {
            rolling.fill("maxUnavailable", "25%");
            rolling.fill("maxSurge", "25%");
        }
    }
    spec.fill("revisionHistoryLimit", REVISIONS);
    spec.fill("progressDeadlineSeconds", DEADLINE_SECONDS);
}

pub fn replica_set(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    pod::template(spec);
    spec.fill("replicas", 1);
}

/// Labels and selector come from the template where they are left out.
pub fn replication_controller(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    pod::template(spec);
    spec.fill("replicas", 1);
    let labels = spec.part("template").part("metadata").at("labels").cloned();
    if let Some(labels) = labels {
        if spec.map("selector").is_none_or(serde_json::Map::is_empty) {
            spec.set("selector", labels.clone());
        }
        labels_from_template(object, labels);
    }
}

fn labels_from_template(object: &mut Value, labels: Value) {
    if let Some(metadata) = object.object("metadata")
        && metadata.map("labels").is_none_or(serde_json::Map::is_empty)
    {
        metadata.set("labels", labels);
    }
}

pub fn stateful_set(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    pod::template(spec);
    for claim in spec.list_mut("volumeClaimTemplates") {
        claim.fill_text("apiVersion", "v1");
        claim.fill_text("kind", "PersistentVolumeClaim");
        storage::claim(claim);
    }
    spec.fill_text("podManagementPolicy", "OrderedReady");
    if let Some(strategy) = spec.object("updateStrategy") {
        if strategy.text("type").is_empty() {
            strategy.set("type", "RollingUpdate");
            empty_object(strategy, "rollingUpdate");
        }
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.at_mut("rollingUpdate")
        {
            rolling.fill("partition", 0);
        }
    }
    if let Some(policy) = spec.object("persistentVolumeClaimRetentionPolicy") {
        policy.fill_text("whenDeleted", "Retain");
        policy.fill_text("whenScaled", "Retain");
    }
    spec.fill("replicas", 1);
    spec.fill("revisionHistoryLimit", REVISIONS);
}

pub fn daemon_set(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    pod::template(spec);
    if let Some(strategy) = spec.object("updateStrategy") {
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.object("rollingUpdate")
        {
            rolling.fill("maxUnavailable", 1);
            rolling.fill("maxSurge", 0);
        }
    }
    spec.fill("revisionHistoryLimit", REVISIONS);
}

pub fn job(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    job_within(spec);
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.set("completions", 1);
    }
    spec.fill("parallelism", 1);
    let limit = if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    spec.fill("backoffLimit", limit);
    spec.fill("completionMode", "NonIndexed");
    spec.fill("suspend", false);
    let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    spec.fill("podReplacementPolicy", replacement);
    spec.fill("manualSelector", false);
    let labels = spec.part("template").part("metadata").at("labels").cloned();
    if let Some(labels) = labels {
        labels_from_template(object, labels);
    }
}

/// What a Job's spec gets also where it only serves as a template.
fn job_within(spec: &mut Value) {
    pod::template(spec);
    if let Some(policy) = spec.at_mut("podFailurePolicy") {
        for rule in policy.list_mut("rules") {
            for pattern in rule.list_mut("onPodConditions") {
                pattern.fill_text("status", "True");
            }
        }
    }
}

pub fn cron_job(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    if let Some(job) = spec.object("jobTemplate").and_then(|template| template.object("spec")) {
        job_within(job);
    }
    spec.fill_text("concurrencyPolicy", "Allow");
    spec.fill("suspend", false);
    spec.fill("successfulJobsHistoryLimit", 3);
    spec.fill("failedJobsHistoryLimit", 1);
}

pub fn autoscaler_v1(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill("minReplicas", 1);
    }
}

pub fn autoscaler(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    spec.fill("minReplicas", 1);
    if spec.list("metrics").is_empty() {
        spec.set(
            "metrics",
            json!([{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }]),
        );
    }
    for metric in spec.list_mut("metrics") {
        for source in ["resource", "containerResource", "pods", "object", "external"] {
            if let Some(target) = metric.at_mut(source).and_then(|source| source.at_mut("target")) {
                quantity(target, "value");
                quantity(target, "averageValue");
            }
        }
    }
    if let Some(behavior) = spec.at_mut("behavior") {
        if let Some(up) = behavior.object("scaleUp") {
            up.fill("stabilizationWindowSeconds", 0);
            up.fill("selectPolicy", "Max");
            up.fill(
                "policies",
                json!([
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
        }
        if let Some(down) = behavior.object("scaleDown") {
            down.fill("selectPolicy", "Max");
            down.fill("policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        }
    }
}
