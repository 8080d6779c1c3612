//! From names to addresses: Services to their ready endpoints, by the watch cache; other hosts by DNS, without libc.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::{Failure, Fields, Reason};
use hickory_resolver::TokioResolver;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::error::Cause;
use crate::cache::Cache;

const SERVICES: &[u8] = b"/registry/services/specs/";
const SLICES: &[u8] = b"/registry/endpointslices/";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// A Service's port as somebody names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortName<'a> {
    Number(u16),
    /// A name, a number in digits, or nothing for a Service with a single port.
    Text(&'a str),
}

#[derive(Clone)]
pub struct Resolver {
    cache: Arc<Cache>,
}

/// Where a Service leads.
#[derive(Debug, PartialEq, Eq)]
enum Leads {
    /// To the endpoints of its port of this name.
    Port(String),
    /// To another host.
    Elsewhere(String),
}

impl Resolver {
    pub fn new(cache: Arc<Cache>) -> Resolver {
        Resolver { cache }
    }

    /// The ready endpoints of a Service's port, in random order; never none.
    pub async fn service(&self, namespace: &str, name: &str, port: PortName<'_>) -> Result<Vec<SocketAddr>, Cause> {
        let service = self.cache.resource(SERVICES).and_then(|services| services.get(&format!("{namespace}/{name}")));
        let service = service.ok_or_else(|| Cause::Service(Failure::not_found("", "services", name)))?;
        let service: Value =
            serde_json::from_slice(&service.value).map_err(|error| Cause::Service(Failure::internal(error)))?;
        match leads(&service, port).map_err(Cause::Service)? {
            Leads::Elsewhere(host) => {
                let PortName::Number(port) = port else {
                    return Err(Cause::Service(unavailable(format!("service {name:?} has no port of its own"))));
                };
                let addresses = self.host(&host).await?;
                Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
            }
            Leads::Port(port) => {
                let slices = self.cache.resource(SLICES).map(|slices| slices.objects(Some(namespace)));
                // Most slices are others'. Objects are stored without spaces.
                let label = format!("\"{SERVICE_NAME}\":{}", Value::from(name));
                let slices = slices
                    .iter()
                    .flatten()
                    .filter(|stored| std::str::from_utf8(&stored.value).is_ok_and(|text| text.contains(&label)));
                let slices: Vec<Value> =
                    slices.filter_map(|stored| serde_json::from_slice(&stored.value).ok()).collect();
                let mut found = ready(&slices, name, &port);
                if found.is_empty() {
                    return Err(Cause::Service(unavailable(format!("no endpoints available for service {name:?}"))));
                }
                found.shuffle(&mut rand::rng());
                found.truncate(ADDRESSES_MAX);
                Ok(found)
            }
        }
    }

    /// Addresses of a host that is no Service.
    pub async fn host(&self, host: &str) -> Result<Vec<IpAddr>, Cause> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let failed = |why: String| Cause::Name { host: host.to_owned(), why };
        // The machine's servers may change while this process runs.
        let resolver = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(LOOKUP_MAX, resolver.lookup_ip(host)).await {
            Ok(Ok(addresses)) => Ok(addresses.iter().take(ADDRESSES_MAX).collect()),
            Ok(Err(error)) if error.is_no_records_found() => Err(failed("no such host".to_owned())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("i/o timeout".to_owned())),
        }
    }
}

fn unavailable(why: String) -> Failure {
    Failure::new(Reason::ServiceUnavailable, why)
}

fn leads(service: &Value, port: PortName<'_>) -> Result<Leads, Failure> {
    let (name, spec) = (service.part("metadata").text("name"), service.part("spec"));
    if spec.text("type") == "ExternalName" {
        return Ok(Leads::Elsewhere(spec.text("externalName").to_owned()));
    }
    let ports = spec.list("ports");
    let numbered = |one: &Value, wanted: u16| one.int("port") == Some(i64::from(wanted));
    let chosen = match port {
        PortName::Number(wanted) => ports.iter().find(|one| numbered(one, wanted)),
        PortName::Text("") if ports.len() == 1 => ports.first(),
        PortName::Text(wanted) => ports
            .iter()
            .find(|one| one.text("name") == wanted)
            .or_else(|| wanted.parse().ok().and_then(|wanted| ports.iter().find(|one| numbered(one, wanted)))),
    };
    let chosen = chosen.ok_or_else(|| match port {
        PortName::Number(port) => unavailable(format!("no service port {port} found for service {name:?}")),
        PortName::Text(port) => unavailable(format!("no service port {port:?} found for service {name:?}")),
    })?;
    Ok(Leads::Port(chosen.text("name").to_owned()))
}

/// The ready endpoints behind the port `port` in the slices of the Service `name`.
fn ready(slices: &[Value], name: &str, port: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        if slice.part("metadata").part("labels").text(SERVICE_NAME) != name {
            continue;
        }
        let number = slice.list("ports").iter().find(|one| one.text("name") == port).and_then(|one| one.int("port"));
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        for endpoint in slice.list("endpoints") {
            let is_ready = endpoint.part("conditions").at("ready").and_then(Value::as_bool).unwrap_or(true);
            let address = endpoint.list("addresses").first().and_then(Value::as_str);
            if let Some(address) = address.filter(|_| is_ready).and_then(|address| address.parse().ok()) {
                found.push(SocketAddr::new(address, number));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_is_found_by_number_name_or_for_being_the_only_one() {
        let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [
            {"name": "web", "port": 443, "targetPort": 9443}, {"name": "metrics", "port": 80},
        ]}});
        let port = |port| leads(&service, port);
        assert_eq!(port(PortName::Number(443)), Ok(Leads::Port("web".to_owned())));
        assert_eq!(port(PortName::Text("metrics")), Ok(Leads::Port("metrics".to_owned())));
        assert_eq!(port(PortName::Text("80")), Ok(Leads::Port("metrics".to_owned())));
        let refused = port(PortName::Number(8443)).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (503, "no service port 8443 found for service \"hook\""));
        assert!(port(PortName::Text("")).is_err());
        let one = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}});
        assert_eq!(leads(&one, PortName::Text("")), Ok(Leads::Port(String::new())));
        let outside = json!({"spec": {"type": "ExternalName", "externalName": "hook.example"}});
        assert_eq!(leads(&outside, PortName::Number(443)), Ok(Leads::Elsewhere("hook.example".to_owned())));
    }

    #[test]
    fn only_ready_endpoints_of_the_services_own_slices_count() {
        let slice = |service: &str, endpoints: Value| {
            json!({"metadata": {"labels": {SERVICE_NAME: service}}, "endpoints": endpoints,
                "ports": [{"name": "web", "port": 9443}]})
        };
        let slices = [
            slice(
                "hook",
                json!([
                    {"addresses": ["10.1.0.1"], "conditions": {"ready": true}},
                    {"addresses": ["10.1.0.2"], "conditions": {"ready": false}},
                    {"addresses": ["fd00::3"]},
                ]),
            ),
            slice("hook-2", json!([{"addresses": ["10.1.0.4"]}])),
        ];
        let found: Vec<String> = ready(&slices, "hook", "web").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.1.0.1:9443", "[fd00::3]:9443"]);
        assert!(ready(&slices, "hook", "other").is_empty());
    }
}
