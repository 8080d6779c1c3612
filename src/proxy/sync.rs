//! Keeps the kernel's tables at what Services and EndpointSlices say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, Key, Scope};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::conntrack::{self, UdpFlow};
use network::nft::{Connection, Family, Protocol, Table, Watch};
use task::Shutdown;
use tokio::time::Instant;

use crate::model::{self, ServicePort};
use crate::rules;

/// Changes that come within this time of a transaction go into the next one together.
const SYNC_PERIOD_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Which Service a slice belongs to (upstream's `discovery.k8s.io` label).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Sorts before every `namespace/name`.
const BASE: &str = "";

#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// This node's name: endpoints with it are local.
    pub node_name: String,
    /// The pod networks, one per family that is to be routed.
    pub cluster_cidrs: Vec<IpNet>,
    /// The packet-filter table; see `network::Names`.
    pub table: String,
    /// Cluster addresses that this node serves by itself (the cluster's DNS): left alone.
    pub served_here: Vec<IpAddr>,
}

/// Routes Services until `shutdown`. Rules stay behind.
pub async fn run(config: ProxyConfig, client: Client, shutdown: Shutdown) -> Result<(), network::Error> {
    let services = client.informer::<Service>(Scope::all());
    let slices = client.informer::<EndpointSlice>(Scope::all());
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        // Rules of an earlier process stay as they are until it is known what they should be.
        () = async { services.synced().await; slices.synced().await } => {}
    }
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    let connection = tokio::task::spawn_blocking(Connection::open).await.map_err(|_| network::Error::Worker)??;
    let own = connection.port()?;
    let mut watch = Watch::open(&config.table)?;
    let mut effects = Some(Effects { connection, tables: tables(&config) });
    let mut proxy = Proxy::new(config);
    let mut retry: Option<Duration> = None;
    let mut earliest = Instant::now();
    let mut first = true;
    loop {
        if !first {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                change = service_changes.next() => proxy.service_changed(change),
                change = slice_changes.next() => proxy.slice_changed(change),
                removed = watch.removed(own) => {
                    removed?;
                    tracing::warn!("another program removed the packet-filter table of Services; it is put back");
                    if let Some(effects) = &mut effects {
                        effects.tables.iter_mut().for_each(Table::doubt);
                    }
                }
                () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(earliest) => {}
            }
        }
        first = false;
        while let Some(change) = service_changes.try_next() {
            proxy.service_changed(change);
        }
        while let Some(change) = slice_changes.try_next() {
            proxy.slice_changed(change);
        }
        let Some(mut at_work) = effects.take() else { return Err(network::Error::Worker) };
        let plans = proxy.plan();
        let (outcome, returned) = tokio::task::spawn_blocking(move || {
            let outcome = at_work.apply(plans);
            (outcome, at_work)
        })
        .await
        .map_err(|_| network::Error::Worker)?;
        effects = Some(returned);
        earliest = Instant::now() + SYNC_PERIOD_MIN;
        retry = match outcome {
            Ok(changes) => {
                tracing::debug!(changes, "Services are routed");
                None
            }
            Err(error) => {
                let pause = retry.map_or(RETRY_PAUSE_MIN, |pause| (pause * 2).min(RETRY_PAUSE_MAX));
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, cause, "Services cannot be routed; tried again in {} s", pause.as_secs());
                Some(pause)
            }
        };
    }
}

/// What was observed, and which Services have to be looked at.
struct Proxy {
    config: ProxyConfig,
    services: HashMap<Key, Arc<Service>>,
    slices: HashMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    dirty: BTreeSet<Key>,
    /// UDP addresses of each Service, for forgetting flows when it goes.
    udp: HashMap<Key, Vec<Udp>>,
}

/// What one Service needs from now on.
struct Plan {
    name: String,
    ports: Vec<(Family, Option<IpNet>, Vec<ServicePort>)>,
    udp: Vec<Udp>,
}

/// A UDP port of a Service, and who answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Udp {
    /// `None`: a node port.
    ip: Option<IpAddr>,
    port: u16,
    endpoints: Vec<SocketAddr>,
}

impl Proxy {
    fn new(config: ProxyConfig) -> Self {
        Self { config, services: HashMap::new(), slices: HashMap::new(), dirty: BTreeSet::new(), udp: HashMap::new() }
    }

    fn service_changed(&mut self, change: Change<Service>) {
        match change.new {
            Some(service) => self.services.insert(change.key.clone(), service),
            None => self.services.remove(&change.key),
        };
        self.dirty.insert(change.key);
    }

