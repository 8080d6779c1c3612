//! The connection to a kubelet: TLS both ways, one request, and bytes spliced after an upgrade.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Failure, Reason};
use futures::StreamExt;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pki::Trust;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::target::Endpoint;
use crate::config::{Error, KubeletClient};
use crate::flowcontrol::Place;
use crate::http::body::Body;
use crate::server::ApiServer;
use crate::webhook;

/// The first bytes of an answer; commands and logs may take as long as they like afterwards.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// How nodes and what runs on them are spoken to over TLS.
pub struct Kubelets {
    connector: TlsConnector,
    anybody: TlsConnector,
}

impl Kubelets {
    pub fn new(client: &KubeletClient) -> Result<Kubelets, Error> {
        let trust = Trust::Roots(client.authorities.clone()).client()?;
        let config = trust.with_client_cert_resolver(client.certificate.clone());
        let anybody = Trust::Anybody.client()?.with_no_client_auth();
        Ok(Kubelets { connector: TlsConnector::from(Arc::new(config)), anybody: TlsConnector::from(Arc::new(anybody)) })
    }

    /// Shows the API server's certificate, and asks for a kubelet's.
    pub fn to_kubelets(&self) -> &TlsConnector {
        &self.connector
    }

    /// Shows no certificate, and takes any.
    pub fn to_anybody(&self) -> &TlsConnector {
        &self.anybody
    }
}

/// Sends the request to a kubelet and hands its answer back.
pub async fn forward(
    server: &ApiServer,
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    request: Request<Incoming>,
    place: Place,
) -> Result<Response<Body>, Failure> {
    let address = SocketAddr::new(endpoint.address, endpoint.port);
    let unreachable = |why: webhook::Cause| {
        let message =
            format!("error dialing backend: cannot reach the kubelet of node {} at {address}: {why}", endpoint.node);
        Failure::new(Reason::InternalError, message)
    };
    let stream = webhook::dial(address).await.map_err(unreachable)?;
    let name = ServerName::from(endpoint.address);
    let stream = webhook::secure(&server.kubelets().connector, name, stream).await.map_err(unreachable)?;
    let host = address.to_string();
    exchange(stream, &host, method, path, request, place).await
}

/// One request over a connection of its own.
pub async fn exchange<S>(
    stream: S,
    host: &str,
    method: Method,
    path: &str,
    mut request: Request<Incoming>,
    place: Place,
) -> Result<Response<Body>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| Failure::new(Reason::InternalError, format!("error sending request: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    task::spawn("node-connection", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a node");
        }
    });
    let upgrade = request.headers().get(UPGRADE).cloned();
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::builder().method(method).uri(path);
    if let Some(headers) = outgoing.headers_mut() {
        pass(&parts.headers, headers);
        headers.insert(HOST, HeaderValue::from_str(host).map_err(Failure::internal)?);
        if let Some(upgrade) = upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, upgrade);
        }
    }
    let outgoing = outgoing.body(body).map_err(|error| Failure::bad_request(error.to_string()))?;
    let answer = tokio::time::timeout(ANSWER_MAX, sender.send_request(outgoing)).await;
    let mut answer = answer.map_err(|_| Failure::new(Reason::Timeout, "the node does not answer"))?.map_err(failed)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(Failure::internal("the node switched protocols without being asked to"));
        };
        let node = hyper::upgrade::on(&mut answer);
        task::spawn("node-stream", async move {
            let _place = place;
            let (client, node) = match tokio::join!(client, node) {
                (Ok(client), Ok(node)) => (client, node),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::debug!(%error, "upgrade");
                    return;
                }
            };
            let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
                tracing::debug!(%error, "stream to a node");
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in answer.headers() {
            response.headers_mut().append(name, value.clone());
        }
        return Ok(response);
    }
    let (parts, body) = answer.into_parts();
    // Dropping the sender would end the connection before the body is read.
    let pieces = body.into_data_stream().scan((sender, place), |_held, piece| {
        std::future::ready(match piece {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::debug!(%error, "answer of a node");
                None
            }
        })
    });
    let mut response = Response::new(Body::stream(pieces));
    *response.status_mut() = parts.status;
    pass(&parts.headers, response.headers_mut());
    if let Some(content_type) = parts.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    Ok(response)
}

/// Copies what is for the other end; what concerns this connection alone stays, and so do credentials.
fn pass(from: &HeaderMap, to: &mut HeaderMap) {
    const STAYS: [HeaderName; 6] =
        [CONNECTION, UPGRADE, TRANSFER_ENCODING, CONTENT_LENGTH, HOST, http::header::AUTHORIZATION];
    for (name, value) in from {
        let stays = STAYS.contains(name)
            || name.as_str().starts_with("impersonate-")
            || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "te" | "trailer" | "cookie");
        if !stays {
            to.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use pki::{Authority, Live, Profile};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
    use rustls::{RootCertStore, ServerConfig};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn a_renewed_certificate_is_what_the_next_connection_shows() {
        let authority = Authority::create("ca").unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap()).unwrap();
        let roots = Arc::new(roots);
        let issue = || authority.issue(&Profile::client("kube-apiserver-kubelet-client", &[])).unwrap();
        let live = Live::new(&issue()).unwrap();
        let client = KubeletClient { certificate: Arc::new(live.clone()), authorities: roots.clone() };
        let kubelets = Kubelets::new(&client).unwrap();

        let serving = authority.issue(&Profile::server("node", vec!["node".to_owned()], vec![])).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Live::new(&serving).unwrap()));
        // A session that goes on keeps the certificate that it began with.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shown = async || {
            let (near, far) = tokio::io::duplex(1 << 16);
            let name = ServerName::try_from("node").unwrap();
            let (client, server) = tokio::join!(kubelets.connector.connect(name, near), acceptor.accept(far));
            client.unwrap();
            server.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone()
        };
        let renewed = issue();
        assert_ne!(shown().await, CertificateDer::from_pem_slice(renewed.cert_pem.as_bytes()).unwrap());
        live.replace(&renewed).unwrap();
        assert_eq!(shown().await, CertificateDer::from_pem_slice(renewed.cert_pem.as_bytes()).unwrap());
    }
}
