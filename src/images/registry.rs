//! One repository at one endpoint, over the distribution protocol: manifests and blobs, with whatever
//! authentication the endpoint asks for, retries, and downloads that go on where they broke off.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::timeout;

use crate::challenge::{Challenge, Credentials, basic, encoded, parse};
use crate::error::chain_text;
use crate::image::Auth;
use crate::manifest::{Descriptor, MEDIA_TYPES};
use crate::reference::Reference;
use crate::registries::{Endpoint, RegistriesConfig};
use crate::transport::{Transport, TransportError};

/// Attempts at a request, or at getting a blob any further, before the endpoint counts as failed. Mirrors have fewer:
/// there is somebody else to ask.
const ATTEMPTS_MAX: u32 = 5;
const MIRROR_ATTEMPTS_MAX: u32 = 2;
const BACK_OFF_MIN: Duration = Duration::from_millis(300);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// A download from which nothing came for so long is broken off and resumed.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A broken download that got this far counts as a first attempt again.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;
const REDIRECTS_MAX: u32 = 5;
const TOKEN_BYTES_MAX: usize = 1 << 20;
const AGENT: &str = concat!("cluster/", env!("CARGO_PKG_VERSION"));

/// Why an endpoint did not give what was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    NotFound,
    Unauthorized(String),
    Unavailable(String),
    Malformed(String),
}

