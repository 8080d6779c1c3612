//! A Service's part of the packet-filter table, and what all Services share.
//!
//! A packet's destination is looked up in one map (node ports in another); the verdict leads to the Service port's
//! chain, which translates the destination to one of the endpoints. However many Services there are, that is one
//! lookup. What nobody serves is refused where packets are forwarded, come in or go out, after translation: only what
//! found no endpoint still has a Service's address then.
//!
//! Chains of a Service port: `service-` its endpoints anywhere, `local-` those on this node, `external-` for traffic that
//! came to a node port or an external address, `firewall-` before that for a load balancer with source ranges,
//! `endpoint-` one per endpoint where clients stay with theirs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use network::nft::{
    Chain, ChainKind, Family, Field, Fragment, Hook, KeyPart, Rule, SetSpec, Statement, Verdict, priority,
};

use crate::model::ServicePort;

/// Packets with this mark get this node's address as their source (upstream's masquerade bit).
const MASQUERADE_MARK: u32 = 0x4000;

const SERVICE_IPS: &str = "service-ips";
const SERVICE_NODEPORTS: &str = "service-nodeports";
const NO_ENDPOINT_SERVICES: &str = "no-endpoint-services";
const NO_ENDPOINT_NODEPORTS: &str = "no-endpoint-nodeports";
const CLUSTER_IPS: &str = "cluster-ips";
const HAIRPIN: &str = "hairpin";
const SERVICES: &str = "services";
const REFUSE: &str = "refuse";
const REJECT: &str = "reject-chain";

/// The hooks, maps and sets that Services put their elements in.
pub(crate) fn base(family: Family) -> Fragment {
    use Statement as S;
    let mut fragment = Fragment::default();
    let address = vec![Field::DestinationIp, Field::Protocol, Field::DestinationPort];
    let node_port = vec![Field::Protocol, Field::DestinationPort];
    let pair = vec![Field::SourceIp, Field::DestinationIp];
    for (name, key, verdicts) in [
        (SERVICE_IPS, address.clone(), true),
        (SERVICE_NODEPORTS, node_port.clone(), true),
        (NO_ENDPOINT_SERVICES, address.clone(), true),
        (NO_ENDPOINT_NODEPORTS, node_port.clone(), true),
        (CLUSTER_IPS, vec![Field::DestinationIp], false),
        (HAIRPIN, pair.clone(), false),
    ] {
        fragment.sets.insert(name.to_owned(), SetSpec { key, verdicts, timeout: None });
    }

    let at_a_node_port = |map: &str| {
        Rule::new([
            S::LocalDestination,
            S::InNet { field: Field::DestinationIp, net: loopback(family), not: true },
            S::VerdictMap { fields: node_port.clone(), map: map.to_owned() },
        ])
    };
    let at_an_address = |map: &str| Rule::new([S::VerdictMap { fields: address.clone(), map: map.to_owned() }]);
    fragment
        .chains
        .insert(SERVICES.to_owned(), Chain::new([at_an_address(SERVICE_IPS), at_a_node_port(SERVICE_NODEPORTS)]));
    fragment.chains.insert(
        REFUSE.to_owned(),
        Chain::new([
            at_an_address(NO_ENDPOINT_SERVICES),
            at_a_node_port(NO_ENDPOINT_NODEPORTS),
            // The Service is there, but not this port of it.
            Rule::new([
                S::InSet { fields: vec![Field::DestinationIp], set: CLUSTER_IPS.to_owned(), not: false },
                S::Reject,
            ]),
        ]),
    );
    fragment.chains.insert(REJECT.to_owned(), Chain::new([Rule::new([S::Reject])]));

    let to = |chain: &str| S::Verdict(Verdict::Jump(chain.to_owned()));
    for (name, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        let chain = Chain::base(ChainKind::Nat, hook, priority::DSTNAT, [Rule::new([to(SERVICES)])]);
        fragment.chains.insert(name.to_owned(), chain);
    }
    for (name, hook) in
        [("filter-input", Hook::Input), ("filter-forward", Hook::Forward), ("filter-output", Hook::Output)]
    {
        let rule = Rule::new([S::NewConnection, to(REFUSE)]);
        fragment.chains.insert(name.to_owned(), Chain::base(ChainKind::Filter, hook, priority::FILTER, [rule]));
    }
    let masquerade = [
        Rule::new([S::MarkHas(MASQUERADE_MARK), S::MarkClear(MASQUERADE_MARK), S::Masquerade]),
        // An endpoint that reached itself through its Service must not see its own address as the peer's.
        Rule::new([S::Translated, S::InSet { fields: pair, set: HAIRPIN.to_owned(), not: false }, S::Masquerade]),
    ];
    fragment.chains.insert(
        "nat-postrouting".to_owned(),
        Chain::base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT, masquerade),
    );
    fragment
}