    fn slice_changed(&mut self, change: Change<EndpointSlice>) {
        // The label may have changed from one Service to another.
        if let Some(key) = change.old.as_deref().and_then(service_of) {
            if let Some(known) = self.slices.get_mut(&key) {
                known.remove(&change.key.name);
                if known.is_empty() {
                    self.slices.remove(&key);
                }
            }
            self.dirty.insert(key);
        }
        if let Some(slice) = change.new
            && let Some(key) = service_of(&slice)
        {
            self.slices.entry(key.clone()).or_default().insert(change.key.name, slice);
            self.dirty.insert(key);
        }
    }

    /// What has to be looked at, reduced to what rules depend on.
    fn plan(&mut self) -> Vec<Plan> {
        let nothing = BTreeMap::new();
        let mut plans = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let service = self.services.get(&key).filter(|service| !self.is_served_here(service));
            let slices = self.slices.get(&key).unwrap_or(&nothing);
            let mut ports = Vec::new();
            for (family, cidr) in families(&self.config) {
                let found = service.map(|service| {
                    let slices = slices.values().map(|slice| &**slice);
                    model::ports(service, slices, family, &self.config.node_name)
                });
                ports.push((family, Some(cidr), found.unwrap_or_default()));
            }
            let udp_now: Vec<Udp> = ports.iter().flat_map(|(_, _, ports)| ports).flat_map(udp).collect();
            let udp_before = self.udp.remove(&key).unwrap_or_default();
            // Where somebody answered who does so no more, nobody does now.
            let gone = udp_before
                .into_iter()
                .filter(|old| !udp_now.iter().any(|new| (new.ip, new.port) == (old.ip, old.port)));
            let udp = udp_now.iter().cloned().chain(gone.map(|old| Udp { endpoints: Vec::new(), ..old })).collect();
            if !udp_now.is_empty() {
                self.udp.insert(key.clone(), udp_now);
            }
            plans.push(Plan { name: key.to_string(), ports, udp });
        }
        plans
    }

    fn is_served_here(&self, service: &Service) -> bool {
        let spec = service.spec.as_ref();
        spec.is_some_and(|spec| model::cluster_ips(spec).any(|ip| self.config.served_here.contains(&ip)))
    }
}

/// The kernel's side. Blocks.
struct Effects {
    connection: Connection,
    tables: Vec<Table>,
}

impl Effects {
    fn apply(&mut self, plans: Vec<Plan>) -> Result<usize, network::Error> {
        let mut udp = Vec::new();
        for plan in plans {
            for (family, cidr, ports) in &plan.ports {
                let fragment = (!ports.is_empty()).then(|| Arc::new(rules::service(ports, *cidr)));
                for table in self.tables.iter_mut().filter(|table| table.family() == *family) {
                    table.set(&plan.name, fragment.clone());
                }
            }
            udp.extend(plan.udp);
        }
        let mut changes = 0;
        for table in &mut self.tables {
            changes += self.connection.sync(table)?;
            if changes > 0 && !udp.is_empty() {
                conntrack::forget_udp(table.family(), |flow| udp.iter().any(|udp| is_stale(flow, udp)))?;
            }
        }
        Ok(changes)
    }
}

/// Whether a flow goes to this port and is answered by nobody who should.
fn is_stale(flow: &UdpFlow, udp: &Udp) -> bool {
    let to_us = match udp.ip {
        Some(ip) => flow.destination == SocketAddr::new(ip, udp.port),
        // Only what was translated surely came to a node port.
        None => flow.destination.port() == udp.port && flow.destination != flow.answered_by,
    };
    to_us && !udp.endpoints.contains(&flow.answered_by)
}

fn udp(port: &ServicePort) -> Vec<Udp> {
    if port.protocol != Protocol::Udp {
        return Vec::new();
    }
    let mut endpoints = port.endpoints.cluster.clone();
    endpoints.extend(&port.endpoints.local);
    let ips = port.cluster_ip.iter().chain(&port.external_ips).chain(&port.load_balancer_ips);
    let at_ips = ips.map(|ip| Udp { ip: Some(*ip), port: port.port, endpoints: endpoints.clone() });
    let at_node = port.node_port.map(|node_port| Udp { ip: None, port: node_port, endpoints: endpoints.clone() });
    at_ips.chain(at_node).collect()
}

fn families(config: &ProxyConfig) -> impl Iterator<Item = (Family, IpNet)> {
    let family = |cidr: &IpNet| if cidr.addr().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    config.cluster_cidrs.iter().map(move |cidr| (family(cidr), *cidr))
}

fn tables(config: &ProxyConfig) -> Vec<Table> {
    families(config)
        .map(|(family, _)| {
            let mut table = Table::new(family, config.table.clone());
            table.set(BASE, Some(Arc::new(rules::base(family))));
            table
        })
        .collect()
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}
