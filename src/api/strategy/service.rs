//! Services: fields that follow from each other, and what was allocated and is kept on an update.
//!
//! Allocating cluster addresses and node ports is the API server's.

use serde_json::{Value, json};

use crate::fields::Fields;

pub fn prepare_create(service: &mut Value) {
    service.set("status", json!({"loadBalancer": {}}));
    sync_cluster_ips(service);
}

fn sync_cluster_ips(service: &mut Value) {
    let Some(spec) = service.object("spec") else { return };
    let first = spec.text("clusterIP").to_owned();
    if !first.is_empty() && spec.list("clusterIPs").is_empty() {
        spec.set("clusterIPs", json!([first]));
    } else if first.is_empty()
        && let Some(first) = spec.list("clusterIPs").first().cloned()
    {
        spec.set("clusterIP", first);
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(spec.text("type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether each port is also one of every node.
pub fn needs_node_ports(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.at("allocateLoadBalancerNodePorts").is_none_or(|allocate| allocate == true),
        _ => false,
    }
}

pub fn prepare_update(service: &mut Value, old: &Value, subresource: Option<&str>) {
    super::isolate_status(service, old, subresource);
    if subresource.is_some() {
        return;
    }
    let before = old.part("spec");
    let Some(spec) = service.object("spec") else { return };
    keep_cluster_ips(spec, before);
    keep_node_ports(spec, before);
    if needs_health_port(spec) && needs_health_port(before) && spec.int("healthCheckNodePort").is_none() {
        super::keep(spec, before, "healthCheckNodePort");
    }
    drop_what_the_type_ends(spec, before);
    sync_cluster_ips(service);
}

fn keep_cluster_ips(spec: &mut Value, before: &Value) {
    if !(needs_cluster_ip(spec) && needs_cluster_ip(before)) {
        return;
    }
    if spec.text("clusterIP").is_empty() && spec.list("clusterIPs").is_empty() {
        super::keep(spec, before, "clusterIP");
    }
    if spec.list("clusterIPs").is_empty() && spec.text("clusterIP") == before.text("clusterIP") {
        super::keep(spec, before, "clusterIPs");
    }
    // A first address that changed alone takes the list along, which validation then compares.
    let first = spec.text("clusterIP").to_owned();
    let listed = spec.list("clusterIPs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
    if first != before.text("clusterIP") && spec.list("clusterIPs") == before.list("clusterIPs") && listed != first {
        if first.is_empty() {
            spec.unset("clusterIPs");
        } else {
            spec.set("clusterIPs", json!([first]));
        }
    } else if !listed.is_empty() && first != listed && first == before.text("clusterIP") {
        spec.set("clusterIP", listed);
    }
    for name in ["ipFamilies", "ipFamilyPolicy"] {
        if !spec.has(name) {
            super::keep(spec, before, name);
        }
    }
}

fn keep_node_ports(spec: &mut Value, before: &Value) {
    if !(needs_node_ports(spec) && needs_node_ports(before)) {
        return;
    }
    let node_port = |port: &Value| port.int("nodePort").filter(|&number| number != 0);
    let mut used: Vec<i64> = spec.list("ports").iter().filter_map(node_port).collect();
    for port in spec.list_mut("ports") {
        if node_port(port).is_some() {
            continue;
        }
        let same = before
            .list("ports")
            .iter()
            .find(|old| old.int("port") == port.int("port") && old.text("protocol") == port.text("protocol"));
        if let Some(number) = same.and_then(node_port).filter(|number| !used.contains(number)) {
            used.push(number);
            port.set("nodePort", number);
        }
    }
}

/// A port for health checks of nodes goes with load balancers that keep traffic local.
pub fn needs_health_port(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// A change of type ends what only the old type had, where the author left it as it was.
fn drop_what_the_type_ends(spec: &mut Value, before: &Value) {
    if needs_cluster_ip(before)
        && !needs_cluster_ip(spec)
        && (spec.list("clusterIPs") == before.list("clusterIPs") || spec.list("clusterIPs").is_empty())
        && (spec.text("clusterIP") == before.text("clusterIP") || spec.text("clusterIP").is_empty())
    {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.unset(name);
        }
    }
    if needs_node_ports(before) && !needs_node_ports(spec) {
        let before: Vec<Option<i64>> = before.list("ports").iter().map(|port| port.int("nodePort")).collect();
        for port in spec.list_mut("ports") {
            if before.contains(&port.int("nodePort")) {
                port.unset("nodePort");
            }
        }
    }
    if needs_health_port(before) && !needs_health_port(spec) {
        spec.unset("healthCheckNodePort");
    }
    if spec.text("type") != before.text("type") {
        if !matches!(spec.text("type"), "NodePort" | "LoadBalancer") && spec.list("externalIPs").is_empty() {
            spec.unset("externalTrafficPolicy");
        }
        if spec.text("type") != "LoadBalancer" {
            spec.unset("allocateLoadBalancerNodePorts");
            spec.unset("loadBalancerClass");
        }
        if spec.text("type") == "ExternalName" {
            spec.unset("internalTrafficPolicy");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "name": "web"}]}});
        prepare_update(&mut new, &old, None);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.43.0.5"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        let mut plain = old.clone();
        plain["spec"]["type"] = json!("ClusterIP");
        prepare_update(&mut plain, &old, None);
        assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
        let mut name = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}});
        prepare_update(&mut name, &old, None);
        assert_eq!(name["spec"], json!({"type": "ExternalName", "externalName": "a.b"}));
    }
}
