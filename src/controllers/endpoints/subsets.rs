//! The subsets that an Endpoints object should have. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::endpointslice::slices::number;
use crate::shared::pods;

/// Addresses in one object; of those beyond it the ready ones are kept rather than others.
const ADDRESSES_MAX: usize = 1000;
pub const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Name, number, protocol and application protocol.
type Port = (Option<String>, i32, Option<String>, Option<String>);

/// The object for a Service and the pods that it selects, made of the one that is there.
pub fn wanted(service: &Service, pods: &[Arc<Pod>], known: Option<&Endpoints>) -> Endpoints {
    let mut endpoints = known.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        ..Endpoints::default()
    });
    let mut subsets = pack(by_port(service, pods));
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    if truncate(&mut subsets) {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    endpoints.metadata.annotations = endpoints.metadata.annotations.filter(|annotations| !annotations.is_empty());
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    if matches!(cluster_ip, "" | "None") {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    endpoints.metadata.labels = Some(labels);
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints
}

/// An address and whether it is ready, by what tells addresses apart.
type Addresses = BTreeMap<(String, String), (EndpointAddress, bool)>;

/// The addresses behind each port; `None` stands for a headless Service without ports.
fn by_port(service: &Service, pods: &[Arc<Pod>]) -> BTreeMap<Option<Port>, Addresses> {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let headless = spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    let ports: &[ServicePort] = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut by_port: BTreeMap<Option<Port>, Addresses> = BTreeMap::new();
    for pod in pods {
        if pods::is_finished(pod) || (pods::is_deleted(pod) && !publish) {
            continue;
        }
        let Some(address) = address(service, pod) else { continue };
        let ready = publish || pods::is_ready(pod);
        let key = (address.ip.clone(), pod.metadata.uid.clone().unwrap_or_default());
        let mut add = |port: Option<Port>| {
            by_port.entry(port).or_default().insert(key.clone(), (address.clone(), ready));
        };
        if ports.is_empty() && headless {
            add(None);
        }
        for port in ports {
            if let Some(number) = number(port, pod) {
                let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
                add(Some((text(&port.name), number, port.protocol.clone(), text(&port.app_protocol))));
            }
        }
    }
    by_port
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let spec = service.spec.as_ref()?;
    let status = pod.status.as_ref()?;
    let is_v6 = |text: &str| matches!(text.parse(), Ok(IpAddr::V6(_)));
    let family = spec.ip_families.as_ref().and_then(|families| families.first());
    let cluster_ip = spec.cluster_ip.as_deref().filter(|ip| !matches!(*ip, "" | "None"));
    let wants_v6 = match (family, cluster_ip) {
        (Some(family), _) => family == "IPv6",
        (None, Some(ip)) => is_v6(ip),
        (None, None) => is_v6(status.pod_ip.as_deref().unwrap_or_default()),
    };
    let ip = status.pod_ips.iter().flatten().find(|one| is_v6(&one.ip) == wants_v6)?.ip.parse::<IpAddr>().ok()?;
    let pod_spec = pod.spec.as_ref();
    let named = pod_spec.filter(|spec| spec.subdomain.is_some() && spec.subdomain == service.metadata.name);
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: named.and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty()),
        node_name: pods::node_name(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

/// Ports with the same addresses stand in one subset.
fn pack(by_port: BTreeMap<Option<Port>, Addresses>) -> Vec<EndpointSubset> {
    let mut packed: Vec<(Addresses, BTreeSet<Port>)> = Vec::new();
    for (port, addresses) in by_port {
        match packed.iter_mut().find(|(known, _)| *known == addresses) {
            Some((_, ports)) => ports.extend(port),
            None => packed.push((addresses, port.into_iter().collect())),
        }
    }
    let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    let subset = |(addresses, ports): (Addresses, BTreeSet<Port>)| {
        let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.into_values().partition(|(_, ready)| *ready);
        let only = |list: Vec<(EndpointAddress, bool)>| list.into_iter().map(|(address, _)| address).collect();
        let ports: Vec<EndpointPort> = ports
            .into_iter()
            .map(|(name, port, protocol, app_protocol)| EndpointPort { name, port, protocol, app_protocol })
            .collect();
        EndpointSubset {
            addresses: some(only(ready)),
            not_ready_addresses: some(only(not_ready)),
            ports: (!ports.is_empty()).then_some(ports),
        }
    };
    packed.into_iter().map(subset).collect()
}

/// Leaves no more addresses than may be, shared out among the subsets; true if some had to go.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let len = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| len(&subset.addresses)).sum();
    let not_ready: usize = subsets.iter().map(|subset| len(&subset.not_ready_addresses)).sum();
    if ready + not_ready <= ADDRESSES_MAX {
        return false;
    }
    let cuts_ready = ready > ADDRESSES_MAX;
    let (room, of) = if cuts_ready { (ADDRESSES_MAX, ready) } else { (ADDRESSES_MAX - ready, not_ready) };
    let mut left = room;
    for subset in subsets {
        if cuts_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cuts_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (len(list) * room).div_ceil(of).min(left);
        if let Some(list) = list {
            list.truncate(share);
        }
        left -= len(list);
        *list = list.take().filter(|list| !list.is_empty());
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "labels": {"a": "b"}}, "spec": spec}))
            .unwrap()
    }

    fn pod(number: usize, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let (high, low) = (number / 250, number % 250 + 1);
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{number}"), "namespace": "n", "uid": format!("u{number}")},
                "spec": {"nodeName": "node", "hostname": "h", "subdomain": "s",
                         "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"podIP": format!("10.0.{high}.{low}"),
                           "podIPs": [{"ip": format!("10.0.{high}.{low}")}, {"ip": format!("fd00::{number:x}")}],
                           "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn ports_with_the_same_addresses_share_a_subset() {
        let service = service(json!({"clusterIP": "10.43.0.7", "ipFamilies": ["IPv4"], "ports": [
            {"name": "b", "port": 81, "protocol": "TCP"}, {"name": "a", "port": 80, "targetPort": "web", "protocol": "TCP"},
            {"name": "none", "port": 82, "targetPort": "missing", "protocol": "TCP"}]}));
        let got = serde_json::to_value(wanted(&service, &[pod(0, true), pod(1, false)], None)).unwrap();
        let address = |number: usize| {
            json!({"ip": format!("10.0.0.{}", number + 1), "hostname": "h", "nodeName": "node",
                   "targetRef": {"kind": "Pod", "namespace": "n", "name": format!("p{number}"), "uid": format!("u{number}")}})
        };
        assert_eq!(
            got["subsets"],
            json!([{"addresses": [address(0)], "notReadyAddresses": [address(1)], "ports": [
            {"name": "a", "port": 8080, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "TCP"}]}])
        );
        assert_eq!(got["metadata"]["labels"], json!({"a": "b", MANAGED_BY_LABEL: MANAGED_BY}));
        assert_eq!(got["metadata"].get("annotations"), None);
    }

    #[test]
    fn a_headless_service_needs_no_ports() {
        let service = service(json!({"clusterIP": "None", "ipFamilies": ["IPv6"], "publishNotReadyAddresses": true}));
        let got = wanted(&service, &[pod(1, false)], None);
        let subsets = got.subsets.unwrap();
        assert_eq!(subsets[0].addresses.as_ref().unwrap()[0].ip, "fd00::1");
        assert_eq!((&subsets[0].ports, &subsets[0].not_ready_addresses), (&None, &None));
        assert_eq!(got.metadata.labels.unwrap()[HEADLESS_LABEL], "");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said() {
        let service = service(json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80, "protocol": "TCP"}]}));
        let pods: Vec<_> = (0..1100).map(|number| pod(number, number < 900)).collect();
        let got = wanted(&service, &pods, None);
        let subset = &got.subsets.as_ref().unwrap()[0];
        let counts = (subset.addresses.as_ref().unwrap().len(), subset.not_ready_addresses.as_ref().unwrap().len());
        assert_eq!(counts, (900, 100));
        assert_eq!(got.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY], "truncated");
        let fewer = wanted(&service, &pods[..10], Some(&got));
        assert_eq!(fewer.metadata.annotations, None);
        assert_eq!(wanted(&service, &pods[..10], Some(&fewer)), fewer, "a second look changes nothing");
    }
}
