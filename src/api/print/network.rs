//! Services, endpoints, ingress, network policies.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, NONE, SHOWN_MAX, labels, load_balancer, name, or_else, selector, shortened, since};
use crate::fields::Fields;

pub(crate) const SERVICES: &[Column] = &[
    Column::name(),
    Column::string("Type", "How the service is reached."),
    Column::string("Cluster-IP", "Its address within the cluster."),
    Column::string("External-IP", "Its addresses outside of the cluster."),
    Column::string("Port(s)", "Its ports, with those of nodes."),
    Column::age(),
    Column::string("Selector", "Labels of its pods.").wide(),
];

pub(crate) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let ports = spec.list("ports").iter().map(|port| {
        let (number, protocol) = (port.int("port").unwrap_or_default(), port.text("protocol"));
        match port.int("nodePort").filter(|&node_port| node_port > 0) {
            Some(node_port) => format!("{number}:{node_port}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    let ports = ports.collect::<Vec<_>>().join(",");
    let cluster_ip = spec.list("clusterIPs").first().and_then(Value::as_str).unwrap_or_default();
    vec![
        name(object),
        spec.text("type").into(),
        or_else(cluster_ip, NONE),
        external_ips(object).into(),
        or_else(&ports, NONE),
        since(object, now),
        labels(spec.part("selector")),
    ]
}

fn external_ips(object: &Value) -> String {
    let spec = object.part("spec");
    let own = spec.list("externalIPs").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    match spec.text("type") {
        "ClusterIP" | "NodePort" if own.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => own,
        "LoadBalancer" => match (load_balancer(object.part("status")), own) {
            (balancer, own) if balancer.is_empty() && own.is_empty() => "<pending>".to_owned(),
            (balancer, own) if own.is_empty() => balancer,
            (balancer, own) if balancer.is_empty() => own,
            (balancer, own) => format!("{balancer},{own}"),
        },
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => super::UNKNOWN.to_owned(),
    }
}

pub(crate) const ENDPOINTS: &[Column] =
    &[Column::name(), Column::string("Endpoints", "Addresses and ports."), Column::age()];

pub(crate) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in object.list("subsets") {
        let ips = || subset.list("addresses").iter().map(|address| address.text("ip"));
        if subset.list("ports").is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in subset.list("ports") {
            let number = port.int("port").unwrap_or_default();
            let six = |ip: &str| ip.contains(':');
            all.extend(ips().map(|ip| if six(ip) { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }));
        }
    }
    let shown = if object.list("subsets").is_empty() { NONE.to_owned() } else { list(&all) };
    vec![name(object), shown.into(), since(object, now)]
}

fn list(all: &[String]) -> String {
    if all.is_empty() { String::new() } else { shortened(all) }
}

pub(crate) const ENDPOINT_SLICES: &[Column] = &[
    Column::name(),
    Column::string("AddressType", "What its addresses are."),
    Column::string("Ports", "Its ports."),
    Column::string("Endpoints", "Its addresses."),
    Column::age(),
];

pub(crate) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("ports")
        .iter()
        .map(|port| match (port.int("port"), port.text("name")) {
            (Some(number), _) => number.to_string(),
            (None, "") => {
                if port.has("name") {
                    String::new()
                } else {
                    "*".to_owned()
                }
            }
            (None, name) => name.to_owned(),
        })
        .collect();
    let addresses: Vec<String> = object
        .list("endpoints")
        .iter()
        .flat_map(|endpoint| endpoint.list("addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    vec![
        name(object),
        object.text("addressType").into(),
        shortened(&ports).into(),
        shortened(&addresses).into(),
        since(object, now),
    ]
}

pub(crate) const INGRESSES: &[Column] = &[
    Column::name(),
    Column::string("Class", "Its ingress class."),
    Column::string("Hosts", "Host names that it serves."),
    Column::string("Address", "Where it is reached."),
    Column::string("Ports", "Ports that it serves."),
    Column::age(),
];

pub(crate) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let rules = spec.list("rules");
    let hosts: Vec<&str> = rules.iter().map(|rule| rule.text("host")).filter(|host| !host.is_empty()).collect();
    let shown = hosts.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(",");
    let hosts = if hosts.is_empty() {
        "*".to_owned()
    } else if hosts.len() > SHOWN_MAX {
        format!("{shown} + {} more...", rules.len() - SHOWN_MAX)
    } else {
        shown
    };
    let ports = if spec.list("tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        or_else(spec.text("ingressClassName"), NONE),
        hosts.into(),
        load_balancer(object.part("status")).into(),
        ports.into(),
        since(object, now),
    ]
}

pub(crate) const INGRESS_CLASSES: &[Column] = &[
    Column::name(),
    Column::string("Controller", "Who serves the class."),
    Column::string("Parameters", "What more its controller is told."),
    Column::age(),
];

pub(crate) fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let parameters = spec.at("parameters").map_or_else(
        || NONE.to_owned(),
        |parameters| {
            let (kind, group) = (parameters.text("kind"), parameters.text("apiGroup"));
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", parameters.text("name"))
        },
    );
    vec![name(object), spec.text("controller").into(), parameters.into(), since(object, now)]
}

pub(crate) const NETWORK_POLICIES: &[Column] =
    &[Column::name(), Column::string("Pod-Selector", "Labels of the pods that it is for."), Column::age()];

pub(crate) fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector(object.part("spec").part("podSelector")), since(object, now)]
}