pub(crate) struct Registry<'a> {
    pub transport: &'a Transport,
    pub config: &'a RegistriesConfig,
    pub endpoint: Endpoint,
    /// The registry that the reference names, whatever endpoint stands in for it.
    pub domain: String,
    /// The repository as this endpoint knows it.
    pub repository: String,
    credentials: Option<Credentials>,
    /// What was sent last and accepted.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(
        transport: &'a Transport,
        config: &'a RegistriesConfig,
        endpoint: Endpoint,
        reference: &Reference,
        auth: Option<&Auth>,
    ) -> Self {
        let given = if endpoint.is_origin { auth.and_then(Credentials::of) } else { None };
        let domain = endpoint.is_origin.then_some(reference.domain.as_str());
        let configured = || config.host(&endpoint.authority, domain)?.auth.as_ref().and_then(Credentials::of_host);
        Self {
            transport,
            config,
            domain: reference.domain.clone(),
            repository: endpoint.repository(&reference.path),
            credentials: given.or_else(configured),
            authorization: Mutex::new(None),
            endpoint,
        }
    }

    /// A manifest by tag or digest, whole.
    pub(crate) async fn manifest(&self, selector: &str, bytes_max: usize) -> Result<Bytes, Failure> {
        self.whole(&format!("manifests/{selector}"), Some(MEDIA_TYPES), bytes_max).await
    }

    /// A small blob, whole.
    pub(crate) async fn small_blob(&self, digest: &str, bytes_max: usize) -> Result<Bytes, Failure> {
        self.whole(&format!("blobs/{digest}"), None, bytes_max).await
    }

    async fn whole(&self, path: &str, accept: Option<&'static str>, bytes_max: usize) -> Result<Bytes, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let response = self.get(path, accept, 0).await?;
            match collect(response, bytes_max).await {
                Err(Failure::Unavailable(reason)) if attempt < self.attempts_max() => {
                    tracing::debug!(endpoint = self.endpoint.authority, path, reason, "answer broke off");
                    tokio::time::sleep(back_off(attempt)).await;
                }
                other => return other,
            }
        }
    }

    /// Streams a blob from `*offset` on to `sink`, moving `*offset`, through as many connections as it takes. Ends early
    /// and well when `sink` returns false.
    pub(crate) async fn blob<S, F>(&self, blob: &Descriptor, offset: &mut u64, sink: &mut S) -> Result<(), Failure>
    where
        S: FnMut(Bytes) -> F,
        F: Future<Output = bool>,
    {
        let path = format!("blobs/{}", blob.digest);
        let mut attempt = 0;
        loop {
            let began_at = *offset;
            let broken = match self.get(&path, None, began_at).await {
                Ok(response) => match stream(response, blob.size, offset, sink).await {
                    Ok(()) => return Ok(()),
                    Err(Failure::Unavailable(reason)) => reason,
                    Err(other) => return Err(other),
                },
                Err(failure) => return Err(failure),
            };
            attempt = if *offset - began_at >= PROGRESS_BYTES_MIN { 1 } else { attempt + 1 };
            if attempt >= self.attempts_max() {
                return Err(Failure::Unavailable(broken));
            }
            tracing::debug!(blob = blob.digest, offset = *offset, reason = broken, "download is resumed");
            tokio::time::sleep(back_off(attempt)).await;
        }
    }

    fn attempts_max(&self) -> u32 {
        if self.endpoint.is_origin { ATTEMPTS_MAX } else { MIRROR_ATTEMPTS_MAX }
    }

    /// Gets a path below the repository, retrying what may pass. The answer is 200, or 206 if `offset` is not 0.
    async fn get(&self, path: &str, accept: Option<&'static str>, offset: u64) -> Result<Response<Incoming>, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (reason, wait) = match self.get_once(path, accept, offset).await {
                Ok(response) => match response.status() {
                    StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                    StatusCode::NOT_FOUND => return Err(Failure::NotFound),
                    status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                        return Err(Failure::Unauthorized(reason(status, response).await));
                    }
                    status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                        let wait = retry_after(response.headers());
                        (reason(status, response).await, wait)
                    }
                    status => return Err(Failure::Malformed(reason(status, response).await)),
                },
                Err(Failure::Unavailable(reason)) => (reason, None),
                Err(other) => return Err(other),
            };
            if attempt >= self.attempts_max() {
                return Err(Failure::Unavailable(reason));
            }
            tracing::debug!(endpoint = self.endpoint.authority, path, reason, "request is sent again");
            tokio::time::sleep(wait.unwrap_or_else(|| back_off(attempt))).await;
        }
    }

    /// One request, with one more if the registry wants authentication, and redirects followed.
    async fn get_once(&self, path: &str, accept: Option<&str>, offset: u64) -> Result<Response<Incoming>, Failure> {
        let Endpoint { authority, prefix, .. } = &self.endpoint;
        let mut url = format!("{}://{authority}{prefix}/{}/{path}", self.endpoint.scheme(), self.repository);
        if !self.endpoint.is_origin {
            // As containerd does, so that one mirror can stand for several registries.
            url = format!("{url}?ns={}", encoded(&self.domain));
        }
        let uri: Uri = url.parse().map_err(|_| Failure::Malformed(format!("{url} is not a URL")))?;
        let response = self.follow(&uri, accept, offset).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = parse(headers.iter().filter_map(|value| value.to_str().ok()));
        let Some(authorization) = self.answer(challenge).await? else { return Ok(response) };
        *self.authorization.lock() = Some(authorization);
        self.follow(&uri, accept, offset).await
    }

    async fn follow(&self, uri: &Uri, accept: Option<&str>, offset: u64) -> Result<Response<Incoming>, Failure> {
        let mut at = uri.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = request(Method::GET, &at, Bytes::new());
            let headers = request.headers_mut();
            if let Some(accept) = accept.and_then(|accept| HeaderValue::from_str(accept).ok()) {
                headers.insert(ACCEPT, accept);
            }
            if offset > 0
                && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
            {
                headers.insert(RANGE, range);
            }
            // Credentials stay with the host (and the encryption) they were made for.
            if at.authority() == uri.authority()
                && at.scheme() == uri.scheme()
                && let Some(authorization) = self.authorization.lock().clone()
            {
                headers.insert(AUTHORIZATION, authorization);
            }
            let response = self.send(request).await?;
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            at = resolve(&at, location).ok_or_else(|| Failure::Malformed(format!("redirect to {location:?}")))?;
        }
        Err(Failure::Malformed(format!("more than {REDIRECTS_MAX} redirects")))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let domain = (self.endpoint.is_origin && authority == self.endpoint.authority).then_some(self.domain.as_str());
        let tls = self.config.host(&authority, domain).and_then(|host| host.tls.as_ref());
        self.transport.send(request, tls).await.map_err(|error| match error {
            TransportError::Url(_) | TransportError::TlsSettings(_) | TransportError::Certificate(_) => {
                Failure::Malformed(error.to_string())
            }
            _ => Failure::Unavailable(chain_text(&error)),
        })
    }

    /// What to send as `Authorization`, or `None` if there is no answer to the challenge.
    async fn answer(&self, challenge: Option<Challenge>) -> Result<Option<HeaderValue>, Failure> {
        let header = match (challenge, &self.credentials) {
            (None, _) | (Some(Challenge::Basic), None | Some(Credentials::Refresh(_))) => return Ok(None),
            (_, Some(Credentials::Token(token))) => format!("Bearer {token}"),
            (Some(Challenge::Basic), Some(Credentials::Basic(username, password))) => basic(username, password),
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                format!("Bearer {}", self.token(&realm, service.as_deref(), &scope).await?)
            }
        };
        let mut value = HeaderValue::from_str(&header)
            .map_err(|_| Failure::Unauthorized("the token cannot be sent in a header".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Asks the token service that the registry named.
    async fn token(&self, realm: &str, service: Option<&str>, scope: &str) -> Result<String, Failure> {
        let malformed = || Failure::Unauthorized(format!("token service {realm:?} is not a URL"));
        let bare: Uri = realm.parse().map_err(|_| malformed())?;
        if self.endpoint.tls && self.credentials.is_some() && bare.scheme_str() != Some("https") {
            return Err(Failure::Unauthorized(format!("credentials are not sent to {realm:?} without TLS")));
        }
        let mut query = format!("scope={}", encoded(scope));
        if let Some(service) = service {
            query = format!("service={}&{query}", encoded(service));
        }
        let request = match &self.credentials {
            Some(Credentials::Refresh(token)) => {
                let form =
                    format!("grant_type=refresh_token&client_id=cluster&refresh_token={}&{query}", encoded(token));
                let mut request = request(Method::POST, &bare, Bytes::from(form));
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                request.headers_mut().insert(CONTENT_TYPE, kind);
                request
            }
            credentials => {
                let join = if bare.query().is_some() { '&' } else { '?' };
                let uri: Uri = format!("{realm}{join}{query}").parse().map_err(|_| malformed())?;
                let mut request = request(Method::GET, &uri, Bytes::new());
                if let Some(Credentials::Basic(username, password)) = credentials
                    && let Ok(mut value) = HeaderValue::from_str(&basic(username, password))
                {
                    value.set_sensitive(true);
                    request.headers_mut().insert(AUTHORIZATION, value);
                }
                request
            }
        };
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Failure::Unavailable(format!("token service: {}", reason(status, response).await)));
        }
        if status != StatusCode::OK {
            return Err(Failure::Unauthorized(format!("token service: {}", reason(status, response).await)));
        }
        let body = collect(response, TOKEN_BYTES_MAX).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|error| Failure::Unauthorized(format!("token service: {error}")))?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() {
            return Err(Failure::Unauthorized("token service: the answer has no token".to_owned()));
        }
        Ok(token)
    }
}

