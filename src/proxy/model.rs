//! Services and EndpointSlices, reduced to what rules depend on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use network::nft::{Family, Protocol};

/// Upstream's default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;
/// A Service with this label is somebody else's to route.
const FOREIGN_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// A Service port as one family's packets see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// `namespace/name/protocol/port`: names the port's chains.
    pub id: String,
    pub protocol: Protocol,
    pub port: u16,
    pub cluster_ip: Option<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty for everybody.
    pub source_ranges: Vec<IpNet>,
    pub node_port: Option<u16>,
    /// How long a client stays with its endpoint.
    pub affinity: Option<Duration>,
    pub internal_local: bool,
    pub external_local: bool,
    pub endpoints: Endpoints,
}

/// Who traffic goes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Endpoints {
    /// Anywhere.
    pub cluster: Vec<SocketAddr>,
    /// On this node.
    pub local: Vec<SocketAddr>,
}

/// The ports of a Service that are routed for this family's packets. Sorted, each with its endpoints.
pub(crate) fn ports<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    family: Family,
    node_name: &str,
) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if !is_routed(service, spec) {
        return Vec::new();
    }
    let cluster_ip = cluster_ips(spec).find(|ip| is_of(family, *ip));
    let external_ips: Vec<IpAddr> = parsed(spec.external_ips.iter().flatten(), family);
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref()).flatten();
    // A load balancer in mode Proxy wants its traffic for itself.
    let ingress = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let load_balancer_ips: Vec<IpAddr> = match spec.type_.as_deref() {
        Some("LoadBalancer") => parsed(ingress.filter_map(|ingress| ingress.ip.as_ref()), family),
        _ => Vec::new(),
    };
    // Node ports and external addresses of a Service without a cluster address of this family have no endpoints.
    if cluster_ip.is_none() {
        return Vec::new();
    }
    let ranges = spec.load_balancer_source_ranges.iter().flatten().filter_map(|range| range.trim().parse().ok());
    let source_ranges: Vec<IpNet> = ranges.filter(|range: &IpNet| is_of(family, range.addr())).collect();
    let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let mut ports: Vec<ServicePort> = Vec::new();
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) = (protocol(port.protocol.as_deref()), u16::try_from(port.port)) else {
            continue;
        };
        ports.push(ServicePort {
            id: format!("{namespace}/{name}/{protocol}/{number}"),
            protocol,
            port: number,
            cluster_ip,
            external_ips: external_ips.clone(),
            load_balancer_ips: load_balancer_ips.clone(),
            source_ranges: source_ranges.clone(),
            node_port: port
                .node_port
                .filter(|_| has_node_ports)
                .and_then(|port| u16::try_from(port).ok())
                .filter(|p| *p != 0),
            affinity: affinity(spec),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            endpoints: endpoints(slices.clone(), family, port.name.as_deref().unwrap_or_default(), protocol, node_name),
        });
    }
    ports.sort_by(|a, b| a.id.cmp(&b.id));
    ports
}

/// All cluster addresses of a Service that has any.
pub(crate) fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> {
    let many = spec.cluster_ips.iter().flatten();
    let one = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
    many.chain(one).filter_map(|ip| ip.parse().ok())
}

fn is_routed(service: &Service, spec: &ServiceSpec) -> bool {
    let foreign = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(FOREIGN_PROXY_LABEL));
    !foreign && spec.type_.as_deref() != Some("ExternalName")
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let seconds = configured.unwrap_or(AFFINITY_SECONDS).max(1);
    Some(Duration::from_secs(u64::from(seconds.unsigned_abs())))
}

/// Those that are ready; where none is, those that still serve while they terminate.
fn endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    family: Family,
    port_name: &str,
    wanted: Protocol,
    node_name: &str,
) -> Endpoints {
    // One address may be in several slices for a moment; it is as good as its best entry.
    let mut found: BTreeMap<SocketAddr, (Usable, bool)> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type == address_type(family)) {
        let Some(port) = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or_default() == port_name && protocol(port.protocol.as_deref()) == Some(wanted)
        }) else {
            continue;
        };
        let Some(port) = port.port.and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            // Upstream: all addresses of an endpoint are the same thing, so the first will do.
            let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else { continue };
            let Some(usable) = usable(endpoint) else { continue };
            if !is_of(family, ip) {
                continue;
            }
            let local = endpoint.node_name.as_deref() == Some(node_name);
            let entry = found.entry(SocketAddr::new(ip, port)).or_insert((usable, local));
            *entry = (entry.0.max(usable), entry.1 || local);
        }
    }
    let best = |only_local: bool| {
        let mut chosen: Vec<SocketAddr> = Vec::new();
        for level in [Usable::Ready, Usable::Terminating] {
            let matching = found.iter().filter(|(_, (usable, local))| *usable == level && (*local || !only_local));
            chosen = matching.map(|(address, _)| *address).collect();
            if !chosen.is_empty() {
                break;
            }
        }
        chosen
    };
    Endpoints { cluster: best(false), local: best(true) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Usable {
    /// On its way out, and serving until then.
    Terminating,
    Ready,
}

fn usable(endpoint: &Endpoint) -> Option<Usable> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match (ready, serving && conditions.terminating.unwrap_or(false)) {
        (true, _) => Some(Usable::Ready),
        (false, true) => Some(Usable::Terminating),
        (false, false) => None,
    }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn address_type(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

fn is_of(family: Family, ip: IpAddr) -> bool {
    ip.is_ipv4() == (family == Family::Ipv4)
}

fn parsed<'a>(texts: impl Iterator<Item = &'a String>, family: Family) -> Vec<IpAddr> {
    texts.filter_map(|ip| ip.parse().ok()).filter(|ip| is_of(family, *ip)).collect()
}
