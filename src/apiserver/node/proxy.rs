//! The subresource `proxy` of Pods and Services: HTTP to a Pod's address.
//!
//! Limitations: plain HTTP only for names without a scheme; `https:` is refused, since nobody could say whose
//! certificate to expect; links in pages are not rewritten.

use std::net::SocketAddr;

use api::{Failure, Fields, Reason};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::Value;

use super::{kubelet, target};
use crate::flowcontrol::Place;
use crate::http::body::Body;
use crate::request::Target;
use crate::server::ApiServer;
use crate::webhook::{self, Cause, PortName};

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
    let unreachable = |cause: Cause| match cause {
        Cause::Service(failure) => failure,
        cause => Failure::new(Reason::ServiceUnavailable, format!("error trying to reach service: {cause}")),
    };
    let address = match asked.plural.as_str() {
        "pods" => pod(&target::pod(server, namespace, name).await?, port)?,
        _ => {
            let found = server.caller().resolver().service(namespace, name, PortName::Text(port)).await;
            found.map_err(unreachable)?.first().copied().ok_or_else(|| Failure::internal("a Service leads nowhere"))?
        }
    };
    let stream = webhook::dial(address).await.map_err(unreachable)?;
    let mut path = format!("/{}", asked.rest);
    if !query.is_empty() {
        path.push('?');
        path.push_str(query);
    }
    let host = address.to_string();
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

fn pod(pod: &Value, port: &str) -> Result<SocketAddr, Failure> {
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
    found
        .map(|port| SocketAddr::new(address, port))
        .ok_or_else(|| Failure::bad_request(format!("no port {port:?} in pod {name}")))
}
