//! Where a program is, whom to believe that it is there, and how the API server shows itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::Fields;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use pki::Trust;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::Connector;
use super::credentials::Credentials;
use super::error::Cause;
use super::resolve::Resolver;

const HTTPS_PORT: u16 = 443;
/// A token that stands in a file is read again after this long (upstream: 1 min).
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// One place to call. Clones are the same place; endpoints that differ in nothing but the path share connections.
#[derive(Clone, Debug)]
pub struct Endpoint {
    place: Place,
    /// Path and query, with the slash in front.
    path: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Plain HTTP if there is none.
    tls: Option<Tls>,
    token: Option<Token>,
    /// Stands for all of it but the path.
    key: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Host { host: String, port: u16, authority: String },
    Service { namespace: String, name: String, port: u16 },
}

#[derive(Debug)]
struct Tls {
    name: ServerName<'static>,
    config: ClientConfig,
}

/// A certificate that the API server shows, with what tells it from others.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    fingerprint: [u8; 32],
    resolver: Arc<dyn ResolvesClientCert>,
}

/// What the `Authorization` header says.
pub(super) enum Token {
    Fixed(HeaderValue),
    File { path: PathBuf, read: Mutex<Option<(Instant, HeaderValue)>> },
}

/// An endpoint cannot be made of what is said about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("webhook configuration must have either service or URL")]
    Nowhere,
    #[error("Unparsable URL: {0}")]
    Url(String),
    #[error("unable to load root certificates: {0}")]
    Authorities(String),
    #[error("{0} is no name of a host")]
    Name(String),
    #[error("{what} of the kubeconfig: {why}")]
    Kubeconfig { what: &'static str, why: String },
}

