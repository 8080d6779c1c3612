//! The API server on another machine: HTTPS to one of the servers, the next one when it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::{Answer, Call, Encoded, EventKind, Failure, Reason, Verb, WatchEvent, WatchResult};
use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use pki::Trust;
use rustls::pki_types::pem::PemObject;
use serde_json::value::RawValue;

use crate::backend::Backend;

mod connect;
mod path;

use connect::Connector;

/// Longest answer that is read into memory.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest single event of a watch.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A call that is no watch ends after this; upstream's servers give up after 60 s themselves.
const CALL_TIMEOUT: Duration = Duration::from_secs(70);
/// Silence after which a connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the servers and as whom.
#[derive(Clone)]
pub struct RemoteConfig {
    /// `https://host:port` each; the first that answers is used.
    pub servers: Vec<String>,
    /// The cluster's CA certificates.
    pub ca_pem: Vec<u8>,
    /// The client certificate, asked at every handshake so that a renewed one is used from then on.
    pub certificate: Option<Arc<dyn rustls::client::ResolvesClientCert>>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Names the component in `User-Agent`.
    pub user_agent: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("no server address is given; name one with --server https://HOST:6443")]
    NoServers,
    #[error("{0:?} is not a server address: it should look like https://HOST:6443")]
    BadAddress(String),
    #[error("the CA bundle holds no usable certificate")]
    BadCa,
    #[error("TLS is set up wrongly")]
    Tls(#[from] pki::Error),
    #[error("cannot reach {url}: {why}")]
    Unreachable { url: String, why: String },
    #[error("{url} answered {code}")]
    Refused { url: String, code: u16 },
}

/// A [`Backend`] over HTTPS.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    http: legacy::Client<Connector, Full<Bytes>>,
    servers: Vec<String>,
    current: AtomicUsize,
    authorization: Option<header::HeaderValue>,
    user_agent: header::HeaderValue,
}

impl Remote {
    /// Needs no server to be up: connections are made when calls need them.
    pub fn new(config: RemoteConfig) -> Result<Remote, RemoteError> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(&config.ca_pem) {
            let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
            added.ok_or(RemoteError::BadCa)?;
        }
        if roots.is_empty() {
            return Err(RemoteError::BadCa);
        }
        let builder = Trust::Roots(Arc::new(roots)).client()?;
        let tls = match config.certificate {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        let servers = checked_servers(&config.servers)?;
        let header = |text: String| {
            header::HeaderValue::try_from(text).map_err(|_| RemoteError::BadAddress("the token".to_owned()))
        };
        Ok(Remote {
            inner: Arc::new(Inner {
                http: http_client(tls),
                servers,
                current: AtomicUsize::new(0),
                authorization: config.token.map(|token| header(format!("Bearer {token}"))).transpose()?,
                user_agent: header(config.user_agent)?,
            }),
        })
    }

    /// Sends a request to a path of whichever server answers, with this client's credentials.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let inner = &self.inner;
        let mut last = None;
        for _ in 0..inner.servers.len() {
            let at = inner.current.load(Ordering::Relaxed) % inner.servers.len();
            let server = inner.servers.get(at).map(String::as_str).unwrap_or_default();
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = format!("{server}{path}").parse().map_err(Failure::internal)?;
            let headers = request.headers_mut();
            headers.insert(header::USER_AGENT, inner.user_agent.clone());
            headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
            if let Some(authorization) = &inner.authorization {
                headers.insert(header::AUTHORIZATION, authorization.clone());
            }
            if let Some(content_type) = content_type {
                headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
            }
            match inner.http.request(request).await {
                Ok(response) => return Ok(response),
                // Only a connection that was never made is certain not to have carried the request.
                Err(error) if error.is_connect() => {
                    last = Some(unreachable(server, &error));
                    let next = (at + 1) % inner.servers.len();
                    let _ = inner.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
                }
                Err(error) => return Err(unreachable(server, &error)),
            }
        }
        Err(last.unwrap_or_else(|| Failure::internal("no server is configured")))
    }

    async fn send(self, call: Call) -> Result<Answer, Failure> {
        let (method, content_type) = method_of(&call);
        let body = match &call.body {
            Some(body) => serde_json::to_vec(body).map_err(Failure::internal)?.into(),
            None => Bytes::new(),
        };
        let content_type = (!body.is_empty()).then_some(content_type);
        let exchange = async {
            let response = self.request(method, &path::of(&call), content_type, body).await?;
            let code = response.status();
            let warnings = response
                .headers()
                .get_all(header::WARNING)
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| Failure::new(Reason::ServiceUnavailable, format!("answer broke off: {error}")))?
                .to_bytes();
            if code.is_success() {
                Ok(Answer { code: code.as_u16(), body, warnings })
            } else {
                Err(Failure::from_response(code.as_u16(), &body))
            }
        };
        tokio::time::timeout(CALL_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(Failure::new(Reason::Timeout, "the server did not answer in time")))
    }

    async fn open(self, call: Call) -> Result<Response<Incoming>, Failure> {
        let response =
            tokio::time::timeout(CALL_TIMEOUT, self.request(Method::GET, &path::of(&call), None, Bytes::new()))
                .await
                .unwrap_or_else(|_| Err(Failure::new(Reason::Timeout, "the server did not answer in time")))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), EVENT_BYTES_MAX).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(Failure::from_response(code, &body))
    }
}

