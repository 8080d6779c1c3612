//! Services, Endpoints and EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, meta, path::Path, strategy::service::needs_health_port};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const HINTS_MAX: usize = 8;
const SLICE_PORTS_MAX: usize = 20_000;

fn is_headless(spec: &Value) -> bool {
    spec.text("clusterIP") == "None" || spec.list("clusterIPs").first().is_some_and(|ip| ip == "None")
}

pub fn service(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let kind = spec.text("type");
    let ips = path.field("clusterIPs");
    if spec.list("ports").is_empty() && !is_headless(spec) && kind != "ExternalName" {
        check.required(&path.field("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let text = format!("may not be set to 'None' for {kind} services");
            check.invalid(&ips.index(0), &"None".into(), &text);
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.has(name) && (name == "ipFamilyPolicy" || !spec.list(name).is_empty()) {
                    check.forbidden(&path.field(name), "may not be set for ExternalName services");
                }
            }
            let name = spec.text("externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                check.required(&path.field("externalName"), "");
            } else {
                check.found(&path.field("externalName"), name, format::dns_subdomain(name));
            }
        }
        _ => {}
    }
    ports(check, spec, &path);
    meta::labels(spec.map("selector"), &path.field("selector"), check.errors);
    affinity(check, spec, &path);
    if kind != "ExternalName" {
        cluster_ips(check, spec, &path);
    }
    let external = path.field("externalIPs");
    for (index, ip) in spec.list("externalIPs").iter().enumerate() {
        endpoint_ip(check, ip.as_str().unwrap_or_default(), &external.index(index));
    }
    check.choice(spec, &path, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    distinct_ports(check, spec, &path);
    traffic(check, spec, &path);
}

fn ports(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let list = path.field("ports");
    let all = spec.list("ports");
    let mut names = BTreeSet::new();
    for (index, port) in all.iter().enumerate() {
        let path = list.index(index);
        let name = port.text("name");
        if name.is_empty() {
            if all.len() > 1 {
                check.required(&path.field("name"), "");
            }
        } else {
            check.found(&path.field("name"), name, format::dns_label(name));
            if !names.insert(name) {
                check.duplicate(&path.field("name"), &name.into());
            }
        }
        check.port(port, &path, "port");
        check.choice(port, &path, "protocol", PROTOCOLS);
        check.port(port, &path, "targetPort");
        let application = port.text("appProtocol");
        if port.has("appProtocol") {
            check.found(&path.field("appProtocol"), application, format::label_key(application));
        }
    }
}

/// Ports of nodes only where there are any, and none twice.
fn distinct_ports(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let list = path.field("ports");
    let ports = || spec.list("ports").iter().enumerate();
    let with_node_port = || ports().filter(|(_, port)| port.int("nodePort").unwrap_or_default() != 0);
    if spec.text("type") == "ClusterIP" {
        for (index, _) in with_node_port() {
            check.forbidden(&list.index(index).field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let (mut node_ports, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in with_node_port() {
        if !node_ports.insert((port.text("protocol"), port.int("nodePort"))) {
            check.duplicate(&list.index(index).field("nodePort"), port.part("nodePort"));
        }
    }
    for (index, port) in ports() {
        let path = list.index(index);
        if !numbers.insert((port.text("protocol"), port.int("port"))) {
            check.duplicate(&path, &json!({"port": port.part("port"), "protocol": port.part("protocol")}));
        }
    }
}

fn affinity(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    check.choice(spec, path, "sessionAffinity", &["ClientIP", "None"]);
    let config_path = path.field("sessionAffinityConfig");
    match (spec.text("sessionAffinity"), spec.at("sessionAffinityConfig")) {
        ("None", Some(_)) => check.forbidden(&config_path, "must not be set when session affinity is None"),
        ("ClientIP", None) => check.required(&config_path, "when session affinity type is ClientIP"),
        ("ClientIP", Some(config)) => {
            let path = config_path.field("clientIP");
            let seconds = config.part("clientIP").int("timeoutSeconds").unwrap_or_default();
            if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
                let text = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                check.invalid(&path.field("timeoutSeconds"), &seconds.into(), &text);
            }
        }
        _ => {}
    }
}

fn cluster_ips(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let list = path.field("clusterIPs");
    let (first, ips) = (spec.text("clusterIP"), spec.list("clusterIPs"));
    // Wrong addresses would say nothing useful about their families.
    let mut wrong = false;
    match ips.first() {
        None if !first.is_empty() => check.required(&list, ""),
        Some(_) if first.is_empty() => {
            check.invalid(&list, spec.part("clusterIPs"), "must be empty when `clusterIP` is not specified");
        }
        Some(listed) if listed != first => {
            check.invalid(&list, spec.part("clusterIPs"), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = path.field("ipFamilies");
    for (index, family) in spec.list("ipFamilies").iter().enumerate() {
        if !matches!(family.as_str(), Some("IPv4" | "IPv6")) {
            check.not_supported(&families.index(index), family, &["IPv4", "IPv6"]);
        }
        if spec.list("ipFamilies")[..index].contains(family) {
            check.duplicate(&families.index(index), family);
        }
    }
    check.one_of(spec, path, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    for (index, ip) in ips.iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if index == 0 && ip == "None" {
            if ips.len() > 1 {
                wrong = true;
                check.invalid(&list, spec.part("clusterIPs"), "'None' must be the first and only value");
            }
            continue;
        }
        let findings = format::ip(ip);
        wrong |= !findings.is_empty();
        check.found(&list.index(index), ip, findings);
    }
    if ips.len() > 2 {
        check.invalid(&list, spec.part("clusterIPs"), "may only hold up to 2 values");
    }
    if wrong {
        return;
    }
    let is_six = |ip: &Value| ip.as_str().is_some_and(|ip| ip.contains(':'));
    if ips.len() > 1 && (ips.iter().all(is_six) || !ips.iter().any(is_six)) {
        let text = "may specify no more than one IP for each IP family";
        check.invalid(&list, spec.part("clusterIPs"), text);
    }
    if is_headless(spec) {
        return;
    }
    for (index, (ip, family)) in ips.iter().zip(spec.list("ipFamilies")).enumerate() {
        let own = if is_six(ip) { "IPv6" } else { "IPv4" };
        if let Some(family) = family.as_str().filter(|family| matches!(*family, "IPv4" | "IPv6") && *family != own) {
            let text = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            check.invalid(&list.index(index), ip, &text);
        }
    }
}

fn traffic(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let kind = spec.text("type");
    let balanced = kind == "LoadBalancer";
    let outside = balanced || kind == "NodePort" || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    if !balanced {
        for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec.has(name) {
                check.forbidden(&path.field(name), "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
    let ranges = path.field("LoadBalancerSourceRanges");
    if !spec.list("loadBalancerSourceRanges").is_empty() && !balanced {
        check.forbidden(&ranges, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in spec.list("loadBalancerSourceRanges").iter().enumerate() {
        let range = range.as_str().unwrap_or_default().trim();
        check.found(&ranges.index(index), range, format::cidr(range));
    }
    let class = spec.text("loadBalancerClass");
    if balanced && spec.has("loadBalancerClass") {
        check.found(&path.field("loadBalancerClass"), class, format::label_key(class));
    }
    let policy = spec.text("externalTrafficPolicy");
    if outside {
        check.choice(spec, path, "externalTrafficPolicy", &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        let text = "may only be set for externally-accessible services";
        check.invalid(&path.field("externalTrafficPolicy"), &policy.into(), text);
    }
    let health = spec.int("healthCheckNodePort").unwrap_or_default();
    if health != 0 && !needs_health_port(spec) {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        check.invalid(&path.field("healthCheckNodePort"), &health.into(), text);
    } else if health != 0 {
        check.port(spec, path, "healthCheckNodePort");
    }
    if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") && !spec.has("internalTrafficPolicy") {
        check.required(&path.field("internalTrafficPolicy"), "");
    }
    check.one_of(spec, path, "internalTrafficPolicy", &["Cluster", "Local"]);
    check.one_of(spec, path, "trafficDistribution", &["PreferClose", "PreferSameZone", "PreferSameNode"]);
}

pub fn service_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    match subresource {
        None => {}
        Some("status") => return super::balancer::service_status(&mut Check { errors }, object),
        Some(_) => return,
    }
    service(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let (spec, before) = (object.part("spec"), old.part("spec"));
    if spec.text("type") == "ExternalName" || before.text("type") == "ExternalName" {
        return;
    }
    let list = path.field("clusterIPs");
    let (new_ips, old_ips) = (spec.list("clusterIPs"), before.list("clusterIPs"));
    if new_ips.is_empty() && !old_ips.is_empty() {
        check.invalid(&list.index(0), &json!([]), "primary clusterIP can not be unset");
    }
    for (index, (new, old)) in new_ips.iter().zip(old_ips).enumerate() {
        if new != old {
            check.invalid(&list.index(index), spec.part("clusterIPs"), "may not change once set");
        }
    }
    if new_ips.len() == 1 && old_ips.len() == 2 && spec.text("ipFamilyPolicy") != "SingleStack" {
        let text = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        check.invalid(&path.field("ipFamilyPolicy"), spec.part("ipFamilyPolicy"), text);
    }
    if spec.text("type") == "LoadBalancer" && before.text("type") == "LoadBalancer" {
        let class = path.field("loadBalancerClass");
        if spec.text("loadBalancerClass") != before.text("loadBalancerClass") {
            check.invalid(&class, spec.part("loadBalancerClass"), "may not change once set");
        }
    }
}

/// An address that traffic can be sent to.
fn endpoint_ip(check: &mut Check<'_>, ip: &str, path: &Path<'_>) {
    let Ok(address) = ip.parse::<IpAddr>() else {
        return check.found(path, ip, format::ip(ip));
    };
    let (local, local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    let value = Value::from(ip);
    if address.is_unspecified() {
        check.invalid(path, &value, &format!("may not be unspecified ({ip})"));
    }
    if address.is_loopback() {
        check.invalid(path, &value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if local {
        check.invalid(path, &value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_multicast {
        check.invalid(path, &value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub fn endpoints(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let list = root.field("subsets");
    for (index, subset) in object.list("subsets").iter().enumerate() {
        let path = list.index(index);
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            check.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for name in ["addresses", "notReadyAddresses"] {
            let list = path.field(name);
            for (index, address) in subset.list(name).iter().enumerate() {
                let path = list.index(index);
                let ip = address.text("ip");
                check.found(&path.field("ip"), ip, format::ip(ip));
                let host = address.text("hostname");
                if !host.is_empty() {
                    check.found(&path.field("hostname"), host, format::dns_label(host));
                }
                let node = address.text("nodeName");
                if address.has("nodeName") {
                    check.found(&path.field("nodeName"), node, format::dns_subdomain(node));
                }
                if ip.parse::<IpAddr>().is_ok() {
                    endpoint_ip(check, ip, &path.field("ip"));
                } else {
                    check.invalid(&path.field("ip"), &ip.into(), "must be a valid IP address");
                }
            }
        }
        let ports = path.field("ports");
        for (index, port) in subset.list("ports").iter().enumerate() {
            let path = ports.index(index);
            let name = port.text("name");
            if name.is_empty() && subset.list("ports").len() > 1 {
                check.required(&path.field("name"), "");
            } else if !name.is_empty() {
                check.found(&path.field("name"), name, format::dns_label(name));
            }
            check.port(port, &path, "port");
            check.choice(port, &path, "protocol", PROTOCOLS);
            if port.has("appProtocol") {
                let application = port.text("appProtocol");
                check.found(&path.field("appProtocol"), application, format::label_key(application));
            }
        }
    }
}

pub fn endpoint_slice(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let kind = object.text("addressType");
    check.choice(object, &root, "addressType", &["FQDN", "IPv4", "IPv6"]);
    let list = root.field("endpoints");
    let endpoints = object.list("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        return check.errors.push(FieldError::too_many(&list, endpoints.len(), ENDPOINTS_MAX));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = list.index(index);
        let addresses = path.field("addresses");
        match endpoint.list("addresses").len() {
            0 => check.required(&addresses, "must contain at least 1 address"),
            count if count > ADDRESSES_MAX => {
                check.errors.push(FieldError::too_many(&addresses, count, ADDRESSES_MAX));
            }
            _ => {}
        }
        for (index, address) in endpoint.list("addresses").iter().enumerate() {
            let (path, text) = (addresses.index(index), address.as_str().unwrap_or_default());
            match (kind, text.parse::<IpAddr>()) {
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => endpoint_ip(check, text, &path),
                ("IPv4" | "IPv6", Ok(_)) => check.invalid(&path, address, &format!("must be an {kind} address")),
                ("IPv4" | "IPv6", Err(_)) => check.found(&path, text, format::ip(text)),
                ("FQDN", _) => check.found(&path, text, format::dns_subdomain(text)),
                _ => {}
            }
        }
        let node = endpoint.text("nodeName");
        if endpoint.has("nodeName") {
            check.found(&path.field("nodeName"), node, format::dns_subdomain(node));
        }
        let host = endpoint.text("hostname");
        if endpoint.has("hostname") {
            check.found(&path.field("hostname"), host, format::dns_label(host));
        }
        hints(check, endpoint.part("hints"), &path.field("hints"));
    }
    slice_ports(check, object, &root);
}

/// For which zones and nodes an endpoint is meant.
fn hints(check: &mut Check<'_>, hints: &Value, path: &Path<'_>) {
    for name in ["forZones", "forNodes"] {
        let (list, here) = (hints.list(name), path.field(name));
        if list.len() > HINTS_MAX {
            check.errors.push(FieldError::too_many(&here, list.len(), HINTS_MAX));
            continue;
        }
        let mut seen = BTreeSet::new();
        for (index, hint) in list.iter().enumerate() {
            let (path, value) = (here.index(index), hint.text("name"));
            let path = path.field("name");
            if !seen.insert(value) {
                check.duplicate(&path, &value.into());
                continue;
            }
            let findings = if name == "forZones" { format::label_value(value) } else { format::dns_subdomain(value) };
            check.found(&path, value, findings);
        }
    }
}

fn slice_ports(check: &mut Check<'_>, object: &Value, root: &Path<'_>) {
    let list = root.field("ports");
    let ports = object.list("ports");
    if ports.len() > SLICE_PORTS_MAX {
        return check.errors.push(FieldError::too_many(&list, ports.len(), SLICE_PORTS_MAX));
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            check.found(&path.field("name"), name, format::dns_label(name));
        }
        if !names.insert(name) {
            check.duplicate(&path.field("name"), port.part("name"));
        }
        if port.has("protocol") {
            check.one_of(port, &path, "protocol", PROTOCOLS);
        } else {
            check.required(&path.field("protocol"), "");
        }
        let application = port.text("appProtocol");
        if port.has("appProtocol") {
            check.found(&path.field("appProtocol"), application, format::label_key(application));
        }
    }
}

pub fn endpoint_slice_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    endpoint_slice(object, errors);
    Check { errors }.unchanged(object, old, &Path::Root, "addressType");
}
