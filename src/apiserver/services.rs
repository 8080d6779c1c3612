//! Cluster addresses and node ports of Services.
//!
//! One allocator for the cluster, in memory, filled from the Services that are there. An allocation is taken before
//! the Service is written and given back if the write fails, so that two writers never get the same.
//!
//! Limitation: it is the allocator of a single server; with several, the one that leads must be asked.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::{Failure, FieldError, Fields, Row};
use ipnet::IpNet;
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::config::{Config, Error};

/// Addresses looked at before an IPv6 range counts as full; it cannot be walked.
const ADDRESSES_TRIED_MAX: u128 = 1 << 16;
/// The first part of a range is for addresses that are asked for by number (upstream: KEP-3070).
const RESERVED_MIN: u128 = 16;
const RESERVED_MAX: u128 = 256;

pub struct Services {
    ranges: Vec<IpNet>,
    ports: RangeInclusive<u16>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    /// Whose they are, as `namespace/name`.
    addresses: BTreeMap<IpAddr, String>,
    /// By protocol and number.
    ports: BTreeMap<(String, u16), String>,
}

/// What was taken for a write; given back when dropped unless [`Allocated::keep`] is called.
#[must_use = "dropping it gives everything back"]
pub struct Allocated {
    taken: Arc<Mutex<Taken>>,
    addresses: Vec<IpAddr>,
    ports: Vec<(String, u16)>,
    /// What the Service no longer has once it is written.
    then_free_addresses: Vec<IpAddr>,
    then_free_ports: Vec<(String, u16)>,
}

impl Allocated {
    fn none(taken: &Arc<Mutex<Taken>>) -> Allocated {
        Allocated {
            taken: taken.clone(),
            addresses: Vec::new(),
            ports: Vec::new(),
            then_free_addresses: Vec::new(),
            then_free_ports: Vec::new(),
        }
    }

    /// The write succeeded.
    pub fn keep(mut self) {
        self.addresses = std::mem::take(&mut self.then_free_addresses);
        self.ports = std::mem::take(&mut self.then_free_ports);
    }
}

impl Drop for Allocated {
    fn drop(&mut self) {
        if self.addresses.is_empty() && self.ports.is_empty() {
            return;
        }
        let mut taken = self.taken.lock();
        for address in &self.addresses {
            taken.addresses.remove(address);
        }
        for port in &self.ports {
            taken.ports.remove(port);
        }
    }
}

impl Services {
    pub fn new(config: &Config, cache: &Cache) -> Result<Services, Error> {
        if config.service_cluster_ip_ranges.is_empty() {
            return Err(Error::NoServiceRange);
        }
        let mut taken = Taken::default();
        let stored = cache.resource(b"/registry/services/specs/").map(|services| services.objects(None));
        for stored in stored.iter().flatten() {
            let Ok(service) = serde_json::from_slice::<Value>(&stored.value) else { continue };
            for address in addresses(&service) {
                taken.addresses.insert(address, stored.path().to_owned());
            }
            for port in node_ports(&service) {
                taken.ports.insert(port, stored.path().to_owned());
            }
        }
        Ok(Services {
            ranges: config.service_cluster_ip_ranges.clone(),
            ports: config.service_node_port_range.clone(),
            taken: Arc::new(Mutex::new(taken)),
        })
    }

    /// The address of the Service `kubernetes`.
    pub fn first_address(&self) -> Option<IpAddr> {
        self.ranges.first().and_then(|range| nth(range, 1))
    }

