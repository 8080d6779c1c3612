//! Streams to nodes: logs, exec, attach, port-forward, and the node's own HTTP API.
//!
//! The API server decides which container of which Pod is meant and asks the node's kubelet; from then on bytes go
//! through unchanged in both directions, whatever protocol the two ends speak.

mod kubelet;
mod proxy;
mod rewrite;
mod target;

use api::{Call, Failure};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde_json::Value;

pub use kubelet::{Kubelets, exchange};

use crate::admission::connect;
use crate::failures;
use crate::flowcontrol::Place;
use crate::http::body::Body;
use crate::http::respond;
use crate::identity::Identity;
use crate::notes::Notes;
use crate::request::{self, Target};
use crate::server::ApiServer;
use target::{ContainerQuery, Endpoint};

/// Answers a request for a stream. What admission says besides stands in the notes.
pub async fn stream(
    server: &ApiServer,
    user: &Identity,
    asked: &Target,
    call: &Call,
    request: Request<Incoming>,
    place: Place,
    notes: &Notes,
) -> Result<Response<Body>, Failure> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    connect::admit(server, user, asked, call, &request::query(&query), notes).await?;
    let name = call.name.as_deref().unwrap_or_default();
    let namespace = call.namespace.as_deref().unwrap_or_default();
    match (call.resource.plural.as_ref(), call.subresource.as_deref().unwrap_or_default()) {
        ("pods", "log") => {
            let parameters = request::query(&query);
            let options = ContainerQuery::logs(&parameters)?;
            let pod = target::pod(server, namespace, name).await?;
            let container = target::container(&pod, options.container.as_deref())?;
            let Some(endpoint) = target::endpoint(server, &pod)? else { return Ok(respond::text(200, "")) };
            let path = format!("/containerLogs/{namespace}/{name}/{container}?{}", options.query);
            let mut response = kubelet::forward(server, &endpoint, Method::GET, &path, request, place).await?;
            if response.status().is_success() {
                let plain = http::HeaderValue::from_static("text/plain");
                response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
            }
            Ok(response)
        }
        ("pods", kind @ ("exec" | "attach")) => {
            let parameters = request::query(&query);
            let options = ContainerQuery::streams(&parameters, kind == "exec")?;
            let pod = target::pod(server, namespace, name).await?;
            let container = target::container(&pod, options.container.as_deref())?;
            let endpoint = bound(server, &pod, name)?;
            let path = format!("/{kind}/{namespace}/{name}/{container}?{}", options.query);
            let method = request.method().clone();
            kubelet::forward(server, &endpoint, method, &path, request, place).await
        }
        ("pods", "portforward") => {
            let pod = target::pod(server, namespace, name).await?;
            let endpoint = bound(server, &pod, name)?;
            let ports: Vec<String> = request::query(&query)
                .into_iter()
                .filter(|(key, _)| key == "ports")
                .map(|(_, value)| value.into_owned())
                .collect();
            let query =
                if ports.is_empty() { String::new() } else { format!("?port={}", request::escape(&ports.join(","))) };
            let path = format!("/portForward/{namespace}/{name}{query}");
            let method = request.method().clone();
            kubelet::forward(server, &endpoint, method, &path, request, place).await
        }
        ("nodes" | "pods" | "services", "proxy") => {
            proxy::forward(server, asked, namespace, name, &query, request, place).await
        }
        _ => Err(failures::no_such_path()),
    }
}

fn bound(server: &ApiServer, pod: &Value, name: &str) -> Result<Endpoint, Failure> {
    target::endpoint(server, pod)?
        .ok_or_else(|| Failure::bad_request(format!("pod {name} does not have a host assigned")))
}
