//! The slices that a Service should have, and the least change that leads there. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_LABEL};
use crate::shared::owned::controller_reference;
use crate::shared::pods;

/// Endpoints in one slice, as upstream's `--max-endpoints-per-slice`.
const ENDPOINTS_MAX: usize = 100;

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Pods whose named ports have other numbers stand in slices of their own.
type Group = (String, Vec<Port>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    port: i32,
    protocol: String,
    app_protocol: Option<String>,
}

/// `zones` by node.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &BTreeMap<String, String>,
    known: &[Arc<EndpointSlice>],
) -> Plan {
    let mut groups = wanted(service, pods, zones);
    if groups.is_empty() {
        // A Service without endpoints has one empty slice, so that it can be told from one that was not looked at yet.
        let family = families(service).first().copied().unwrap_or("IPv4");
        groups.insert((family.to_owned(), Vec::new()), BTreeMap::new());
    }
    let mut plan = Plan::default();
    for slice in known {
        let group = (slice.address_type.clone(), ports_of(slice));
        let Some(endpoints) = groups.get_mut(&group) else {
            plan.delete.push(slice.clone());
            continue;
        };
        let mut kept: Vec<Endpoint> =
            slice.endpoints.iter().flatten().filter_map(|endpoint| endpoints.remove(&identity(endpoint))).collect();
        let is_first = !plan.update.iter().chain(&plan.create).any(|other| same_group(other, slice));
        while kept.len() < ENDPOINTS_MAX
            && let Some((_, endpoint)) = endpoints.pop_first()
        {
            kept.push(endpoint);
        }
        if kept.is_empty() && !(is_first && endpoints.is_empty() && group.1.is_empty()) {
            plan.delete.push(slice.clone());
            continue;
        }
        // Absent and empty are the same, and must not look like a change.
        let had_none = slice.endpoints.as_ref().is_none_or(Vec::is_empty);
        let kept = if kept.is_empty() && had_none { slice.endpoints.clone() } else { Some(kept) };
        let mut changed = EndpointSlice { endpoints: kept, ..EndpointSlice::clone(slice) };
        changed.metadata.labels = Some(labels(service));
        if changed != **slice {
            plan.update.push(changed);
        }
        if endpoints.is_empty() {
            groups.remove(&group);
        }
    }
    for ((family, ports), endpoints) in groups {
        let mut rest: Vec<Endpoint> = endpoints.into_values().collect();
        loop {
            let beyond = rest.split_off(rest.len().min(ENDPOINTS_MAX));
            plan.create.push(slice(service, &family, &ports, rest));
            rest = beyond;
            if rest.is_empty() {
                break;
            }
        }
    }
    plan
}

fn same_group(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.address_type == b.address_type && ports_of(a) == ports_of(b)
}

fn families(service: &Service) -> Vec<&str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    families.map(|families| families.iter().map(String::as_str).collect()).unwrap_or_else(|| vec!["IPv4"])
}

fn wanted(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &BTreeMap<String, String>,
) -> BTreeMap<Group, BTreeMap<String, Endpoint>> {
    let families = families(service);
    let mut groups: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for pod in pods {
        if pods::is_finished(pod) {
            continue;
        }
        let Some(status) = &pod.status else { continue };
        for address in status.pod_ips.iter().flatten().map(|address| address.ip.as_str()) {
            let family = match address.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            if !families.contains(&family) {
                continue;
            }
            let endpoint = endpoint(service, pod, address, zones);
            groups.entry((family.to_owned(), ports(service, pod))).or_default().insert(identity(&endpoint), endpoint);
        }
    }
    groups
}

fn endpoint(service: &Service, pod: &Pod, address: &str, zones: &BTreeMap<String, String>) -> Endpoint {
    let spec = pod.spec.as_ref();
    let terminating = pods::is_deleted(pod);
    let serving = pods::is_ready(pod);
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let node_name = pods::node_name(pod).map(str::to_owned);
    let hostname = spec.filter(|spec| spec.subdomain.is_some() && spec.subdomain == service.metadata.name);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname.and_then(|spec| spec.hostname.clone()),
        zone: node_name.as_ref().and_then(|name| zones.get(name)).cloned(),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// An endpoint is the same one as long as the pod and its address are.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{} {uid}", endpoint.addresses.join(","))
}