    /// Completes a Service with addresses and ports. Other kinds pass.
    pub fn allocate(&self, row: &Row, service: &mut Value, old: Option<&Value>) -> Result<Allocated, Failure> {
        let mut allocated = Allocated::none(&self.taken);
        if !row.resource.group.is_empty() || row.resource.plural != "services" {
            return Ok(allocated);
        }
        let metadata = service.part("metadata");
        let owner = format!("{}/{}", metadata.text("namespace"), metadata.text("name"));
        let invalid = |error: FieldError| Failure::invalid("", "Service", metadata.text("name"), vec![error]);
        let kind = service.part("spec").text("type").to_owned();
        let mut spec = service.part("spec").clone();
        if kind == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.unset(field);
            }
        } else {
            if let Some(old) = old {
                carry_over(&mut spec, old.part("spec"));
            }
            self.addresses(&mut spec, &owner, &mut allocated).map_err(invalid)?;
        }
        self.node_ports(&mut spec, &kind, &owner, &mut allocated).map_err(invalid)?;
        service.set("spec", spec);
        if let Some(old) = old {
            let (now, ports_now) = (addresses(service), node_ports(service));
            allocated.then_free_addresses = addresses(old).into_iter().filter(|one| !now.contains(one)).collect();
            allocated.then_free_ports = node_ports(old).into_iter().filter(|one| !ports_now.contains(one)).collect();
        }
        Ok(allocated)
    }

    /// Gives back what a deleted Service had.
    pub fn release(&self, row: &Row, service: &Value) {
        if !row.resource.group.is_empty() || row.resource.plural != "services" {
            return;
        }
        let mut taken = self.taken.lock();
        for address in addresses(service) {
            taken.addresses.remove(&address);
        }
        for port in node_ports(service) {
            taken.ports.remove(&port);
        }
    }

    fn addresses(&self, spec: &mut Value, owner: &str, allocated: &mut Allocated) -> Result<(), FieldError> {
        let headless = spec.text("clusterIP") == "None";
        let mut wanted: Vec<String> =
            spec.list("clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if wanted.is_empty() && !spec.text("clusterIP").is_empty() {
            wanted.push(spec.text("clusterIP").to_owned());
        }
        // What selects no pods may name addresses of both families, whatever the cluster has.
        let free = headless && spec.map("selector").is_none_or(serde_json::Map::is_empty);
        let policy = match spec.text("ipFamilyPolicy") {
            "" if free => "RequireDualStack",
            "" if spec.list("ipFamilies").len() > 1 || wanted.len() > 1 => "RequireDualStack",
            "" => "SingleStack",
            policy => policy,
        }
        .to_owned();
        let families = self.families(spec, &wanted, &policy, free)?;
        spec.set("ipFamilyPolicy", policy);
        spec.set("ipFamilies", families.clone());
        if headless {
            spec.set("clusterIPs", json!(["None"]));
            return Ok(());
        }
        let mut assigned = Vec::new();
        for (index, family) in families.iter().enumerate() {
            let range = self.range_of(family).ok_or_else(|| unconfigured(family, index))?;
            let address = match wanted.get(index) {
                Some(text) => self.take(text, range, owner, index, allocated)?,
                None => self.take_any(range, owner, allocated)?,
            };
            assigned.push(address.to_string());
        }
        if let Some(first) = assigned.first() {
            spec.set("clusterIP", first.as_str());
        }
        spec.set("clusterIPs", assigned);
        Ok(())
    }

    fn families(&self, spec: &Value, wanted: &[String], policy: &str, free: bool) -> Result<Vec<String>, FieldError> {
        let mut families: Vec<String> =
            spec.list("ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if families.is_empty() {
            families =
                wanted.iter().filter_map(|text| text.parse().ok()).map(|ip: IpAddr| family(ip).to_owned()).collect();
        }
        for (index, one) in families.iter().enumerate() {
            if self.range_of(one).is_none() && !free {
                return Err(unconfigured(one, index));
            }
        }
        let mut all: Vec<String> = self.ranges.iter().map(|range| family(range.addr()).to_owned()).collect();
        if free {
            all.extend(["IPv4", "IPv6"].map(str::to_owned));
        }
        let count = match policy {
            "SingleStack" => 1,
            "RequireDualStack" if self.ranges.len() < 2 && !free => {
                let text = "this cluster is not configured for dual-stack services";
                return Err(FieldError::invalid("spec.ipFamilyPolicy", &policy.into(), text));
            }
            _ => 2,
        };
        for one in all {
            if families.len() < count && !families.contains(&one) {
                families.push(one);
            }
        }
        families.truncate(count);
        Ok(families)
    }

    fn range_of(&self, wanted: &str) -> Option<&IpNet> {
        self.ranges.iter().find(|range| family(range.addr()) == wanted)
    }

    fn take(
        &self,
        text: &str,
        range: &IpNet,
        owner: &str,
        index: usize,
        allocated: &mut Allocated,
    ) -> Result<IpAddr, FieldError> {
        let field = "spec.clusterIPs";
        let refused = |why: String| FieldError::invalid(field, &json!([text]), &why);
        let address: IpAddr = text.parse().map_err(|_| {
            FieldError::invalid(format!("{field}[{index}]"), &text.into(), "must be a valid IP address")
        })?;
        if !usable(range, address) {
            return Err(refused(format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of \
                 valid IPs is {range}"
            )));
        }
        let mut taken = self.taken.lock();
        match taken.addresses.get(&address) {
            Some(other) if other == owner => return Ok(address),
            Some(_) => {
                return Err(refused(format!("failed to allocate IP {address}: provided IP is already allocated")));
            }
            None => {}
        }
        taken.addresses.insert(address, owner.to_owned());
        allocated.addresses.push(address);
        Ok(address)
    }

    fn take_any(&self, range: &IpNet, owner: &str, allocated: &mut Allocated) -> Result<IpAddr, FieldError> {
        let size = size(range);
        let reserved = if size > RESERVED_MIN { (size / 16).clamp(RESERVED_MIN, RESERVED_MAX) } else { 0 };
        let mut taken = self.taken.lock();
        // The upper part first, from a random place on; then the part for addresses that are asked for.
        let upper = size.saturating_sub(reserved).max(1);
        let start = rand::rng().random_range(0..upper);
        let offsets = (0..upper.min(ADDRESSES_TRIED_MAX)).map(|step| reserved + (start + step) % upper);
        for offset in offsets.chain(0..reserved) {
            let Some(address) = nth(range, offset).filter(|address| usable(range, *address)) else { continue };
            if Some(address) == self.first_address() || taken.addresses.contains_key(&address) {
                continue;
            }
            taken.addresses.insert(address, owner.to_owned());
            allocated.addresses.push(address);
            return Ok(address);
        }
        Err(FieldError::invalid("spec.clusterIPs", &json!([""]), "failed to allocate an IP: range is full"))
    }

    fn node_ports(
        &self,
        spec: &mut Value,
        kind: &str,
        owner: &str,
        allocated: &mut Allocated,
    ) -> Result<(), FieldError> {
        let wants = kind == "NodePort"
            || (kind == "LoadBalancer"
                && spec.at("allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true));
        let keeps = wants || kind == "LoadBalancer";
        let mut given: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for (index, port) in spec.list_mut("ports").iter_mut().enumerate() {
            if !keeps {
                port.unset("nodePort");
                continue;
            }
            let protocol = port.text("protocol").to_owned();
            let number = port.int("nodePort").unwrap_or_default();
            let field = format!("spec.ports[{index}].nodePort");
            if number != 0 {
                let asked = u16::try_from(number).ok().filter(|asked| self.ports.contains(asked)).ok_or_else(|| {
                    let text = format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        self.ports.start(),
                        self.ports.end()
                    );
                    FieldError::invalid(&field, &number.into(), &text)
                })?;
                let mut taken = self.taken.lock();
                let key = (protocol.clone(), asked);
                match taken.ports.get(&key) {
                    Some(other) if other == owner => {}
                    Some(_) => {
                        return Err(FieldError::invalid(&field, &number.into(), "provided port is already allocated"));
                    }
                    None => {
                        taken.ports.insert(key.clone(), owner.to_owned());
                        allocated.ports.push(key);
                    }
                }
                given.entry(asked).or_default().push(protocol);
            } else if wants {
                // The same number for another protocol of the same Service, where it is free.
                let shared = given.iter().find(|(_, protocols)| !protocols.contains(&protocol)).map(|(port, _)| *port);
                let chosen = self.take_port(&protocol, shared, owner, allocated).ok_or_else(|| {
                    let text = "failed to allocate a nodePort: range is full";
                    FieldError::invalid(&field, &0.into(), text)
                })?;
                given.entry(chosen).or_default().push(protocol);
                port.set("nodePort", chosen);
            }
        }
        Ok(())
    }

    fn take_port(&self, protocol: &str, preferred: Option<u16>, owner: &str, allocated: &mut Allocated) -> Option<u16> {
        let mut taken = self.taken.lock();
        let (first, count) = (*self.ports.start(), self.ports.end().checked_sub(*self.ports.start())?.checked_add(1)?);
        let start = rand::rng().random_range(0..count);
        let walk = (0..count).map(|step| first + ((u32::from(start) + u32::from(step)) % u32::from(count)) as u16);
        let chosen =
            preferred.into_iter().chain(walk).find(|port| !taken.ports.contains_key(&(protocol.to_owned(), *port)))?;
        let key = (protocol.to_owned(), chosen);
        taken.ports.insert(key.clone(), owner.to_owned());
        allocated.ports.push(key);
        Some(chosen)
    }
}

