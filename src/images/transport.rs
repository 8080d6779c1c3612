//! One HTTP/1.1 request over a connection of its own: names resolved without libc, TLS as the host is configured.
//!
//! Pulling an image takes a handful of requests, most of them long, so connections are not kept.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pki::Trust;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::registries::HostTls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// From request to response head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// TLS settings kept; more hosts than this and all are built anew.
const TLS_CONFIGS_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("{0} is not a URL that can be fetched")]
    Url(String),
    #[error("no address for {host}: {reason}")]
    Resolve { host: String, reason: String },
    #[error("connecting to {address}: {reason}")]
    Connect { address: SocketAddr, reason: String },
    #[error("TLS settings: {0}")]
    TlsSettings(String),
    #[error("TLS: {0}")]
    Tls(String),
    /// The server's certificate is refused: asking again does not help.
    #[error("TLS: {0}")]
    Certificate(String),
    #[error("{0}")]
    Http(String),
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

#[derive(Default)]
pub(crate) struct Transport {
    /// By authority.
    tls: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Transport {
    /// Sends a request to its URI. `tls` are the settings of the URI's host.
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        tls: Option<&HostTls>,
    ) -> Result<Response<Incoming>, TransportError> {
        let uri = request.uri().clone();
        let bad = || TransportError::Url(uri.to_string());
        let authority = uri.authority().ok_or_else(bad)?.clone();
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let tcp = connect(host, port).await?;
        let stream: Box<dyn Stream> = if encrypted {
            let config = self.tls_config(authority.as_str(), tls)?;
            let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
            let handshake = timeout(CONNECT_TIMEOUT, TlsConnector::from(config).connect(name, tcp)).await;
            let stream = handshake.map_err(|_| TransportError::Silent(CONNECT_TIMEOUT))?;
            Box::new(stream.map_err(tls_error)?)
        } else {
            Box::new(tcp)
        };
        let http = |error: hyper::Error| TransportError::Http(crate::error::chain_text(&error));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // Ends with the response's body, or when the caller drops it.
        task::spawn("registry connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "registry connection ended");
            }
        });
        let host_header = http::HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?;
        request.headers_mut().insert(http::header::HOST, host_header);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>().map_err(|_| bad())?;
        match timeout(HEAD_TIMEOUT, sender.send_request(request)).await {
            Ok(response) => response.map_err(http),
            Err(_) => Err(TransportError::Silent(HEAD_TIMEOUT)),
        }
    }

    fn tls_config(&self, authority: &str, tls: Option<&HostTls>) -> Result<Arc<ClientConfig>, TransportError> {
        if let Some(config) = self.tls.lock().get(authority) {
            return Ok(config.clone());
        }
        let config = Arc::new(tls_config(tls.unwrap_or(&HostTls::default()))?);
        let mut kept = self.tls.lock();
        if kept.len() >= TLS_CONFIGS_MAX {
            kept.clear();
        }
        kept.insert(authority.to_owned(), config.clone());
        Ok(config)
    }
}

fn tls_error(error: std::io::Error) -> TransportError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(refused @ rustls::Error::InvalidCertificate(_)) => TransportError::Certificate(refused.to_string()),
        _ => TransportError::Tls(error.to_string()),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, TransportError> {
    let mut last = TransportError::Resolve { host: host.to_owned(), reason: "the answer is empty".to_owned() };
    for address in resolve(host).await? {
        let address = SocketAddr::new(address, port);
        last = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and answered at once; a failure to set this costs only time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => TransportError::Connect { address, reason: error.to_string() },
            Err(_) => TransportError::Connect { address, reason: format!("no answer within {CONNECT_TIMEOUT:?}") },
        };
    }
    Err(last)
}

/// Addresses from /etc/hosts or the servers of /etc/resolv.conf, which are read anew each time: a node's network may
/// change, and a pull is rare.
async fn resolve(host: &str) -> Result<Vec<IpAddr>, TransportError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()]);
    }
    let fail = |reason: String| TransportError::Resolve { host: host.to_owned(), reason };
    let resolver =
        TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(|error| fail(error.to_string()))?;
    match timeout(RESOLVE_TIMEOUT, resolver.lookup_ip(host)).await {
        Ok(Ok(addresses)) => Ok(addresses.iter().collect()),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Err(_) => Err(fail(format!("no answer within {RESOLVE_TIMEOUT:?}"))),
    }
}

fn tls_config(tls: &HostTls) -> Result<ClientConfig, TransportError> {
    let fail = |reason: String| TransportError::TlsSettings(reason);
    let read = |file: &Path| std::fs::read(file).map_err(|error| fail(format!("{}: {error}", file.display())));
    let trust = match &tls.ca_file {
        _ if tls.insecure_skip_verify => Trust::Anybody,
        Some(file) => Trust::SystemAnd(read(file)?),
        None => Trust::System,
    };
    let builder = trust.client().map_err(|error| fail(error.to_string()))?;
    match (&tls.cert_file, &tls.key_file) {
        (Some(certificate), Some(key)) => {
            let wrong = |file: &Path, reason: &dyn std::fmt::Display| fail(format!("{}: {reason}", file.display()));
            let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| wrong(certificate, &error))?;
            let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| wrong(key, &error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| fail(error.to_string()))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}