/// What the ports of one Service need. `cluster_cidr`: whoever is in it has no need of another address to be answered.
pub(crate) fn service(ports: &[ServicePort], cluster_cidr: Option<IpNet>) -> Fragment {
    let mut fragment = Fragment::default();
    for port in ports {
        add_port(&mut fragment, port, cluster_cidr);
    }
    fragment
}

fn add_port(fragment: &mut Fragment, port: &ServicePort, cluster_cidr: Option<IpNet>) {
    let chain = |kind: &str| format!("{kind}-{}", port.id);
    let (anywhere, here) = (&port.endpoints.cluster, &port.endpoints.local);
    let uses_local = port.internal_local || (port.external_local && is_external(port));
    let used: BTreeSet<&SocketAddr> = anywhere.iter().chain(here.iter().filter(|_| uses_local)).collect();

    if !anywhere.is_empty() {
        let mut rules = Vec::new();
        if !port.internal_local {
            rules.extend(masquerade_strangers(port, cluster_cidr));
        }
        rules.extend(balance(port, anywhere));
        fragment.chains.insert(chain("service"), Chain::new(rules));
    }
    if uses_local && !here.is_empty() {
        let mut rules = Vec::new();
        if port.internal_local {
            rules.extend(masquerade_strangers(port, cluster_cidr));
        }
        rules.extend(balance(port, here));
        fragment.chains.insert(chain("local"), Chain::new(rules));
    }
    for endpoint in &used {
        fragment.element(HAIRPIN, [KeyPart::Ip(endpoint.ip()), KeyPart::Ip(endpoint.ip())], None);
        if let Some(timeout) = port.affinity {
            let set = affinity_set(port, endpoint);
            let spec = SetSpec { key: vec![Field::SourceIp], verdicts: false, timeout: Some(timeout) };
            fragment.sets.insert(set.clone(), spec);
            let stay = Statement::Update { fields: vec![Field::SourceIp], set };
            let rule = Rule::new([stay, Statement::Dnat(vec![**endpoint])]);
            fragment.chains.insert(endpoint_chain(port, endpoint), Chain::new([rule]));
        }
    }

    // Where a packet goes, or that it is refused: where nobody serves at all, with an answer; where somebody does,
    // only not on this node, in silence, so that a load balancer asks another node.
    let nobody = |silently: bool| if silently { Verdict::Drop } else { Verdict::Goto(REJECT.to_owned()) };
    let inside = match port.internal_local {
        true => (!here.is_empty()).then(|| chain("local")),
        false => (!anywhere.is_empty()).then(|| chain("service")),
    };
    let refused_inside = inside.is_none().then(|| nobody(!anywhere.is_empty()));
    let outside = (is_external(port) && !anywhere.is_empty()).then(|| chain("external"));
    let refused_outside =
        (anywhere.is_empty() || (port.external_local && here.is_empty())).then(|| nobody(!anywhere.is_empty()));
    if let Some(name) = &outside {
        fragment.chains.insert(name.clone(), external(port, cluster_cidr));
    }

    if let Some(ip) = port.cluster_ip {
        fragment.element(CLUSTER_IPS, [KeyPart::Ip(ip)], None);
        if let Some(chain) = inside {
            fragment.element(SERVICE_IPS, key(port, ip), Some(Verdict::Goto(chain)));
        }
        if let Some(verdict) = refused_inside {
            fragment.element(NO_ENDPOINT_SERVICES, key(port, ip), Some(verdict));
        }
    }
    let guarded = outside.as_ref().map(|outside| firewall(fragment, port, outside));
    let balanced = port.load_balancer_ips.iter().map(|ip| (ip, &guarded));
    for (ip, target) in port.external_ips.iter().map(|ip| (ip, &outside)).chain(balanced) {
        if let Some(chain) = target {
            fragment.element(SERVICE_IPS, key(port, *ip), Some(Verdict::Goto(chain.clone())));
        }
        if let Some(verdict) = &refused_outside {
            fragment.element(NO_ENDPOINT_SERVICES, key(port, *ip), Some(verdict.clone()));
        }
    }
    if let Some(node_port) = port.node_port {
        let key = [KeyPart::Protocol(port.protocol), KeyPart::Port(node_port)];
        if let Some(chain) = outside {
            fragment.element(SERVICE_NODEPORTS, key, Some(Verdict::Goto(chain)));
        }
        if let Some(verdict) = refused_outside {
            fragment.element(NO_ENDPOINT_NODEPORTS, key, Some(verdict));
        }
    }
}

