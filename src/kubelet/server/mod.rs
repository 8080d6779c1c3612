//! The node's HTTPS API on port 10250: what the API server asks of a kubelet.
//!
//! Everybody needs a client certificate of the cluster's authority, and to be the API server or an administrator; there
//! is no anonymous access and no delegated authorisation. Requests to upgrade (exec, attach, port-forward) are passed on to the
//! container runtime's streaming server byte for byte.

mod identity;
mod metrics;
mod routes;
mod stats;
mod streaming;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::WebPkiClientVerifier;
use task::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::pods::{Context, Pods};
use crate::{Config, Error};

const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The socket is open and TLS is set up, so that nothing can fail later.
pub struct Listener {
    socket: TcpListener,
    tls: TlsAcceptor,
}

impl Listener {
    pub async fn bind(config: &Config) -> Result<Listener, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // Who comes without a certificate gets to hear 401 rather than a broken handshake.
        let verifier = WebPkiClientVerifier::builder_with_provider(config.client_ca.clone(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|source| Error::Tls { source })?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::TlsVersion { source })?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(config.serving_cert.clone());
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listen_failed = |source| Error::Listen { address: config.listen, source };
        let socket = TcpListener::bind(config.listen).await.map_err(listen_failed)?;
        Ok(Listener { socket, tls: TlsAcceptor::from(Arc::new(tls)) })
    }

    pub async fn serve(self, context: Arc<Context>, pods: Arc<Pods>, shutdown: Shutdown) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: a pause lets some come back.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, context, pods) = (self.tls.clone(), context.clone(), pods.clone());
            let shutdown = shutdown.clone();
            task::spawn("kubelet-connection", async move {
                let _place = place;
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = connection(stream, tls, context, pods) => {}
                }
            });
        }
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, context: Arc<Context>, pods: Arc<Pods>) {
    // Interactive streams send little at a time.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let identity = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(identity::of);
    let identity = Arc::new(identity);
    let service = hyper::service::service_fn(move |request| {
        let (context, pods, identity) = (context.clone(), pods.clone(), identity.clone());
        async move { routes::answer(&context, &pods, identity.as_ref().as_ref(), request).await }
    });
    let served = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "connection ended");
    }
}