impl Backend for Remote {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
        Box::pin(self.clone().send(call))
    }

    fn watch(&self, call: Call) -> BoxStream<'static, WatchResult> {
        let opened = self.clone().open(Call { verb: Verb::Watch, ..call });
        futures::stream::once(opened).map_ok(|response| events(response.into_body())).try_flatten().boxed()
    }
}

/// Splits a watch's body into its events: one JSON object a line.
fn events(body: Incoming) -> BoxStream<'static, WatchResult> {
    let state = (body.into_data_stream(), BytesMut::new());
    futures::stream::try_unfold(state, |(mut data, mut buffer)| async move {
        let mut searched = 0;
        loop {
            if let Some(at) = buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let line = buffer.split_to(searched + at).freeze();
                buffer.advance(1);
                searched = 0;
                if line.is_empty() {
                    continue;
                }
                return Ok(Some((event(&line)?, (data, buffer))));
            }
            searched = buffer.len();
            if buffer.len() > EVENT_BYTES_MAX {
                return Err(Failure::internal("an event of a watch is too large"));
            }
            match data.next().await {
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                Some(Err(error)) => {
                    return Err(Failure::new(Reason::ServiceUnavailable, format!("watch broke off: {error}")));
                }
                None => return Ok(None),
            }
        }
    })
    .boxed()
}

fn event(line: &Bytes) -> WatchResult {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let parsed: Line<'_> = serde_json::from_slice(line).map_err(Failure::internal)?;
    let kind = match parsed.kind {
        "ADDED" => EventKind::Added,
        "MODIFIED" => EventKind::Modified,
        "DELETED" => EventKind::Deleted,
        "BOOKMARK" => EventKind::Bookmark,
        "ERROR" => return Err(Failure::from_response(500, parsed.object.get().as_bytes())),
        other => return Err(Failure::internal(format!("unknown event {other:?} in a watch"))),
    };
    Ok(WatchEvent { kind, object: Encoded::whole(line.slice_ref(parsed.object.get().as_bytes())) })
}

fn method_of(call: &Call) -> (Method, &'static str) {
    const JSON: &str = "application/json";
    match call.verb {
        Verb::Get | Verb::List | Verb::Watch => (Method::GET, JSON),
        Verb::Create => (Method::POST, JSON),
        Verb::Update => (Method::PUT, JSON),
        Verb::Patch => (Method::PATCH, call.options.patch.map_or(JSON, api::PatchKind::media_type)),
        Verb::Delete | Verb::DeleteCollection => (Method::DELETE, JSON),
        Verb::Options => (Method::OPTIONS, JSON),
    }
}

fn checked_servers(servers: &[String]) -> Result<Vec<String>, RemoteError> {
    if servers.is_empty() {
        return Err(RemoteError::NoServers);
    }
    servers
        .iter()
        .map(|server| {
            let uri: Uri = server.parse().map_err(|_| RemoteError::BadAddress(server.clone()))?;
            if uri.scheme_str() != Some("https") || uri.host().is_none() {
                return Err(RemoteError::BadAddress(server.clone()));
            }
            Ok(server.trim_end_matches('/').to_owned())
        })
        .collect()
}

fn http_client(tls: rustls::ClientConfig) -> legacy::Client<Connector, Full<Bytes>> {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .build(Connector::new(tls))
}

/// The innermost cause says what a person can act on: refused, timed out, wrong certificate.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn unreachable(server: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(Reason::ServiceUnavailable, format!("cannot reach {server}: {}", innermost(error)))
}

/// Gets a path of a server that is not trusted yet: its CA bundle, which the caller then checks against the hash in the
/// token. Nothing secret may be sent this way.
pub async fn fetch_unverified(server: &str, path: &str) -> Result<Bytes, RemoteError> {
    const BYTES_MAX: usize = 1024 * 1024;
    let server = checked_servers(&[server.to_owned()])?.concat();
    let mut tls = Trust::Anybody.client()?.with_no_client_auth();
    tls.resumption = rustls::client::Resumption::disabled();
    let url = format!("{server}{path}");
    let uri: Uri = url.parse().map_err(|_| RemoteError::BadAddress(server))?;
    let failed = |why: String| RemoteError::Unreachable { url: url.clone(), why };
    let exchange = async {
        let response = http_client(tls).get(uri).await.map_err(|error| failed(innermost(&error)))?;
        if !response.status().is_success() {
            return Err(RemoteError::Refused { url: url.clone(), code: response.status().as_u16() });
        }
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|error| failed(error.to_string()))?.to_bytes())
    };
    match tokio::time::timeout(Duration::from_secs(15), exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(failed("no answer within 15 s".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_watch() {
        let line = Bytes::from_static(br#"{"type":"ADDED","object":{"kind":"Pod"}}"#);
        let parsed = event(&line).unwrap();
        assert_eq!((parsed.kind, &parsed.object.json[..]), (EventKind::Added, &br#"{"kind":"Pod"}"#[..]));
        let gone = Bytes::from_static(
            br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
        );
        assert!(event(&gone).unwrap_err().is_expired());
        assert!(event(&Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn server_addresses_are_checked() {
        assert_eq!(checked_servers(&["https://a:6443/".into()]).unwrap(), ["https://a:6443"]);
        for bad in ["a:6443", "http://a", "https://", ""] {
            assert!(checked_servers(&[bad.into()]).is_err(), "{bad}");
        }
        assert!(matches!(checked_servers(&[]), Err(RemoteError::NoServers)));
    }
}
