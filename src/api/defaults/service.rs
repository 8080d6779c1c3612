//! Services, endpoints, ingress, network policies.

use serde_json::{Value, json};

use crate::fields::Fields;

const AFFINITY_SECONDS: i64 = 10_800;

pub fn service(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    spec.fill_text("sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => spec.unset("sessionAffinityConfig"),
        "ClientIP" if !spec.part("sessionAffinityConfig").part("clientIP").has("timeoutSeconds") => {
            spec.set("sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        _ => {}
    }
    spec.fill_text("type", "ClusterIP");
    for port in spec.list_mut("ports") {
        port.fill_text("protocol", "TCP");
        let target = port.part("targetPort");
        if target.is_null() || target == 0 || target == "" {
            let number = port.int("port").unwrap_or_default();
            port.set("targetPort", number);
        }
    }
    let kind = spec.text("type").to_owned();
    let outside = matches!(kind.as_str(), "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    if outside {
        spec.fill_text("externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        spec.fill("internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        spec.fill("allocateLoadBalancerNodePorts", true);
    }
    let balanced = kind == "LoadBalancer";
    let Some(status) = object.object("status").and_then(|status| status.object("loadBalancer")) else { return };
    if balanced {
        for ingress in status.list_mut("ingress") {
            if !ingress.text("ip").is_empty() {
                ingress.fill("ipMode", "VIP");
            }
        }
    }
}

pub fn endpoints(object: &mut Value) {
    for subset in object.list_mut("subsets") {
        for port in subset.list_mut("ports") {
            port.fill_text("protocol", "TCP");
        }
    }
}

pub fn endpoint_slice(object: &mut Value) {
    for port in object.list_mut("ports") {
        port.fill("name", "");
        port.fill("protocol", "TCP");
    }
}

pub fn ingress(object: &mut Value) {
    if let Some(status) = object.object("status") {
        super::empty_object(status, "loadBalancer");
    }
}

pub fn ingress_class(object: &mut Value) {
    if let Some(parameters) = object.at_mut("spec").and_then(|spec| spec.at_mut("parameters")) {
        parameters.fill("scope", "Cluster");
    }
}

pub fn network_policy(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    super::empty_object(spec, "podSelector");
    for direction in ["ingress", "egress"] {
        for rule in spec.list_mut(direction) {
            for port in rule.list_mut("ports") {
                port.fill("protocol", "TCP");
            }
        }
    }
    if spec.list("policyTypes").is_empty() {
        let types = if spec.list("egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.set("policyTypes", types);
    }
}
