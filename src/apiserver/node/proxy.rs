//! The subresource `proxy` of Pods and Services: HTTP to a Pod's address.
//!
//! Limitations: plain HTTP only for names without a scheme; `https:` is refused, since nobody could say whose
//! certificate to expect; links in pages are not rewritten.

use std::net::IpAddr;
use std::time::Duration;

use api::{Failure, Fields, Reason, Row};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{kubelet, target};
use crate::http::body::Body;
use crate::limits::Place;
use crate::request::Target;
use crate::server::ApiServer;
use crate::verbs;

const CONNECT_MAX: Duration = Duration::from_secs(10);

pub async fn forward(
    server: &ApiServer,
    asked: &Target,
    namespace: &str,
    name: &str,
    query: &str,
    request: Request<Incoming>,
    place: Place,
) -> Result<Response<Body>, Failure> {
    let (name, port) = split(name)?;
    let (address, port) = match asked.plural.as_str() {
        "pods" => pod(&target::pod(server, namespace, name).await?, port)?,
        _ => service(server, namespace, name, port)?,
    };
    let connect = tokio::time::timeout(CONNECT_MAX, TcpStream::connect((address, port))).await;
    let unreachable = |why: String| {
        Failure::new(
            Reason::ServiceUnavailable,
            format!("error trying to reach service: dial tcp {address}:{port}: {why}"),
        )
    };
    let stream = match connect {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable("i/o timeout".to_owned())),
    };
    let mut path = format!("/{}", asked.rest);
    if !query.is_empty() {
        path.push('?');
        path.push_str(query);
    }
    let host = std::net::SocketAddr::new(address, port).to_string();
    let method = request.method().clone();
    kubelet::exchange(stream, &host, method, &path, request, place).await
}

/// `name`, `name:port` or `scheme:name:port`.
fn split(text: &str) -> Result<(&str, &str), Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => Ok((name, "")),
        [name, port] => Ok((name, port)),
        ["" | "http", name, port] => Ok((name, port)),
        _ => Err(Failure::bad_request(format!("invalid service or pod request {text:?}"))),
    }
}

fn pod(pod: &Value, port: &str) -> Result<(IpAddr, u16), Failure> {
    let name = pod.part("metadata").text("name");
    let address = pod.part("status").text("podIP");
    let address =
        address.parse().map_err(|_| Failure::bad_request(format!("address not allowed: pod {name} has none")))?;
    let containers = pod.part("spec").list("containers");
    let mut ports = containers.iter().flat_map(|container| container.list("ports"));
    let found = match port.parse::<u16>() {
        Ok(number) => Some(number),
        Err(_) => {
            let wanted = ports.find(|one| port.is_empty() || one.text("name") == port);
            wanted.and_then(|one| one.int("containerPort")).and_then(|port| u16::try_from(port).ok())
        }
    };
    let found = found.or(port.is_empty().then_some(80));
    found.map(|port| (address, port)).ok_or_else(|| Failure::bad_request(format!("no port {port:?} in pod {name}")))
}

/// A ready endpoint behind the Service's port.
fn service(server: &ApiServer, namespace: &str, name: &str, port: &str) -> Result<(IpAddr, u16), Failure> {
    let unavailable = |why: String| Failure::new(Reason::ServiceUnavailable, why);
    let row = Row::find("", "v1", "services").ok_or_else(|| Failure::internal("no row for services"))?;
    let stored = verbs::cache_of(server, row)?
        .get(&format!("{namespace}/{name}"))
        .ok_or_else(|| Failure::not_found("", "services", name))?;
    let service: Value = serde_json::from_slice(&stored.value).map_err(Failure::internal)?;
    let ports = service.part("spec").list("ports");
    let chosen = ports.iter().find(|one| {
        (port.is_empty() && ports.len() == 1)
            || one.text("name") == port
            || one.int("port").is_some_and(|number| number.to_string() == port)
    });
    let chosen = chosen.ok_or_else(|| unavailable(format!("no service port {port:?} found for service {name:?}")))?;
    let slices = Row::find("discovery.k8s.io", "v1", "endpointslices")
        .ok_or_else(|| Failure::internal("no row for endpointslices"))?;
    for stored in verbs::cache_of(server, slices)?.objects(Some(namespace)) {
        let Ok(slice) = serde_json::from_slice::<Value>(&stored.value) else { continue };
        if slice.part("metadata").part("labels").text("kubernetes.io/service-name") != name {
            continue;
        }
        let matching = slice.list("ports").iter().find(|one| one.text("name") == chosen.text("name"));
        let Some(number) = matching.and_then(|one| one.int("port")).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        let ready = slice
            .list("endpoints")
            .iter()
            .find(|endpoint| endpoint.part("conditions").at("ready").and_then(Value::as_bool).unwrap_or(true));
        let address = ready.and_then(|endpoint| endpoint.list("addresses").first()).and_then(Value::as_str);
        if let Some(address) = address.and_then(|address| address.parse().ok()) {
            return Ok((address, number));
        }
    }
    Err(unavailable(format!("no endpoints available for service {name:?}")))
}