/// An update that leaves out what was allocated keeps it.
fn carry_over(spec: &mut Value, old: &Value) {
    if old.text("type") == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let missing = match spec.at(field) {
            None => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if let Some(value) = old.at(field).filter(|_| missing) {
            spec.set(field, value.clone());
        }
    }
    let needs_ports = matches!(spec.text("type"), "NodePort" | "LoadBalancer");
    let old_ports = old.list("ports").to_vec();
    for port in spec.list_mut("ports").iter_mut().filter(|_| needs_ports) {
        if port.int("nodePort").unwrap_or_default() != 0 {
            continue;
        }
        let same = |old: &&Value| old.int("port") == port.int("port") && old.text("protocol") == port.text("protocol");
        if let Some(number) = old_ports.iter().find(same).and_then(|old| old.int("nodePort")).filter(|one| *one != 0) {
            port.set("nodePort", number);
        }
    }
}

fn unconfigured(family: &str, index: usize) -> FieldError {
    let field = format!("spec.ipFamilies[{index}]");
    FieldError::invalid(field, &family.into(), "not configured on this cluster")
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn addresses(service: &Value) -> Vec<IpAddr> {
    let spec = service.part("spec");
    let list = spec.list("clusterIPs").iter().chain(spec.at("clusterIP"));
    let mut all: Vec<IpAddr> = list.filter_map(Value::as_str).filter_map(|text| text.parse().ok()).collect();
    all.dedup();
    all
}

fn node_ports(service: &Value) -> Vec<(String, u16)> {
    let ports = service.part("spec").list("ports").iter();
    let used = ports.filter_map(|port| {
        let number = u16::try_from(port.int("nodePort")?).ok().filter(|number| *number != 0)?;
        Some((port.text("protocol").to_owned(), number))
    });
    used.collect()
}

fn size(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

fn nth(range: &IpNet, offset: u128) -> Option<IpAddr> {
    match range.network() {
        IpAddr::V4(network) => {
            let sum = u32::from(network).checked_add(u32::try_from(offset).ok()?)?;
            Some(IpAddr::V4(Ipv4Addr::from(sum)))
        }
        IpAddr::V6(network) => Some(IpAddr::V6(Ipv6Addr::from(u128::from(network).checked_add(offset)?))),
    }
}

/// In the range, and neither the network's own nor the broadcast address.
fn usable(range: &IpNet, address: IpAddr) -> bool {
    range.contains(&address) && address != range.network() && (address.is_ipv6() || address != range.broadcast())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn what_selects_no_pods_may_have_addresses_of_both_families() {
        let t = Fixture::start().await;
        let spec = async |name: &str, spec: serde_json::Value| {
            let service = json!({"metadata": {"name": name}, "spec": spec});
            let made = t.create("", "services", service).await.unwrap();
            (made["spec"]["ipFamilyPolicy"].clone(), made["spec"]["ipFamilies"].clone())
        };
        let both = (json!("RequireDualStack"), json!(["IPv4", "IPv6"]));
        assert_eq!(spec("free", json!({"clusterIP": "None"})).await, both);
        let single = (json!("SingleStack"), json!(["IPv4"]));
        assert_eq!(spec("one", json!({"clusterIP": "None", "ipFamilyPolicy": "SingleStack"})).await, single);
        let selecting = json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]});
        assert_eq!(spec("selecting", selecting).await, single);
    }
}
