//! Connections: TCP to the first address that answers, TLS where the endpoint is HTTPS.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::Place;
use super::error::{self, Cause};
use super::resolve::{PortName, Resolver};

/// One address is given so long; the call's own limit holds for all of it.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// The same for a handshake (upstream: 10 s).
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Makes connections to one endpoint.
#[derive(Clone)]
pub struct Connector {
    place: Arc<Place>,
    tls: Option<(ServerName<'static>, TlsConnector)>,
    resolver: Resolver,
}

/// Bytes to and from an endpoint.
pub enum Stream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl Connector {
    pub(super) fn new(place: Place, tls: Option<(ServerName<'static>, ClientConfig)>, resolver: Resolver) -> Connector {
        let tls = tls.map(|(name, config)| (name, TlsConnector::from(Arc::new(config))));
        Connector { place: Arc::new(place), tls, resolver }
    }

    /// A new connection, ready for HTTP.
    pub async fn open(&self) -> Result<Stream, Cause> {
        let addresses = match self.place.as_ref() {
            Place::Service { namespace, name, port } => {
                self.resolver.service(namespace, name, PortName::Number(*port)).await?
            }
            Place::Host { host, port, .. } => {
                let addresses = self.resolver.host(host).await?;
                addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect()
            }
        };
        let mut failed = Cause::Request("no address".to_owned());
        for address in addresses {
            match dial(address).await {
                Ok(stream) => {
                    return Ok(match &self.tls {
                        Some((name, tls)) => Stream::Secured(Box::new(secure(tls, name.clone(), stream).await?)),
                        None => Stream::Plain(stream),
                    });
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// TCP, within ten seconds.
pub async fn dial(address: SocketAddr) -> Result<TcpStream, Cause> {
    let connected = tokio::time::timeout(DIAL_MAX, TcpStream::connect(address)).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    connected
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|error| error::of_dial(address, &error))
}

/// TLS over it, within ten seconds.
pub async fn secure(
    tls: &TlsConnector,
    name: ServerName<'static>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Cause> {
    match tokio::time::timeout(HANDSHAKE_MAX, tls.connect(name, stream)).await {
        Ok(secured) => secured.map_err(|error| error::of_handshake(&error)),
        Err(_) => Err(Cause::Tls("net/http: TLS handshake timeout".to_owned())),
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.open().await.map(TokioIo::new) })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self {
            Stream::Secured(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
}
