//! The one way in which the API server calls other programs: admission webhooks, conversion, authentication,
//! authorisation, audit, and aggregated API servers.
//!
//! An [`Endpoint`] says where a program is, whom to believe that it is there, and how the API server shows itself; it
//! is made once, from a `clientConfig` or a kubeconfig file. [`Caller`] keeps connections to endpoints, so a call
//! costs a round trip and no handshake. Services are resolved when a connection is made, to a ready endpoint, with no
//! need for a node's packet filter on this machine; the name in the certificate stays `<service>.<namespace>.svc`.
//!
//! Bounds: kept clients, idle connections of each, calls under way, an answer's size. Limitation: no HTTP proxies.

mod connect;
mod credentials;
mod endpoint;
mod error;
mod kubeconfig;
mod resolve;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use connect::Connector;
pub use connect::{Stream, dial, secure};
pub use credentials::Credentials;
pub use endpoint::{ClientCertificate, Endpoint, EndpointError};
pub use error::{CallError, Cause};
pub use resolve::{PortName, Resolver};

use crate::cache::Cache;

/// Clients kept, each with the connections to one endpoint; beyond this the one that was not used longest goes.
const CLIENTS_MAX: usize = 512;
/// Idle connections to one endpoint, and how long they stay (upstream: client-go's 25 and Go's 90 s).
const IDLE_PER_CLIENT_MAX: usize = 25;
const IDLE_MAX: Duration = Duration::from_secs(90);
/// Calls under way at the same time, to all endpoints together; others wait within their own time.
const CALLS_MAX: usize = 1024;
/// An answer may hold a whole object, escaped, in base64.
const ANSWER_BYTES_MAX: usize = 12 * 1024 * 1024;

/// A request's body as it goes out.
pub type Outgoing = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Calls endpoints and keeps connections to them. One for the whole server.
pub struct Caller {
    resolver: Resolver,
    clients: Mutex<Clients>,
    places: Semaphore,
    agent: HeaderValue,
}

type HttpClient = Client<Connector, Outgoing>;

#[derive(Default)]
struct Clients {
    by_key: HashMap<[u8; 32], (HttpClient, u64)>,
    uses: u64,
}

impl Caller {
    /// `version` is what the server calls itself, such as `v1.36.2`.
    pub fn new(cache: Arc<Cache>, version: &str) -> Caller {
        let agent = HeaderValue::from_str(&format!("kube-apiserver-admission/{version}"));
        Caller {
            resolver: Resolver::new(cache),
            clients: Mutex::default(),
            places: Semaphore::new(CALLS_MAX),
            agent: agent.unwrap_or(HeaderValue::from_static("kube-apiserver-admission")),
        }
    }

    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Sends JSON and takes the answer of a success whole; any other status is [`Cause::Status`].
    pub async fn post(&self, endpoint: &Endpoint, body: Bytes, limit: Duration) -> Result<Bytes, CallError> {
        self.whole(endpoint, Method::POST, endpoint.path(), body, limit).await
    }

    /// Asks for a path at the endpoint's host, with the endpoint's own path left out of it.
    pub async fn get(&self, endpoint: &Endpoint, path: &str, limit: Duration) -> Result<Bytes, CallError> {
        self.whole(endpoint, Method::GET, path, Bytes::new(), limit).await
    }

    async fn whole(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let failed = |cause| CallError::new(&method, endpoint, path, cause);
        let json = HeaderValue::from_static("application/json");
        let mut request = Request::builder().method(method.clone()).uri(path).header(ACCEPT, &json);
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, &json);
        }
        let request = request.body(body).map_err(|error| failed(Cause::Request(error.to_string())))?;
        let (answer, body) = self.exchange(endpoint, request, limit).await?.into_parts();
        if !answer.status.is_success() {
            return Err(failed(Cause::Status { code: answer.status.as_u16(), body }));
        }
        Ok(body)
    }

    /// Sends a request, whose URI is a path, and takes the answer whole, whatever its status.
    pub async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: Request<Bytes>,
        limit: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let (method, path) = (request.method().clone(), request.uri().to_string());
        let failed = |cause| CallError::new(&method, endpoint, &path, cause);
        let request = request.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync());
        let exchange = async {
            let (parts, body) = self.send(endpoint, request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| failed(error::of_body(error.as_ref(), ANSWER_BYTES_MAX)))?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| failed(Cause::Timeout))?
    }

    /// Sends a request, whose URI is a path, over a kept connection or a new one. There is no limit of time, and none
    /// on the answer's size: both are the caller's.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, CallError> {
        let method = request.method().clone();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let failed = |cause| CallError::new(&method, endpoint, &path, cause);
        *request.uri_mut() = endpoint.uri(&path).map_err(&failed)?;
        if let Some(authorization) = endpoint.authorization().await.map_err(&failed)? {
            request.headers_mut().insert(http::header::AUTHORIZATION, authorization);
        }
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        let client = self.client(endpoint).map_err(&failed)?;
        let _place = self.places.acquire().await.map_err(|_| failed(Cause::Request("closed".to_owned())))?;
        client.request(request).await.map_err(|error| failed(error::of_client(&error)))
    }

    /// A connection of its own: for what is upgraded or lasts.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Stream, CallError> {
        let failed = |cause| CallError::new(&Method::CONNECT, endpoint, "", cause);
        let connector = endpoint.connector(&self.resolver, false).map_err(&failed)?;
        connector.open().await.map_err(failed)
    }

    fn client(&self, endpoint: &Endpoint) -> Result<HttpClient, Cause> {
        let mut clients = self.clients.lock();
        clients.uses += 1;
        let now = clients.uses;
        if let Some((client, used)) = clients.by_key.get_mut(endpoint.key()) {
            *used = now;
            return Ok(client.clone());
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_CLIENT_MAX)
            .pool_timer(TokioTimer::new())
            .build(endpoint.connector(&self.resolver, true)?);
        if clients.by_key.len() >= CLIENTS_MAX {
            let oldest = clients.by_key.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            oldest.and_then(|key| clients.by_key.remove(&key));
        }
        clients.by_key.insert(*endpoint.key(), (client.clone(), now));
        Ok(client)
    }
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
