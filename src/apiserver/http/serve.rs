//! Connections: TLS, HTTP/1.1 and HTTP/2 by ALPN, upgrades, an orderly end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rand::RngExt;
use rustls::{RootCertStore, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use task::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

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
/// Headers of a request together, and the request line: more is answered with 431 or 414. HTTP/1.1 has at most 100.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Streams that the client reset and that were not looked at yet: one more ends the connection (CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 20;
/// The same for streams that were reset here for what the client did.
const RESETS_LOCAL_MAX: usize = 1024;
/// Peers that say nothing for so long are asked by the kernel whether they are there (upstream's), so that HTTP/1.1
/// watches of dead ones end.
const KEEPALIVE: Duration = Duration::from_secs(180);
/// Quiet HTTP/2 connections are pinged, so that dead peers are noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Stands with the answer to somebody who is not known. They get no second request over one HTTP/2 connection, which
/// is the protocol that is easily abused (CVE-2023-44487; upstream: `UnauthenticatedHTTP2DOSMitigation`).
#[derive(Clone, Copy, Debug)]
pub struct Stranger;

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
    let (connections, draining) = (TaskTracker::new(), Shutdown::new());
    let places = Arc::new(Semaphore::new(server.limits().connections_max));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
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
        let (server, draining) = (server.clone(), draining.clone());
        task::spawn(
            "api-connection",
            connections.track_future(async move {
                connection(server, stream, remote.ip(), draining).await;
                drop(place);
            }),
        );
    }
    drop(listener);
    draining.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
        tracing::debug!("connections with open watches or streams are cut");
    }
}

async fn connection(server: ApiServer, stream: TcpStream, remote: IpAddr, draining: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "SO_KEEPALIVE");
    }
    let tls = server.tls();
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, tls.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake");
            server.metrics().handshake_errors.inc();
            return;
        }
        Err(_) => {
            server.metrics().handshake_errors.inc();
            return;
        }
    };
    let peer = tls.certificates.peer(stream.get_ref().1.peer_certificates());
    let limits = *server.limits();
    let goes_away = Arc::new(Notify::new());
    let leaves = goes_away.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        let multiplexed = request.version() == Version::HTTP_2;
        // Clients of a server that others stand beside come to all of them in time.
        let chosen = multiplexed && limits.goaway_chance > 0.0 && rand::rng().random_bool(limits.goaway_chance);
        let leaves = leaves.clone();
        async move {
            let response = pipeline::handle(server, peer, remote, request).await;
            if chosen || (multiplexed && response.extensions().get::<Stranger>().is_some()) {
                leaves.notify_one();
            }
            Ok::<_, std::convert::Infallible>(response)
        }
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
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_LOCAL_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = draining.cancelled() => {}, () = goes_away.notified() => {} } } => {
            // What is under way ends, nothing new begins (HTTP/2: GOAWAY).
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
