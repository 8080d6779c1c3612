//! The names that the cluster has.
//!
//! The zone is fed with Services and EndpointSlices and reduces each Service to its records when one of them changes.
//! Names are kept in lower case.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use client::Key;
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Which Service a slice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

#[derive(Debug, Default)]
pub(crate) struct Zone {
    /// By namespace, then by name.
    services: HashMap<String, HashMap<String, Entry>>,
    /// Who is at an address.
    reverse: HashMap<IpAddr, BTreeSet<Owner>>,
    /// Changes with every change.
    serial: u32,
}

#[derive(Debug, Default)]
struct Entry {
    service: Option<Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    records: Records,
}

/// What a Service's names lead to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Records {
    /// Of the Service's own name: its cluster addresses; its endpoints', if it is headless.
    pub addresses: Vec<IpAddr>,
    pub headless: bool,
    /// `spec.externalName`.
    pub alias: Option<Name>,
    pub ports: Vec<Port>,
    /// Endpoints by host name.
    pub hosts: BTreeMap<String, Host>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub name: String,
    /// In lower case: `tcp`.
    pub protocol: String,
    pub number: u16,
}

/// The name that an address has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub namespace: String,
    pub service: String,
    /// `None`: the Service itself.
    pub host: Option<String>,
}

impl Zone {
    pub fn new(serial: u32) -> Self {
        Self { serial, ..Self::default() }
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// `None`: it is gone.
    pub fn service_changed(&mut self, key: &Key, service: Option<Arc<Service>>) {
        self.change(&key.namespace, &key.name, |entry| entry.service = service);
    }

    pub fn slice_changed(&mut self, key: &Key, old: Option<&EndpointSlice>, new: Option<Arc<EndpointSlice>>) {
        let (before, after) = (old.and_then(service_of), new.as_deref().and_then(service_of));
        if let Some(before) = before.filter(|before| Some(*before) != after) {
            self.change(&key.namespace, before, |entry| drop(entry.slices.remove(&key.name)));
        }
        if let (Some(after), Some(slice)) = (after.map(str::to_owned), new) {
            self.change(&key.namespace, &after, |entry| drop(entry.slices.insert(key.name.clone(), slice)));
        }
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.services.get(namespace).is_some_and(|services| services.values().any(|entry| entry.service.is_some()))
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Records> {
        let entry = self.services.get(namespace)?.get(name)?;
        entry.service.as_ref().map(|_| &entry.records)
    }

    pub fn owners(&self, ip: IpAddr) -> Option<&BTreeSet<Owner>> {
        self.reverse.get(&ip)
    }

    fn change(&mut self, namespace: &str, name: &str, change: impl FnOnce(&mut Entry)) {
        let services = self.services.entry(namespace.to_owned()).or_default();
        let entry = services.entry(name.to_owned()).or_default();
        change(entry);
        let records = entry.service.as_ref().map(|service| records(service, entry.slices.values()));
        let new = records.unwrap_or_default();
        let old = std::mem::replace(&mut entry.records, new);
        let unchanged = old == entry.records;
        let added = if unchanged { Vec::new() } else { owned(namespace, name, &entry.records) };
        if entry.service.is_none() && entry.slices.is_empty() {
            services.remove(name);
            if services.is_empty() {
                self.services.remove(namespace);
            }
        }
        self.serial = self.serial.wrapping_add(1);
        if unchanged {
            return;
        }
        for (ip, owner) in owned(namespace, name, &old) {
            if let Some(owners) = self.reverse.get_mut(&ip) {
                owners.remove(&owner);
                if owners.is_empty() {
                    self.reverse.remove(&ip);
                }
            }
        }
        for (ip, owner) in added {
            self.reverse.entry(ip).or_default().insert(owner);
        }
    }
}

/// Addresses with a name of their own: a Service's cluster addresses, and the endpoints of a headless one.
fn owned(namespace: &str, name: &str, records: &Records) -> Vec<(IpAddr, Owner)> {
    let owner = |host| Owner { namespace: namespace.to_owned(), service: name.to_owned(), host };
    if !records.headless {
        return records.addresses.iter().map(|ip| (*ip, owner(None))).collect();
    }
    let hosts = records.hosts.iter();
    hosts.flat_map(|(host, at)| at.addresses.iter().map(|ip| (*ip, owner(Some(host.clone()))))).collect()
}

fn records<'a>(service: &Service, slices: impl Iterator<Item = &'a Arc<EndpointSlice>>) -> Records {
    let mut records = Records::default();
    let Some(spec) = &service.spec else { return records };
    if spec.type_.as_deref() == Some("ExternalName") {
        let name = spec.external_name.as_deref().and_then(|name| Name::from_ascii(name).ok());
        records.alias = name.map(|mut name| {
            name.set_fqdn(true);
            name
        });
        return records;
    }
    let cluster_ips = || spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    records.headless = cluster_ips().any(|ip| ip == "None");
    let not_ready_too = spec.publish_not_ready_addresses.unwrap_or(false);
    for slice in slices {
        let ports: Vec<Port> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| named(port.name.as_deref(), port.protocol.as_deref(), port.port?))
            .collect();
        let ready = |endpoint: &&Endpoint| {
            not_ready_too || endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        for endpoint in slice.endpoints.iter().flatten().filter(ready) {
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
                let host = endpoint.hostname.as_deref().filter(|host| !host.is_empty());
                let host = host.map_or_else(|| dashed(ip), str::to_ascii_lowercase);
                let host = records.hosts.entry(host).or_default();
                push_new(&mut host.addresses, ip);
                for port in &ports {
                    push_new(&mut host.ports, port.clone());
                }
                if records.headless {
                    push_new(&mut records.addresses, ip);
                }
            }
        }
    }
    if !records.headless {
        for ip in cluster_ips().filter_map(|ip| ip.parse().ok()) {
            push_new(&mut records.addresses, ip);
        }
        let ports = spec.ports.iter().flatten();
        records.ports =
            ports.filter_map(|port| named(port.name.as_deref(), port.protocol.as_deref(), port.port)).collect();
    }
    records
}

fn named(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: u16::try_from(number).ok()?,
    })
}

/// An address as a label: the host name of those endpoints that have no other.
fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL).map(String::as_str)
}