/// Passes a response's body on. It may begin before `*offset`, if the server does not know ranges.
async fn stream<S, F>(response: Response<Incoming>, size: u64, offset: &mut u64, sink: &mut S) -> Result<(), Failure>
where
    S: FnMut(Bytes) -> F,
    F: Future<Output = bool>,
{
    let mut skip = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let begins = response.headers().get(http::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let begins = begins.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
            match begins {
                Some(begins) if begins <= *offset => *offset - begins,
                _ => return Err(Failure::Malformed("the answer has another range than was asked for".to_owned())),
            }
        }
        _ => *offset,
    };
    let mut body = response.into_body();
    loop {
        if *offset >= size {
            // What follows the announced size is of no interest; the digest decides.
            return Ok(());
        }
        let frame = match timeout(STALL_TIMEOUT, body.frame()).await {
            Err(_) => return Err(Failure::Unavailable(format!("nothing came for {STALL_TIMEOUT:?}"))),
            Ok(None) => {
                let reason = format!("the download ended after {offset} of {size} bytes", offset = *offset);
                return Err(Failure::Unavailable(reason));
            }
            Ok(Some(Err(error))) => return Err(Failure::Unavailable(chain_text(&error))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(mut data) = frame.into_data() else { continue };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
        let _ = data.split_to(skipped);
        skip -= skipped as u64;
        data.truncate(usize::try_from(size - *offset).unwrap_or(usize::MAX));
        if data.is_empty() {
            continue;
        }
        *offset += data.len() as u64;
        if !sink(data).await {
            return Ok(());
        }
    }
}

async fn collect(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, Failure> {
    let mut body = response.into_body();
    let mut whole = Vec::new();
    loop {
        match timeout(STALL_TIMEOUT, body.frame()).await {
            Err(_) => return Err(Failure::Unavailable(format!("nothing came for {STALL_TIMEOUT:?}"))),
            Ok(None) => return Ok(whole.into()),
            Ok(Some(Err(error))) => return Err(Failure::Unavailable(chain_text(&error))),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                if whole.len() + data.len() > bytes_max {
                    return Err(Failure::Malformed(format!("the answer has more than {bytes_max} bytes")));
                }
                whole.extend_from_slice(&data);
            }
        }
    }
}

/// Status and, where the body has one, the first error's message.
async fn reason(status: StatusCode, response: Response<Incoming>) -> String {
    const ERROR_BYTES_MAX: usize = 64 << 10;
    const MESSAGE_CHARS_MAX: usize = 300;
    let body = collect(response, ERROR_BYTES_MAX).await.unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = json.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&json);
    let message = error.get("message").or_else(|| error.get("details")).and_then(|message| message.as_str());
    match message {
        Some(message) => format!("{status}: {}", message.chars().take(MESSAGE_CHARS_MAX).collect::<String>()),
        None => status.to_string(),
    }
}

fn request(method: Method, uri: &Uri, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request
}

/// A redirect's target: whole, or a path on the same host.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let target: Uri = location.split('#').next()?.parse().ok()?;
    if target.authority().is_some() {
        return target.scheme().is_some().then_some(target);
    }
    let path = target.path_and_query().filter(|path| path.as_str().starts_with('/'))?.clone();
    Uri::builder().scheme(base.scheme()?.clone()).authority(base.authority()?.clone()).path_and_query(path).build().ok()
}

fn back_off(attempt: u32) -> Duration {
    BACK_OFF_MIN * 2u32.saturating_pow(attempt.saturating_sub(1).min(6))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}
