//! What probes and lifecycle hooks do: run a command, ask over HTTP, connect, ask over gRPC.
//!
//! Requests go from the node to the pod's address over plain sockets. Limitations: HTTP redirects count as success and are
//! not followed; TLS certificates are not verified, as upstream.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::seconds;
use crate::runtime::Runtime;

const TIMEOUT_SECONDS_DEFAULT: u64 = 1;
/// Of an answer's body or a command's output, what a message shows.
const SHOWN_BYTES_MAX: usize = 10 * 1024;
const USER_AGENT: &str = "kube-probe/1.36";

/// The container that is asked.
#[derive(Clone, Debug)]
pub struct Target {
    pub pod: Arc<Pod>,
    pub container: Container,
    pub container_id: String,
    pub pod_ip: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The container is not well, and why.
    Failure(String),
    /// It could not be found out.
    Error(String),
}

pub async fn probe(runtime: &Runtime, probe: &Probe, target: &Target) -> Outcome {
    let timeout = seconds(probe.timeout_seconds, TIMEOUT_SECONDS_DEFAULT);
    if let Some(action) = &probe.exec {
        return exec(runtime, action, target, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return match http_get(action, target, timeout).await {
            Ok((status, _)) if (200..400).contains(&status) => Outcome::Success,
            Ok((status, _)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(why) => Outcome::Failure(why),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let Some(port) = port_of(&action.port, &target.container) else {
            return Outcome::Error(format!("couldn't find port: {}", show(&action.port)));
        };
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
        return match connect(host, port, timeout).await {
            Ok(_) => Outcome::Success,
            Err(why) => Outcome::Failure(why),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Outcome::Error(format!("invalid port number: {}", action.port));
        };
        let service = action.service.as_deref().unwrap_or_default();
        return grpc::check(&target.pod_ip, port, service, timeout).await;
    }
    Outcome::Error(format!(
        "missing probe handler for {}:{}",
        target.pod.metadata.name.as_deref().unwrap_or_default(),
        target.container.name
    ))
}

async fn exec(runtime: &Runtime, action: &ExecAction, target: &Target, timeout: Duration) -> Outcome {
    let command = action.command.clone().unwrap_or_default();
    match runtime.exec_sync(&target.container_id, command.clone(), timeout).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(SHOWN_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code == tonic::Code::DeadlineExceeded => Outcome::Failure(format!(
            "command timed out: \"{}\" timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

/// Status and the beginning of the body.
pub async fn http_get(action: &HTTPGetAction, target: &Target, timeout: Duration) -> Result<(u16, Bytes), String> {
    let port = port_of(&action.port, &target.container)
        .ok_or_else(|| format!("couldn't find port: {}", show(&action.port)))?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let is_tls = action.scheme.as_deref() == Some("HTTPS");
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let url = format!("{}://{authority}{path}", if is_tls { "https" } else { "http" });
    let fail = |why: &dyn std::fmt::Display| format!("Get \"{url}\": {why}");
    let request = request(action, &path, &authority).map_err(|error| fail(&error))?;
    let answer = tokio::time::timeout(timeout, async {
        let stream = connect(host, port, timeout).await?;
        if is_tls {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let stream = tls()?.connect(name, stream).await.map_err(|error| error.to_string())?;
            send(TokioIo::new(stream), request).await
        } else {
            send(TokioIo::new(stream), request).await
        }
    });
    match answer.await {
        Ok(answer) => answer.map_err(|why| fail(&why)),
        Err(_) => Err(fail(&"context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

fn request(action: &HTTPGetAction, path: &str, authority: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    let uri: Uri = path.parse()?;
    let mut request = Request::get(uri);
    let own = action.http_headers.as_deref().unwrap_or_default();
    let has = |name: &str| own.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header("Host", authority);
    }
    if !has("user-agent") {
        request = request.header("User-Agent", USER_AGENT);
    }
    if !has("accept") {
        request = request.header("Accept", "*/*");
    }
    request = request.header("Connection", "close");
    for header in own.iter().filter(|header| !header.value.is_empty() || !header.name.eq_ignore_ascii_case("accept")) {
        request = request.header(&header.name, &header.value);
    }
    request.body(Empty::new())
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(u16, Bytes), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), SHOWN_BYTES_MAX).collect().await;
        Ok((status, body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection is driven here and not by a task of its own: it ends with the answer.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Connects to an address. Names would need a resolver and are not looked up.
async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let ip: std::net::IpAddr = if host == "localhost" {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        host.parse().map_err(|_| format!("dial tcp: lookup {host}: no such host"))?
    };
    match tokio::time::timeout(timeout, TcpStream::connect((ip, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("dial tcp {shown}: connect: connection refused"))
        }
        Ok(Err(error)) => Err(format!("dial tcp {shown}: connect: {error}")),
        Err(_) => Err(format!("dial tcp {shown}: i/o timeout")),
    }
}

/// A number, or the name of one of the container's ports.
fn port_of(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|&number| number > 0),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.and_then(|port| u16::try_from(port.container_port).ok()).or_else(|| name.parse().ok())
        }
    }
}

fn show(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// Probes ask whether something answers, not who.
fn tls() -> Result<tokio_rustls::TlsConnector, String> {
    static CONFIG: LazyLock<Result<Arc<rustls::ClientConfig>, String>> = LazyLock::new(|| {
        let builder = pki::Trust::Anybody.client().map_err(|error| error.to_string())?;
        Ok(Arc::new(builder.with_no_client_auth()))
    });
    CONFIG.clone().map(Into::into)
}

/// The gRPC health checking protocol, `grpc.health.v1.Health/Check`.
mod grpc {
    use super::{Duration, Outcome};

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HealthCheckRequest {
        #[prost(string, tag = "1")]
        pub service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HealthCheckResponse {
        #[prost(int32, tag = "1")]
        pub status: i32,
    }

    const SERVING: i32 = 1;

    pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let asked = tokio::time::timeout(timeout, ask(&authority, service));
        match asked.await {
            Ok(Ok(SERVING)) => Outcome::Success,
            Ok(Ok(status)) => Outcome::Failure(format!(
                "service unhealthy (responded with \"{}\")",
                match status {
                    2 => "NOT_SERVING",
                    3 => "SERVICE_UNKNOWN",
                    _ => "UNKNOWN",
                }
            )),
            Ok(Err(why)) => Outcome::Failure(why),
            Err(_) => Outcome::Failure(format!(
                "timeout: failed to connect service \"{authority}\" within {}s: context deadline exceeded",
                timeout.as_secs()
            )),
        }
    }

    async fn ask(authority: &str, service: &str) -> Result<i32, String> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{authority}"));
        let channel = endpoint
            .map_err(|error| error.to_string())?
            .connect()
            .await
            .map_err(|_| format!("failed to connect service \"{authority}\""))?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| error.to_string())?;
        let codec: tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckResponse> =
            tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        match client.unary(request, path, codec).await {
            Ok(answer) => Ok(answer.into_inner().status),
            Err(status) if status.code() == tonic::Code::Unimplemented => Err(format!(
                "this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            )),
            Err(status) => Err(format!("health rpc failed: {}", status.message())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_have_names() {
        let container: Container =
            serde_json::from_value(json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        let of = |port: serde_json::Value| port_of(&serde_json::from_value(port).unwrap(), &container);
        assert_eq!(of(json!("web")), Some(8080));
        assert_eq!(of(json!(80)), Some(80));
        assert_eq!(of(json!("81")), Some(81));
        assert_eq!(of(json!("none")), None);
        assert_eq!(of(json!(0)), None);
    }

    #[test]
    fn requests_have_upstreams_headers() {
        let action: HTTPGetAction = serde_json::from_value(
            json!({"port": 80, "httpHeaders": [{"name": "Host", "value": "a.example"}, {"name": "X", "value": "1"}]}),
        )
        .unwrap();
        let made = request(&action, "/x", "10.0.0.1:80").unwrap();
        assert_eq!(made.headers()["host"], "a.example");
        assert_eq!(made.headers()["user-agent"], "kube-probe/1.36");
        assert_eq!(made.headers()["x"], "1");
    }
}