fn key(port: &ServicePort, ip: IpAddr) -> [KeyPart; 3] {
    [KeyPart::Ip(ip), KeyPart::Protocol(port.protocol), KeyPart::Port(port.port)]
}

fn is_external(port: &ServicePort) -> bool {
    port.node_port.is_some() || !port.external_ips.is_empty() || !port.load_balancer_ips.is_empty()
}

/// Whoever comes to the cluster address from outside the pod network has to be answered through this node.
fn masquerade_strangers(port: &ServicePort, cluster_cidr: Option<IpNet>) -> Option<Rule> {
    let (ip, net) = (port.cluster_ip?, cluster_cidr?);
    Some(Rule::new([
        Statement::Is(Field::DestinationIp, KeyPart::Ip(ip)),
        Statement::InNet { field: Field::SourceIp, net, not: true },
        Statement::MarkSet(MASQUERADE_MARK),
    ]))
}

/// One of the endpoints; the client's own, where it has one.
fn balance(port: &ServicePort, endpoints: &[SocketAddr]) -> Vec<Rule> {
    if port.affinity.is_none() {
        return vec![Rule::new([Statement::Dnat(endpoints.to_vec())])];
    }
    let stays = endpoints.iter().map(|endpoint| {
        let known = Statement::InSet { fields: vec![Field::SourceIp], set: affinity_set(port, endpoint), not: false };
        Rule::new([known, Statement::Verdict(Verdict::Goto(endpoint_chain(port, endpoint)))])
    });
    let chains = endpoints.iter().map(|endpoint| endpoint_chain(port, endpoint)).collect();
    stays.chain([Rule::new([Statement::RandomGoto(chains)])]).collect()
}

/// Traffic that came to a node port or an external address.
fn external(port: &ServicePort, cluster_cidr: Option<IpNet>) -> Chain {
    let service = || Statement::Verdict(Verdict::Goto(format!("service-{}", port.id)));
    let mark = || Statement::MarkSet(MASQUERADE_MARK);
    if !port.external_local {
        // The endpoint may be on another node, whose answer has to come back this way.
        return Chain::new([Rule::new([mark()]), Rule::new([service()])]);
    }
    // Pods and this host's processes are inside and may go anywhere.
    let from_pod = cluster_cidr.map(|net| {
        let from_pod = Statement::InNet { field: Field::SourceIp, net, not: false };
        Rule::new([from_pod, service()])
    });
    let mut rules: Vec<Rule> = from_pod.into_iter().collect();
    rules.push(Rule::new([Statement::LocalSource, mark()]));
    rules.push(Rule::new([Statement::LocalSource, service()]));
    if !port.endpoints.local.is_empty() {
        rules.push(Rule::new([Statement::Verdict(Verdict::Goto(format!("local-{}", port.id)))]));
    }
    Chain::new(rules)
}

/// The chain that a load balancer's addresses lead to: `outside` itself unless only some may use it.
fn firewall(fragment: &mut Fragment, port: &ServicePort, outside: &str) -> String {
    if port.source_ranges.is_empty() || port.load_balancer_ips.is_empty() {
        return outside.to_owned();
    }
    let allowed = port.source_ranges.iter().map(|net| {
        let inside = Statement::InNet { field: Field::SourceIp, net: net.trunc(), not: false };
        Rule::new([inside, Statement::Verdict(Verdict::Goto(outside.to_owned()))])
    });
    let name = format!("firewall-{}", port.id);
    let others = Rule::new([Statement::Verdict(Verdict::Drop)]);
    fragment.chains.insert(name.clone(), Chain::new(allowed.chain([others])));
    name
}

fn affinity_set(port: &ServicePort, endpoint: &SocketAddr) -> String {
    format!("affinity-{}/{}", port.id, plain(endpoint))
}

fn endpoint_chain(port: &ServicePort, endpoint: &SocketAddr) -> String {
    format!("endpoint-{}/{}", port.id, plain(endpoint))
}

