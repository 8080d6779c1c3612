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
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
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
/// Where distributions keep the certificates they trust; the first that exists is taken.
const SYSTEM_CA_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let fail = |reason: String| TransportError::TlsSettings(reason);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?;
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
    } else {
        let mut roots = RootCertStore::empty();
        if let Some(file) = SYSTEM_CA_FILES.iter().map(Path::new).find(|file| file.exists()) {
            // A bundle may hold certificates that are of no use to us.
            roots.add_parsable_certificates(certificates(file)?);
        }
        let mut pinned = Vec::new();
        if let Some(file) = &tls.ca_file {
            pinned = certificates(file)?;
            for certificate in &pinned {
                roots.add(certificate.clone()).map_err(|error| fail(format!("{}: {error}", file.display())))?;
            }
        }
        if pinned.is_empty() {
            builder.with_root_certificates(roots)
        } else {
            let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| fail(error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(ChainOrPinned { chains, pinned }))
        }
    };
    match (&tls.cert_file, &tls.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key_pem = std::fs::read(key).map_err(|error| fail(format!("{}: {error}", key.display())))?;
            let key =
                PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| fail(format!("{}: {error}", key.display())))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| fail(error.to_string()))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let fail = |reason: String| TransportError::TlsSettings(format!("{}: {reason}", file.display()));
    let pem = std::fs::read(file).map_err(|error| fail(error.to_string()))?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| fail(error.to_string()))
}

/// Chains as usual, and besides a certificate that stands in `ca_file` itself: `openssl req -x509` makes
/// authorities that servers then show as their own certificate, which webpki refuses and Go's clients do not.
#[derive(Debug)]
struct ChainOrPinned {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ChainOrPinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chained = self.chains.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        if chained.is_ok() || !self.pinned.iter().any(|pinned| pinned == end_entity) {
            return chained;
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        let encoding = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, parsed) = x509_parser::parse_x509_certificate(end_entity).map_err(|_| encoding())?;
        let now = i64::try_from(now.as_secs()).map_err(|_| encoding())?;
        if parsed.validity().not_before.timestamp() > now {
            return Err(CertificateError::NotValidYet.into());
        }
        if parsed.validity().not_after.timestamp() < now {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// `insecure_skip_verify`: any certificate will do, but the server must hold its key.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
