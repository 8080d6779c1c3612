//! A registry in the test's own process.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::build::Built;
use crate::chain::sha256;

#[derive(Default)]
pub struct Content {
    /// `<repository>/manifests/<selector>` and `<repository>/blobs/<digest>`.
    pub paths: HashMap<String, Vec<u8>>,
    pub guard: Guard,
    /// Break each blob's download off after so many bytes; no ranges are served if `no_ranges`.
    pub cut_after_bytes: Option<usize>,
    pub no_ranges: bool,
    /// Answer so many requests with 503 first.
    pub failures: usize,
    /// Redirect blobs to this other registry.
    pub blobs_at: Option<SocketAddr>,
    /// Method-less log: path, range, authorization.
    pub log: Vec<(String, Option<String>, Option<String>)>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    #[default]
    Open,
    Basic,
    Token,
}

#[derive(Clone)]
pub struct TestRegistry {
    pub address: SocketAddr,
    pub content: Arc<Mutex<Content>>,
}

/// `user:pass`.
pub const BASIC: &str = "Basic dXNlcjpwYXNz";

impl TestRegistry {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Over TLS, if there is a configuration for it.
    pub async fn start_with(tls: Option<rustls::ServerConfig>) -> Self {
        let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), content: Arc::default() };
        let serving = registry.clone();
        task::spawn("test registry", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (registry, tls) = (serving.clone(), tls.clone());
                task::spawn("test connection", async move {
                    match tls {
                        None => registry.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                registry.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        registry
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = hyper::service::service_fn(|request| self.clone().answer(request));
        // Broken downloads are errors here.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    pub fn add(&self, repository: &str, tag: &str, image: &Built) {
        let mut content = self.content.lock();
        for (digest, blob) in &image.blobs {
            content.paths.insert(format!("{repository}/blobs/{digest}"), blob.clone());
        }
        for selector in [tag, &sha256(&image.manifest)] {
            content.paths.insert(format!("{repository}/manifests/{selector}"), image.manifest.clone());
        }
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub fn count(&self, part: &str) -> usize {
        self.content.lock().log.iter().filter(|(path, _, _)| path.contains(part)).count()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, std::io::Error>>, Infallible> {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (range, authorization) = (header("range"), header("authorization"));
        let mut content = self.content.lock();
        let path = request.uri().path().to_owned();
        content.log.push((request.uri().to_string(), range.clone(), authorization.clone()));
        let respond = |status: u16, headers: &[(&str, String)], body: Vec<u8>| {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, value);
            }
            let body = StreamBody::new(stream::iter([Ok(Frame::data(Bytes::from(body)))]));
            Ok(response.body(BodyExt::boxed(body)).unwrap())
        };
        if path == "/token" {
            let who = if authorization.as_deref() == Some(BASIC) { "user" } else { "anonymous" };
            let token = format!(r#"{{"token":"{who}-token","expires_in":60}}"#);
            return respond(200, &[], token.into_bytes());
        }
        if content.failures > 0 {
            content.failures -= 1;
            return respond(503, &[], Vec::new());
        }
        let challenge = match content.guard {
            Guard::Open => None,
            Guard::Basic => (authorization.as_deref() != Some(BASIC)).then(|| r#"Basic realm="r""#.to_owned()),
            Guard::Token => (authorization.as_deref() != Some("Bearer user-token")).then(|| {
                format!(r#"Bearer realm="http://{}/token",service="test",scope="repository:x:pull""#, self.address)
            }),
        };
        if let Some(challenge) = challenge {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#.to_vec();
            return respond(401, &[("www-authenticate", challenge)], body);
        }
        let is_blob = path.contains("/blobs/");
        if let Some(other) = content.blobs_at.filter(|_| is_blob) {
            return respond(307, &[("location", format!("http://{other}{path}"))], Vec::new());
        }
        let Some(bytes) = path.strip_prefix("/v2/").and_then(|path| content.paths.get(path)).cloned() else {
            return respond(404, &[], Vec::new());
        };
        let start = range
            .filter(|_| !content.no_ranges)
            .map_or(0, |range| range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap());
        let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut response = Response::builder().status(status).header("content-length", bytes.len() - start);
        if start > 0 {
            response = response.header("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()));
        }
        let rest = Bytes::from(bytes).slice(start..);
        let cut = content.cut_after_bytes.filter(|cut| is_blob && *cut < rest.len());
        if cut.is_some() && content.no_ranges {
            content.cut_after_bytes = None;
        }
        let first = stream::iter([Ok(Frame::data(rest.slice(..cut.unwrap_or(rest.len()))))]);
        let end = stream::once(async {
            // What was sent before gets its time to leave.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Err(std::io::Error::other("cut"))
        });
        let body = if cut.is_some() {
            BodyExt::boxed(StreamBody::new(first.chain(end)))
        } else {
            BodyExt::boxed(StreamBody::new(first))
        };
        Ok(response.body(body).unwrap())
    }
}