impl ClientCertificate {
    /// `id` tells it from others that this process shows.
    pub fn new(id: &str, resolver: Arc<dyn ResolvesClientCert>) -> ClientCertificate {
        ClientCertificate { fingerprint: Sha256::digest(id.as_bytes()).into(), resolver }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What an endpoint is made of.
pub(super) struct Parts {
    pub place: Place,
    pub path: String,
    pub encrypted: bool,
    pub trust: Trust,
    /// The name in the server's certificate where it is not the place's.
    pub server_name: Option<String>,
    pub certificate: Option<ClientCertificate>,
    pub token: Option<Token>,
}

impl Parts {
    fn of_client_config(config: &Value) -> Result<Parts, EndpointError> {
        let trust = match config.text("caBundle") {
            "" => Trust::System,
            bundle => {
                Trust::Bundle(STANDARD.decode(bundle).map_err(|error| EndpointError::Authorities(error.to_string()))?)
            }
        };
        if let Some(service) = config.at("service") {
            let port = service.int("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(HTTPS_PORT);
            return Ok(Parts::service(
                service.text("namespace"),
                service.text("name"),
                port,
                service.text("path"),
                trust,
            ));
        }
        match config.text("url") {
            "" => Err(EndpointError::Nowhere),
            url => Parts::url(url, trust),
        }
    }

    fn service(namespace: &str, name: &str, port: u16, path: &str, trust: Trust) -> Parts {
        let place = Place::Service { namespace: namespace.to_owned(), name: name.to_owned(), port };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Parts { place, path, encrypted: true, trust, server_name: None, certificate: None, token: None }
    }

    fn url(url: &str, trust: Trust) -> Result<Parts, EndpointError> {
        let (place, path, encrypted) = split(url)?;
        Ok(Parts { place, path, encrypted, trust, server_name: None, certificate: None, token: None })
    }
}

impl Endpoint {
    /// From a `WebhookClientConfig` as it stands in webhook configurations and CustomResourceDefinitions: `url`, or
    /// `service` with `namespace`, `name`, `path` and `port`, and `caBundle` in base64.
    pub fn from_client_config(config: &Value) -> Result<Endpoint, EndpointError> {
        Endpoint::new(Parts::of_client_config(config)?)
    }

    /// The same, where the API server shows itself with what it has for that place.
    pub fn from_client_config_with(config: &Value, credentials: &Credentials) -> Result<Endpoint, EndpointError> {
        let parts = Parts::of_client_config(config)?;
        let (certificate, token) = match &parts.place {
            Place::Host { host, port, .. } => credentials.login(host, *port)?,
            Place::Service { namespace, name, port } => credentials.login(&format!("{name}.{namespace}.svc"), *port)?,
        };
        Endpoint::new(Parts { certificate, token, ..parts })
    }

    /// A Service's port, over HTTPS. The certificate must be for `<name>.<namespace>.svc`.
    pub fn service(
        namespace: &str,
        name: &str,
        port: u16,
        path: &str,
        trust: Trust,
        certificate: Option<ClientCertificate>,
    ) -> Result<Endpoint, EndpointError> {
        Endpoint::new(Parts { certificate, ..Parts::service(namespace, name, port, path, trust) })
    }

    /// A URL.
    pub fn url(url: &str, trust: Trust) -> Result<Endpoint, EndpointError> {
        Endpoint::new(Parts::url(url, trust)?)
    }

    pub(super) fn new(parts: Parts) -> Result<Endpoint, EndpointError> {
        let Parts { place, path, encrypted, trust, server_name, certificate, token } = parts;
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        };
        add(format!("{place:?} {encrypted} {server_name:?}").as_bytes());
        match &trust {
            Trust::Bundle(pem) => add(pem),
            Trust::SystemAnd(pem) => {
                add(b"and the system's");
                add(pem);
            }
            Trust::Roots(roots) => roots.roots.iter().for_each(|root| add(&root.subject_public_key_info)),
            other @ (Trust::System | Trust::Anybody) => add(format!("{other:?}").as_bytes()),
        }
        if let Some(certificate) = &certificate {
            add(&certificate.fingerprint);
        }
        match &token {
            Some(Token::Fixed(value)) => add(value.as_bytes()),
            Some(Token::File { path, .. }) => add(path.as_os_str().as_encoded_bytes()),
            None => {}
        }
        let tls = if encrypted { Some(tls(&place, &trust, server_name, certificate)?) } else { None };
        Ok(Endpoint { place, path, shared: Arc::new(Shared { tls, token, key: hash.finalize().into() }) })
    }

    /// The same place with `query` added to the path, such as `timeout=10s`.
    #[must_use]
    pub fn with_query(mut self, query: &str) -> Endpoint {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(query);
        self
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL without its path.
    pub fn base(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// Host and port, as the `Host` header names them.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Host { authority, .. } => authority.clone(),
            Place::Service { namespace, name, port } => format!("{name}.{namespace}.svc:{port}"),
        }
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        &self.shared.key
    }

    pub(super) fn uri(&self, path: &str) -> Result<Uri, Cause> {
        format!("{}{path}", self.base())
            .parse()
            .map_err(|error: http::uri::InvalidUri| Cause::Request(error.to_string()))
    }

    /// HTTP/2 would put all requests on one connection and so to one endpoint of a Service; it is offered to this
    /// machine only, as upstream does.
    pub(super) fn connector(&self, resolver: &Resolver, pooled: bool) -> Result<Connector, Cause> {
        let local = matches!(&self.place, Place::Host { host, .. } if is_local(host));
        let tls = self.shared.tls.as_ref().map(|tls| {
            let mut config = tls.config.clone();
            if pooled && local {
                config.alpn_protocols.push(b"h2".to_vec());
            }
            config.alpn_protocols.push(b"http/1.1".to_vec());
            (tls.name.clone(), config)
        });
        Ok(Connector::new(self.place.clone(), tls, resolver.clone()))
    }

    pub(super) async fn authorization(&self) -> Result<Option<HeaderValue>, Cause> {
        match &self.shared.token {
            None => Ok(None),
            Some(Token::Fixed(value)) => Ok(Some(value.clone())),
            Some(Token::File { path, read }) => {
                let mut read = read.lock().await;
                let fresh = read.as_ref().filter(|(at, _)| at.elapsed() < TOKEN_LIFE);
                if let Some((_, value)) = fresh {
                    return Ok(Some(value.clone()));
                }
                let failed = |why: String| Cause::Credentials(format!("failed to read token file {path:?}: {why}"));
                let text = tokio::fs::read_to_string(path).await.map_err(|error| failed(error.to_string()))?;
                let value = bearer(text.trim()).ok_or_else(|| failed("it holds no token".to_owned()))?;
                *read = Some((Instant::now(), value.clone()));
                Ok(Some(value))
            }
        }
    }
}

fn tls(
    place: &Place,
    trust: &Trust,
    server_name: Option<String>,
    certificate: Option<ClientCertificate>,
) -> Result<Tls, EndpointError> {
    let builder = trust.client().map_err(|error| EndpointError::Authorities(error.to_string()))?;
    let config = match certificate {
        Some(certificate) => builder.with_client_cert_resolver(certificate.resolver),
        None => builder.with_no_client_auth(),
    };
    let name = server_name.unwrap_or_else(|| match place {
        Place::Host { host, .. } => host.clone(),
        Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
    });
    let name = ServerName::try_from(name.clone()).map_err(|_| EndpointError::Name(name))?;
    Ok(Tls { name, config })
}

/// A header that cannot be seen in logs.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// A URL's place and path, and whether it is HTTPS.
pub(super) fn split(url: &str) -> Result<(Place, String, bool), EndpointError> {
    let unparsable = |why: &dyn std::fmt::Display| EndpointError::Url(why.to_string());
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| unparsable(&error))?;
    let encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(unparsable(&"the scheme is not https")),
    };
    let authority = uri.authority().ok_or_else(|| unparsable(&"no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(unparsable(&"no host, or a user"));
    }
    let port = authority.port_u16().unwrap_or(if encrypted { HTTPS_PORT } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok((Place::Host { host, port, authority: authority.as_str().to_owned() }, path, encrypted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_client_config_names_a_url_or_a_service() {
        let url = Endpoint::from_client_config(&json!({"url": "https://[::1]:8443/check?x=1"})).unwrap();
        assert_eq!((url.base().as_str(), url.path()), ("https://[::1]:8443", "/check?x=1"));
        let timed = url.clone().with_query("timeout=5s");
        assert_eq!(timed.path(), "/check?x=1&timeout=5s");
        assert_eq!(timed.key(), url.key());

        let service = json!({"service": {"namespace": "shop", "name": "hook", "path": "check"}});
        let service = Endpoint::from_client_config(&service).unwrap();
        assert_eq!((service.base().as_str(), service.path()), ("https://hook.shop.svc:443", "/check"));

        assert_eq!(Endpoint::from_client_config(&json!({})).unwrap_err(), EndpointError::Nowhere);
        for bad in ["ftp://x", "https://", "https://a b", "https://user@x/"] {
            assert!(Endpoint::from_client_config(&json!({"url": bad})).is_err(), "{bad}");
        }
        let broken = json!({"url": "https://x", "caBundle": "bm90aGluZw=="});
        assert!(matches!(Endpoint::from_client_config(&broken), Err(EndpointError::Authorities(_))));
    }

    #[test]
    fn endpoints_that_differ_in_trust_share_nothing() {
        let pem = |name: &str| pki::Authority::create(name).unwrap().cert_pem().as_bytes().to_vec();
        let of = |trust| Endpoint::url("https://x/", trust).unwrap();
        let keys = [of(Trust::System), of(Trust::Anybody), of(Trust::Bundle(pem("a"))), of(Trust::Bundle(pem("b")))];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| other.key() != one.key()));
        }
    }
}
