//! The slices that mirror an Endpoints object, and the least change that leads there. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::MANAGED_BY;
use crate::endpointslice::{MANAGED_BY_LABEL, SERVICE_LABEL};
use crate::shared::owned::controller_reference;

/// Addresses of one subset that are mirrored.
pub const ADDRESSES_MAX: usize = 1000;
/// Annotations that belong to the Endpoints alone.
const NOT_MIRRORED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses that were passed over, those that are none among them.
    pub skipped: usize,
}

/// An address family and the ports, as text so that they can be ordered.
type Group = (&'static str, String);

/// What stands in one slice: its ports, and its endpoints by address and target.
type Members = (Vec<EndpointPort>, BTreeMap<String, Endpoint>);

pub fn plan(endpoints: &Endpoints, known: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut groups = wanted(endpoints, &mut plan);
    for slice in known {
        let ports = slice.ports.clone().unwrap_or_default();
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        let Some((ports, members)) = groups.remove(&(family, text_of(&ports))) else {
            plan.delete.push(slice.clone());
            continue;
        };
        let mut changed = mirror(endpoints, family, ports, members);
        (changed.metadata.name, changed.metadata.generate_name) = (slice.metadata.name.clone(), None);
        let same = |a: &EndpointSlice, b: &EndpointSlice| {
            let ordered = |slice: &EndpointSlice| {
                let mut endpoints = slice.endpoints.clone().unwrap_or_default();
                endpoints.sort_by_key(identity);
                endpoints
            };
            ordered(a) == ordered(b)
                && a.metadata.labels == b.metadata.labels
                && a.metadata.annotations.clone().unwrap_or_default()
                    == b.metadata.annotations.clone().unwrap_or_default()
                && a.metadata.owner_references == b.metadata.owner_references
        };
        if !same(&changed, slice) {
            changed.metadata.resource_version.clone_from(&slice.metadata.resource_version);
            plan.update.push(changed);
        }
    }
    for ((family, _), (ports, members)) in groups {
        plan.create.push(mirror(endpoints, family, ports, members));
    }
    plan
}

fn wanted(endpoints: &Endpoints, plan: &mut Plan) -> BTreeMap<Group, Members> {
    let mut groups: BTreeMap<Group, Members> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: port.protocol.clone(),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let text = text_of(&ports);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut mirrored = 0;
        for (address, ready) in ready.chain(not_ready) {
            let parsed = address.ip.parse::<IpAddr>().ok();
            plan.invalid += usize::from(parsed.is_none());
            let Some(ip) = parsed.filter(|_| mirrored < ADDRESSES_MAX) else {
                plan.skipped += 1;
                continue;
            };
            mirrored += 1;
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let (_, members) = groups.entry((family, text.clone())).or_insert_with(|| (ports.clone(), BTreeMap::new()));
            let endpoint = endpoint(address, ip, ready);
            members.entry(identity(&endpoint)).or_insert(endpoint);
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let target = target.map(|target| (&target.kind, &target.namespace, &target.name, &target.uid));
    format!("{} {target:?}", endpoint.addresses.join(","))
}

fn text_of(ports: &[EndpointPort]) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut texts: Vec<String> = ports
        .iter()
        .map(|port| {
            let number = port.port.unwrap_or_default();
            format!("{}/{number}/{}/{}", text(&port.name), text(&port.protocol), text(&port.app_protocol))
        })
        .collect();
    texts.sort();
    texts.join(",")
}

fn mirror(
    endpoints: &Endpoints,
    family: &str,
    ports: Vec<EndpointPort>,
    members: BTreeMap<String, Endpoint>,
) -> EndpointSlice {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let annotations = meta.annotations.iter().flatten().filter(|(key, _)| !NOT_MIRRORED.contains(&key.as_str()));
    let annotations: BTreeMap<String, String> = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(members.into_values().collect()),
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::endpointslice_mirroring::is_ours;

    fn endpoints(subsets: Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "e", "labels": {"a": "b"},
                         "annotations": {"x": "y", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "subsets": subsets,
        }))
        .unwrap()
    }

    fn served(slice: &EndpointSlice) -> Arc<EndpointSlice> {
        let mut slice = slice.clone();
        slice.metadata.name = slice.metadata.generate_name.take().map(|prefix| format!("{prefix}x"));
        Arc::new(slice)
    }

    #[test]
    fn each_family_and_each_set_of_ports_has_a_slice() {
        let both = endpoints(json!([{"addresses": [{"ip": "10.0.0.1", "nodeName": "m"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}, {"ip": "no"}], "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]}]));
        let plan = plan(&both, &[]);
        assert_eq!((plan.create.len(), plan.invalid, plan.skipped), (2, 1, 1));
        let got = serde_json::to_value(&plan.create[0]).unwrap();
        assert_eq!(
            got["metadata"],
            json!({"generateName": "s-", "namespace": "n", "annotations": {"x": "y"},
            "labels": {"a": "b", "kubernetes.io/service-name": "s",
                       "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Endpoints", "name": "s", "uid": "e", "controller": true,
                                 "blockOwnerDeletion": true}]})
        );
        assert_eq!(
            got["endpoints"],
            json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "m"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}])
        );
        assert_eq!(got["ports"], json!([{"name": "web", "port": 80, "protocol": "TCP"}]));
        assert_eq!(plan.create[1].address_type, "IPv6");
        assert!(plan.create.iter().all(is_ours));
    }

    #[test]
    fn a_mirror_follows_and_rests() {
        let one = endpoints(json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}]));
        let known = served(&plan(&one, &[]).create[0]);
        let rest = plan(&one, std::slice::from_ref(&known));
        assert!(rest.create.is_empty() && rest.update.is_empty() && rest.delete.is_empty());
        let two = endpoints(json!([{"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80, "protocol": "TCP"}]}]));
        let changed = plan(&two, std::slice::from_ref(&known));
        assert_eq!((changed.update.len(), changed.update[0].metadata.name.as_deref()), (1, Some("s-x")));
        let doubled = plan(&one, &[known.clone(), known.clone()]);
        assert_eq!(doubled.delete.len(), 1);
        assert_eq!(plan(&endpoints(json!([])), &[known]).delete.len(), 1);
    }

    #[test]
    fn there_is_an_end_to_what_is_mirrored() {
        let many: Vec<Value> = (0..1010).map(|at| json!({"ip": format!("10.0.{}.{}", at / 250, at % 250)})).collect();
        let plan = plan(&endpoints(json!([{"addresses": many}])), &[]);
        assert_eq!((plan.create[0].endpoints.as_ref().unwrap().len(), plan.skipped), (ADDRESSES_MAX, 10));
    }
}