/// The Service's ports with the numbers that this pod has for them. A named port that the pod lacks is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let mut ports: Vec<Port> = ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                port: number(port, pod)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

/// The number that the pod has for a port of a Service; `None` if the pod lacks the named port.
pub(crate) fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let found = |container: &&Container| -> Option<i32> {
        let matches = |one: &&ContainerPort| {
            one.name.as_ref() == Some(name) && one.protocol.as_deref().unwrap_or("TCP") == protocol
        };
        container.ports.iter().flatten().find(matches).map(|one| one.container_port)
    };
    spec.containers.iter().chain(sidecars).find_map(|container| found(&container))
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_default(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let own = ["kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"];
    let of_service = service.metadata.labels.iter().flatten().filter(|(key, _)| !own.contains(&key.as_str()));
    let mut labels: BTreeMap<String, String> = of_service.map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.insert(SERVICE_LABEL.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    labels
}

fn slice(service: &Service, family: &str, ports: &[Port], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(
            ports
                .iter()
                .map(|port| EndpointPort {
                    name: Some(port.name.clone()),
                    port: Some(port.port),
                    protocol: Some(port.protocol.clone()),
                    app_protocol: port.app_protocol.clone(),
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "s"},
            "spec": {"selector": {"app": "web"}, "ipFamilies": ["IPv4"], "clusterIP": "10.43.0.9",
                     "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
        }))
        .unwrap()
    }

    fn pod(number: usize, ready: bool, port: i32) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": {"name": format!("p{number}"), "namespace": "default", "uid": format!("u{number}")},
            "spec": {"nodeName": "n", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.42.0.{number}")}],
                       "conditions": [{"type": "Ready", "status": status}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn endpoints(slice: &EndpointSlice) -> &[Endpoint] {
        slice.endpoints.as_deref().unwrap()
    }

    fn stored(plan: &Plan) -> Vec<Arc<EndpointSlice>> {
        plan.create.iter().chain(&plan.update).cloned().map(Arc::new).collect()
    }

    #[test]
    fn a_service_without_endpoints_has_one_empty_slice() {
        let first = plan(&service(), &[], &BTreeMap::new(), &[]);
        assert_eq!((first.create.len(), endpoints(&first.create[0]).len()), (1, 0));
        let again = plan(&service(), &[], &BTreeMap::new(), &stored(&first));
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
        let filled = plan(&service(), &[pod(1, true, 8080)], &BTreeMap::new(), &stored(&first));
        assert_eq!((filled.create.len(), filled.delete.len()), (1, 1));
    }

    #[test]
    fn only_the_slice_that_changed_is_written() {
        let mut pods: Vec<_> = (1..=150).map(|number| pod(number, true, 8080)).collect();
        let first = plan(&service(), &pods, &BTreeMap::new(), &[]);
        let sizes: Vec<usize> = first.create.iter().map(|slice| endpoints(slice).len()).collect();
        assert_eq!(sizes, [100, 50]);
        let known = stored(&first);
        pods[0] = pod(1, false, 8080);
        let second = plan(&service(), &pods, &BTreeMap::new(), &known);
        assert_eq!((second.create.len(), second.update.len(), second.delete.len()), (0, 1, 0));
        let changed = endpoints(&second.update[0]).iter().find(|endpoint| endpoint.addresses[0] == "10.42.0.1");
        assert_eq!(changed.unwrap().conditions.as_ref().unwrap().ready, Some(false));
    }

    #[test]
    fn pods_with_other_port_numbers_stand_apart() {
        let zones = BTreeMap::from([("n".to_owned(), "attic".to_owned())]);
        let first = plan(&service(), &[pod(1, true, 8080), pod(2, true, 9090)], &zones, &[]);
        assert_eq!(first.create.len(), 2);
        assert_eq!(first.create[0].ports.as_ref().unwrap()[0].port, Some(8080));
        assert_eq!(endpoints(&first.create[0])[0].zone.as_deref(), Some("attic"));
    }
}
