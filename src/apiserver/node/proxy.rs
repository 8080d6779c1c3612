//! The subresource `proxy` of Nodes, Pods and Services: HTTP to a Node's kubelet or to any port of the three.
//!
//! The names say how: `name`, `name:port` or `scheme:name:port`. Behind `https:` any certificate will do, as upstream has
//! it: nobody could say whose to expect. Only a kubelet, at its own port, has to be one of the cluster's.

use std::net::{IpAddr, SocketAddr};

use api::{Failure, Fields, Reason};
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::rewrite::Proxy;
use super::{kubelet, target};
use crate::flowcontrol::Place;
use crate::http::body::Body;
use crate::request::Target;
use crate::server::ApiServer;
use crate::webhook::{self, Cause, PortName};

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Where a request goes, and the TLS on the way.
struct Destination<'a> {
    address: SocketAddr,
    tls: Option<&'a TlsConnector>,
}

/// The parts of a name; what is not there is empty.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

pub async fn forward(
    server: &ApiServer,
    asked: &Target,
    namespace: &str,
    name: &str,
    query: &str,
    mut request: Request<Incoming>,
    place: Place,
) -> Result<Response<Body>, Failure> {
    let uri = request.uri().clone();
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let prefix = uri.path().strip_suffix(&asked.rest).unwrap_or(uri.path());
    if asked.rest.is_empty() && !prefix.ends_with('/') && matches!(*request.method(), Method::GET | Method::HEAD) {
        return moved(&format!("{prefix}/{query}"));
    }
    let prefix = prefix.trim_end_matches('/').to_owned();
    let to = destination(server, &asked.plural, namespace, name).await?;
    let stream = webhook::dial(to.address).await.map_err(unreachable)?;
    let path = format!("/{}{query}", asked.rest);
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = host.or_else(|| uri.authority().map(ToString::to_string)).unwrap_or_else(|| to.address.to_string());
    let forwarded = HeaderValue::from_str(&format!("{prefix}/{}", asked.rest)).map_err(Failure::internal)?;
    request.headers_mut().insert(FORWARDED_URI, forwarded);
    let proxy = Proxy { prefix, address: to.address.to_string(), host };
    let method = request.method().clone();
    let mut answer = match to.tls {
        None => kubelet::exchange(stream, &proxy.host, method, &path, request, place).await?,
        Some(tls) => {
            let name = ServerName::from(to.address.ip());
            let stream = webhook::secure(tls, name, stream).await.map_err(unreachable)?;
            kubelet::exchange(stream, &proxy.host, method, &path, request, place).await?
        }
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    proxy.redirect(answer.headers_mut());
    let (parts, body) = answer.into_parts();
    let body = proxy.page(&parts.headers, body).await;
    Ok(Response::from_parts(parts, body))
}

/// Links in a page are relative to the last slash of its path, so there has to be one.
fn moved(to: &str) -> Result<Response<Body>, Failure> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(to).map_err(Failure::internal)?);
    Ok(response)
}

fn unreachable(cause: Cause) -> Failure {
    match cause {
        Cause::Service(failure) => failure,
        cause => Failure::new(Reason::ServiceUnavailable, format!("error trying to reach service: {cause}")),
    }
}

async fn destination<'a>(
    server: &'a ApiServer,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Destination<'a>, Failure> {
    let kind = plural.trim_end_matches('s');
    let asked = split(name).ok_or_else(|| Failure::bad_request(format!("invalid {kind} request {name:?}")))?;
    let kubelets = server.kubelets();
    let tls = (asked.scheme == "https").then(|| kubelets.to_anybody());
    match plural {
        "pods" => {
            let pod = target::pod(server, namespace, asked.name).await?;
            Ok(Destination { address: of_pod(&pod, asked.port)?, tls })
        }
        "nodes" => {
            let kubelet = target::node(server, asked.name)?;
            if asked.port.is_empty() || asked.port == kubelet.port.to_string() {
                let address = SocketAddr::new(kubelet.address, kubelet.port);
                return Ok(Destination { address, tls: Some(kubelets.to_kubelets()) });
            }
            Ok(Destination { address: reachable(kubelet.address, number(asked.port)?)?, tls })
        }
        _ => {
            let found = server.caller().resolver().service(namespace, asked.name, PortName::Text(asked.port)).await;
            let address = found.map_err(unreachable)?.first().copied();
            let address = address.ok_or_else(|| Failure::internal("a Service leads nowhere"))?;
            Ok(Destination { address: reachable(address.ip(), address.port())?, tls })
        }
    }
}

/// `name`, `name:port` or `scheme:name:port`.
fn split(text: &str) -> Option<Name<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let name = match parts.as_slice() {
        [name] => Name { scheme: "", name, port: "" },
        [name, port] => Name { scheme: "", name, port },
        [scheme, name, port] => Name { scheme, name, port },
        _ => return None,
    };
    (!name.name.is_empty() && matches!(name.scheme, "" | "http" | "https")).then_some(name)
}

/// The port of a Pod that is meant: the one that is named, or the first that it declares, or that of HTTP.
fn of_pod(pod: &Value, port: &str) -> Result<SocketAddr, Failure> {
    let address = pod.part("status").text("podIP").parse().map_err(|_| not_allowed())?;
    let containers = pod.part("spec").list("containers");
    let declared = containers.iter().flat_map(|container| container.list("ports")).next();
    let port = match port {
        "" => declared.and_then(|port| u16::try_from(port.int("containerPort")?).ok()).unwrap_or(80),
        port => number(port)?,
    };
    reachable(address, port)
}

fn number(port: &str) -> Result<u16, Failure> {
    port.parse().map_err(|_| {
        Failure::new(Reason::ServiceUnavailable, format!("error trying to reach service: unknown port {port:?}"))
    })
}

/// Nobody gets to this machine's own addresses by giving them to a Pod.
fn reachable(address: IpAddr, port: u16) -> Result<SocketAddr, Failure> {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if local || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(not_allowed());
    }
    Ok(SocketAddr::new(address, port))
}

fn not_allowed() -> Failure {
    Failure::bad_request("address not allowed")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_have_schemes_and_ports() {
        let shown = |text| split(text).map(|Name { scheme, name, port }| format!("{scheme} {name} {port}"));
        assert_eq!(shown("web").as_deref(), Some(" web "));
        assert_eq!(shown("web:http").as_deref(), Some(" web http"));
        assert_eq!(shown("https:web:443").as_deref(), Some("https web 443"));
        assert_eq!(shown(":web:").as_deref(), Some(" web "));
        for wrong in ["", ":80", "ftp:web:21", "a:b:c:d", "http::80"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pod_is_reached_at_its_first_port_and_never_at_this_machine() {
        let pod = |address: &str| {
            json!({"status": {"podIP": address}, "spec": {"containers": [
                {"ports": []}, {"ports": [{"containerPort": 8080}, {"containerPort": 9090}]}]}})
        };
        assert_eq!(of_pod(&pod("10.42.0.7"), "").unwrap().to_string(), "10.42.0.7:8080");
        assert_eq!(of_pod(&pod("10.42.0.7"), "90").unwrap().to_string(), "10.42.0.7:90");
        assert_eq!(of_pod(&json!({"status": {"podIP": "fd00::7"}}), "").unwrap().to_string(), "[fd00::7]:80");
        for address in ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "", "224.0.0.1"] {
            assert_eq!(of_pod(&pod(address), "80").unwrap_err().message, "address not allowed", "{address}");
        }
    }
}