/// An address in characters that `nft` takes in names.
fn plain(endpoint: &SocketAddr) -> String {
    format!("{}/{}", endpoint.ip().to_string().replace(':', "."), endpoint.port())
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8)),
        Family::Ipv6 => IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use network::nft::Table;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    /// The rules of one Service as text; with its shared parts, if asked.
    fn text(service: Value, slices: Vec<Value>, family: Family) -> String {
        let service: Service = serde_json::from_value(service).unwrap();
        let slices: Vec<EndpointSlice> =
            slices.into_iter().map(|slice| serde_json::from_value(slice).unwrap()).collect();
        let ports = crate::model::ports(&service, slices.iter(), family, "here");
        let cidr = match family {
            Family::Ipv4 => "10.42.0.0/16",
            Family::Ipv6 => "fd42::/48",
        };
        let fragment = super::service(&ports, Some(cidr.parse().unwrap()));
        // Whatever is led to is there.
        let shared = base(family);
        let chains: BTreeSet<&str> = fragment.chains.keys().chain(shared.chains.keys()).map(String::as_str).collect();
        assert!(fragment.targets().is_subset(&chains), "{:?}", fragment.targets());
        let mut table = Table::new(family, "t");
        table.set("default/web", Some(Arc::new(fragment)));
        table.text()
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec})
    }

    fn slice(endpoints: Value) -> Value {
        json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints,
               "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]})
    }

    fn endpoint(ip: &str, node: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        json!({"addresses": [ip], "nodeName": node,
               "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
    }

    /// Compares with a file beside this one. `GOLDEN=write` writes it anew.
    fn golden(name: &str, text: &str) {
        let path = format!("{}/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}");
    }

    #[test]
    fn shared_parts() {
        for (family, name) in [(Family::Ipv4, "base"), (Family::Ipv6, "base6")] {
            let mut table = Table::new(family, "cluster-services");
            table.set("", Some(Arc::new(base(family))));
            golden(name, &table.text());
        }
    }

    #[test]
    fn each_kind_of_service() {
        let http = json!({"name": "http", "port": 80, "protocol": "TCP"});
        let two = || {
            slice(json!([
                endpoint("10.42.0.2", "here", true, true, false),
                endpoint("10.42.1.2", "there", true, true, false),
                endpoint("10.42.1.3", "there", false, false, false)
            ]))
        };
        let far = || slice(json!([endpoint("10.42.1.2", "there", true, true, false)]));
        let leaving = || {
            slice(json!([
                endpoint("10.42.0.2", "here", false, true, true),
                endpoint("10.42.0.3", "here", false, false, true)
            ]))
        };
        let cluster_ip = |more: Value| {
            let mut spec = json!({"clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"], "ports": [http]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            service(spec)
        };
        let node_port = json!([{"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"}]);
        let v4 = |service, slices| text(service, slices, Family::Ipv4);
        golden("cluster-ip", &v4(cluster_ip(json!({})), vec![two()]));
        golden("no-endpoints", &v4(cluster_ip(json!({"type": "NodePort", "ports": node_port})), vec![]));
        golden("terminating", &v4(cluster_ip(json!({})), vec![leaving()]));
        golden(
            "affinity",
            &v4(
                cluster_ip(json!({"sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}})),
                vec![two()],
            ),
        );
        golden("internal-local", &v4(cluster_ip(json!({"internalTrafficPolicy": "Local"})), vec![two()]));
        golden("internal-local-elsewhere", &v4(cluster_ip(json!({"internalTrafficPolicy": "Local"})), vec![far()]));
        golden("node-port", &v4(cluster_ip(json!({"type": "NodePort", "ports": node_port})), vec![two()]));
        let local = json!({"type": "NodePort", "externalTrafficPolicy": "Local", "ports": node_port});
        golden("external-local", &v4(cluster_ip(local.clone()), vec![two()]));
        golden("external-local-elsewhere", &v4(cluster_ip(local), vec![far()]));
        let mut balanced = cluster_ip(json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.9"],
            "loadBalancerSourceRanges": ["198.51.100.0/24", "192.0.2.0/24"]}));
        balanced["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "x"}]}});
        golden("load-balancer", &v4(balanced, vec![two()]));
        let six = json!({"metadata": {}, "addressType": "IPv6", "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["fd42::2"]}, {"addresses": ["fd42::3"]}]});
        let dual = cluster_ip(json!({"clusterIPs": ["10.43.0.1", "fd43::1"]}));
        golden("ipv6", &text(dual, vec![two(), six], Family::Ipv6));
    }

    #[test]
    fn what_is_not_routed() {
        let nothing = "table ip t\n# default/web\n";
        let ports = json!([{"name": "http", "port": 80}]);
        for spec in [
            json!({"clusterIP": "None", "ports": ports}),
            json!({"type": "ExternalName", "externalName": "example.com", "ports": ports}),
            json!({"clusterIP": "fd43::1", "ports": ports}),
            json!({"clusterIP": "10.43.0.1", "ports": [{"port": 0x1_0001, "protocol": "TCP"}, {"port": 1, "protocol": "XYZ"}]}),
        ] {
            assert_eq!(text(service(spec), vec![], Family::Ipv4), nothing);
        }
        let mut foreign = service(json!({"clusterIP": "10.43.0.1", "ports": ports}));
        foreign["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
        assert_eq!(text(foreign, vec![], Family::Ipv4), nothing);
    }
}
