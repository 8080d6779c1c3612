//! Connections: TLS, HTTP/1.1 and HTTP/2 by ALPN, upgrades, an orderly end.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::{RootCertStore, ServerConfig};
use task::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::authn::{self, AnyClientCertificate, CertificateAuthenticator};
use crate::config::{Config, Error};
use crate::pipeline;
use crate::server::ApiServer;

/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Requests in progress may end before connections are closed at shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Pause after `accept` failed, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requests at the same time on one HTTP/2 connection (upstream: 250; a process with many watches needs more).
const STREAMS_MAX: u32 = 1000;
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Quiet HTTP/2 connections are pinged, so that dead peers are noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// TLS for the server's port.
pub struct Tls {
    acceptor: TlsAcceptor,
    certificates: CertificateAuthenticator,
}

impl Tls {
    pub fn new(config: &Config) -> Result<Tls, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let options = &config.authentication;
        let authorities = match &options.client_ca_file {
            Some(path) => authn::authorities(path, config.client_authorities.as_ref().clone())?,
            None => config.client_authorities.clone(),
        };
        let front_proxy = match &options.request_header {
            Some(proxy) if proxy.client_ca_file.as_os_str().is_empty() => {
                return Err(Error::Flags("requestheader flags need requestheader-client-ca-file"));
            }
            Some(proxy) if proxy.username_headers.is_empty() => {
                return Err(Error::Flags("requestheader flags need requestheader-username-headers"));
            }
            Some(proxy) => {
                let authorities = authn::authorities(&proxy.client_ca_file, RootCertStore::empty())?;
                Some((authorities, proxy.allowed_names.clone()))
            }
            None => None,
        };
        let verifier = Arc::new(AnyClientCertificate::new(authorities.clone())?);
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(config.serving_certificate.clone());
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            certificates: CertificateAuthenticator::new(authorities, front_proxy)?,
        })
    }
}

/// Takes connections until `shutdown`, then ends those that stand.
pub async fn serve(server: ApiServer, listener: TcpListener, shutdown: Shutdown) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(server.limits().connections_max));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("too many connections; one is refused");
            continue;
        };
        let (server, watcher) = (server.clone(), graceful.watcher());
        task::spawn("api-connection", async move {
            connection(server, stream, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections with open watches or streams are cut");
    }
}

async fn connection(server: ApiServer, stream: TcpStream, watcher: hyper_util::server::graceful::Watcher) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let tls = server.tls();
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, tls.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake");
            return;
        }
        Err(_) => return,
    };
    let peer = tls.certificates.peer(stream.get_ref().1.peer_certificates());
    let limits = *server.limits();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(pipeline::handle(server, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_max)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection");
    }
}
