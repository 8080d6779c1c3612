//! Pods: quality of service, phases, grace, and what each subresource may change.

use serde_json::{Value, json};

use super::keep_all_but;
use crate::{fields::Fields, quantity::Quantity};

/// A new pod is pending; its quality of service is settled for good.
pub fn prepare_create(pod: &mut Value) {
    let class = qos_class(pod.part("spec"));
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if !pod.part("spec").list("schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod.set("status", status);
    super::label_keys::apply(pod);
}

pub fn prepare_update(pod: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        Some("status") => {
            keep_all_but(pod, old, &["status", "metadata"]);
            if let Some(metadata) = pod.object("metadata") {
                super::keep(metadata, old.part("metadata"), "ownerReferences");
            }
            if let Some(status) = pod.object("status") {
                for name in ["qosClass", "observedGeneration"] {
                    if let Some(before) = old.part("status").at(name).filter(|_| !status.has(name)) {
                        let before = before.clone();
                        status.set(name, before);
                    }
                }
            }
        }
        Some("ephemeralcontainers") => {
            let containers = pod.part("spec").at("ephemeralContainers").cloned();
            keep_all_but(pod, old, &["metadata"]);
            if let (Some(containers), Some(spec)) = (containers, pod.object("spec")) {
                spec.set("ephemeralContainers", containers);
            }
        }
        Some("resize") => resize(pod, old),
        _ => super::keep(pod, old, "status"),
    }
}

/// Of a resize, only the containers' resources and resize policies count.
fn resize(pod: &mut Value, old: &Value) {
    let mut changes = Vec::new();
    for list in ["containers", "initContainers"] {
        for container in pod.part("spec").list(list) {
            let name = container.text("name").to_owned();
            let policy = container.at("resizePolicy").cloned();
            changes.push((list, name, container.at("resources").cloned(), policy));
        }
    }
    let pod_resources = pod.part("spec").at("resources").cloned();
    keep_all_but(pod, old, &["metadata"]);
    let Some(spec) = pod.object("spec") else { return };
    if let Some(resources) = pod_resources {
        spec.set("resources", resources);
    }
    for (list, name, resources, policy) in changes {
        let Some(container) = spec.list_mut(list).iter_mut().find(|container| container.text("name") == name) else {
            continue;
        };
        if let Some(resources) = resources {
            container.set("resources", resources);
        }
        if let Some(policy) = policy {
            container.set("resizePolicy", policy);
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by what containers ask of CPU and memory.
pub fn qos_class(spec: &Value) -> &'static str {
    let amount = |resources: &Value, list: &str, name: &str| {
        let quantity = resources.part(list).at(name).and_then(|value| Quantity::from_value(value).ok());
        quantity.filter(|quantity| *quantity > Quantity::ZERO)
    };
    let judge = |all: &mut dyn Iterator<Item = &Value>| {
        let (mut any, mut guaranteed) = (false, true);
        let mut sums = [(Quantity::ZERO, Quantity::ZERO); 2];
        for resources in all {
            for (sum, name) in sums.iter_mut().zip(["cpu", "memory"]) {
                let request = amount(resources, "requests", name);
                let limit = amount(resources, "limits", name);
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some();
                sum.0 += request.unwrap_or_default();
                sum.1 += limit.unwrap_or_default();
            }
        }
        if !any {
            "BestEffort"
        } else if guaranteed && sums.iter().all(|(requests, limits)| requests == limits) {
            "Guaranteed"
        } else {
            "Burstable"
        }
    };
    if let Some(resources) = spec.at("resources").filter(|all| all.has("requests") || all.has("limits")) {
        return judge(&mut std::iter::once(resources));
    }
    let containers = spec.list("containers").iter().chain(spec.list("initContainers"));
    judge(&mut containers.map(|container| container.part("resources")))
}

/// How long a pod may take to end: what was asked or what its spec says, nothing for one that never ran or has
/// ended.
pub fn grace_seconds(pod: &Value, asked: Option<i64>) -> i64 {
    let spec = pod.part("spec");
    let idle = spec.text("nodeName").is_empty() || matches!(pod.part("status").text("phase"), "Failed" | "Succeeded");
    if idle {
        return 0;
    }
    match asked.or(spec.int("terminationGracePeriodSeconds")).unwrap_or_default() {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_decide_the_class() {
        let class = |resources: Value| qos_class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(json!({"requests": both, "limits": both})), "Guaranteed");
        assert_eq!(class(json!({"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": both})), "Guaranteed");
        assert_eq!(class(json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": both})), "Burstable");
    }

    #[test]
    fn a_status_update_leaves_the_spec() {
        let old = json!({"metadata": {"ownerReferences": [1]}, "spec": {"a": 1}, "status": {"qosClass": "BestEffort"}});
        let mut new = json!({"metadata": {}, "spec": {"a": 2}, "status": {"phase": "Running"}});
        prepare_update(&mut new, &old, Some("status"));
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(new["metadata"]["ownerReferences"], json!([1]));
        assert_eq!(new["status"], json!({"phase": "Running", "qosClass": "BestEffort"}));
    }

    #[test]
    fn grace_is_for_what_runs() {
        let mut pod = json!({"spec": {"terminationGracePeriodSeconds": 30}});
        assert_eq!(grace_seconds(&pod, None), 0);
        pod["spec"]["nodeName"] = json!("n");
        assert_eq!(
            (grace_seconds(&pod, None), grace_seconds(&pod, Some(5)), grace_seconds(&pod, Some(-1))),
            (30, 5, 1)
        );
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(grace_seconds(&pod, Some(5)), 0);
    }
}
