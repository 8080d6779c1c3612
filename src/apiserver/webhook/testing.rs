//! A program to call, for tests: HTTPS on loopback, with an authority of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pki::{Authority, Live, Profile};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Ends when it is dropped.
pub struct Program {
    pub authority: Authority,
    pub port: u16,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Option<()>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Program {
    /// The certificate is for 127.0.0.1 and for `name`; every request gets what `answer` makes of it.
    pub async fn start<F, A>(name: &str, answer: F) -> Program
    where
        F: Fn(Request<Bytes>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let authority = Authority::create("program").unwrap();
        let profile = Profile::server("program", vec![name.to_owned()], vec![[127, 0, 0, 1].into()]);
        let live = Live::new(&authority.issue(&profile).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(live));
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = task::spawn("test-program", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer, counted) = (acceptor.clone(), answer.clone(), counted.clone());
                task::spawn("test-connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = answer.clone();
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            Ok::<_, hyper::Error>(answer(Request::from_parts(parts, body)).await)
                        }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Program { authority, port, connections, task }
    }

    /// A `WebhookClientConfig` with a URL.
    pub fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle()})
    }

    pub fn bundle(&self) -> String {
        STANDARD.encode(self.authority.cert_pem())
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub fn answer(code: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(code).header("content-type", "application/json").body(Full::new(body.into())).unwrap()
}
