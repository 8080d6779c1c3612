//! port-forward: connections to a pod's ports, each a pair of streams for data and for an error.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::spdy::{self, Headers, Stream};
use crate::status::text;
use crate::upgrade::{Answer, Upgrade, negotiate, refusal};
use crate::websocket::{Channels, Framing, accept, tunnel};
use crate::{COPY_BUFFER_BYTES, Connection, STREAM_CREATION_TIMEOUT, TargetError};

const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNELED: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const CHANNELS_BASE64: &str = "v4.base64.channel.k8s.io";
/// Ports of one request over WebSocket channels; each has two channels, and a channel is one byte.
const PORTS_MAX: usize = 100;

type Connect = Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn Connection>, TargetError>> + Send + Sync>;

/// Answers a port-forward request. If it is an upgrade, the session runs in a task of its own and calls `connect` with
/// the port for each connection that the client forwards. `ports` are those of the CRI's `PortForwardRequest`; only
/// the protocol of plain WebSocket channels needs them, the others name the port with each stream.
pub fn serve_port_forward<B, C, F>(mut request: Request<B>, ports: Vec<u16>, connect: C) -> Answer
where
    B: Send + 'static,
    C: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Box<dyn Connection>, TargetError>> + Send + 'static,
{
    let websocket = [TUNNELED, CHANNELS, CHANNELS_BASE64];
    let (upgrade, answer) = match negotiate(request.headers(), &websocket, &[PORT_FORWARD], false) {
        Ok(agreed) => agreed,
        Err(refusal) => return refusal,
    };
    let by_channels = matches!(upgrade, Upgrade::WebSocket(CHANNELS | CHANNELS_BASE64));
    if by_channels && (ports.is_empty() || ports.len() > PORTS_MAX) {
        return refusal(http::StatusCode::BAD_REQUEST, "at least one port is required, and at most 100");
    }
    let connect: Connect = Arc::new(move |port| Box::pin(connect(port)));
    let upgraded = hyper::upgrade::on(&mut request);
    task::spawn("port forward", async move {
        let io = match upgraded.await {
            Ok(io) => TokioIo::new(io),
            Err(error) => {
                tracing::debug!(%error, "port forward was not upgraded");
                return;
            }
        };
        match upgrade {
            Upgrade::Spdy(_) => spdy_session(io, connect).await,
            Upgrade::WebSocket(TUNNELED) => spdy_session(tunnel(accept(io).await), connect).await,
            Upgrade::WebSocket(protocol) => {
                channel_session(io, protocol == CHANNELS_BASE64, &ports, &connect).await;
            }
        }
    });
    answer
}

async fn spdy_session(io: impl AsyncRead + AsyncWrite + Unpin, connect: Connect) {
    let accept =
        |headers: &Headers| matches!(headers.get("streamtype"), Some("error" | "data")) && port_of(headers).is_some();
    spdy::serve(io, accept, |streams| pairs(streams, connect)).await;
}

fn port_of(headers: &Headers) -> Option<u16> {
    headers.get("port")?.parse().ok().filter(|port| *port > 0)
}

/// Streams of a connection of which one is still missing.
struct Half {
    error: Option<Stream>,
    data: Option<Stream>,
    until: Instant,
}

/// Puts streams together by their request and forwards each pair. Ends with the connection.
async fn pairs(mut streams: mpsc::Receiver<Stream>, connect: Connect) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut forwards = FuturesUnordered::new();
    loop {
        let expiry = halves.values().map(|half| half.until).min();
        let expired = async {
            match expiry {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = forwards.next() => {}
            () = expired => {
                let now = Instant::now();
                for (request, mut half) in halves.extract_if(|_, half| half.until <= now) {
                    if let Some(mut error) = half.error.take() {
                        forwards.push(Box::pin(async move {
                            let message = format!("request={request} timed out waiting for streams");
                            tell(&mut error, &message).await;
                        }) as BoxFuture<'static, ()>);
                    }
                }
            }
            stream = streams.recv() => {
                let Some(stream) = stream else { return };
                let is_error = stream.headers().get("streamtype") == Some("error");
                let request = request_of(&stream, is_error);
                let until = Instant::now() + STREAM_CREATION_TIMEOUT;
                let half = halves.entry(request.clone()).or_insert(Half { error: None, data: None, until });
                // A second stream of a kind is dropped, which resets it.
                if is_error { half.error.get_or_insert(stream) } else { half.data.get_or_insert(stream) };
                if half.error.is_some()
                    && half.data.is_some()
                    && let Some(Half { error: Some(error), data: Some(data), .. }) = halves.remove(&request)
                {
                    forwards.push(Box::pin(forward(data, error, connect.clone())));
                }
            }
        }
    }
}

/// The request's ID; for clients that send none, what follows from their opening the error stream just before.
fn request_of(stream: &Stream, is_error: bool) -> String {
    match stream.headers().get("requestid") {
        Some(id) => id.to_owned(),
        None if is_error => stream.id().to_string(),
        None => stream.id().wrapping_sub(2).to_string(),
    }
}

async fn forward(data: Stream, mut error: Stream, connect: Connect) {
    let Some(port) = port_of(data.headers()) else { return };
    let result = async { transfer(data, connect(port).await?).await.map_err(TargetError::from) }.await;
    if let Err(problem) = result {
        let message = format!("error forwarding port {port} to pod: {}", text(problem.as_ref()));
        tracing::debug!(message, "port forward failed");
        tell(&mut error, &message).await;
    } else {
        // Fails if the client is gone.
        let _ = error.shutdown().await;
    }
}

async fn tell(error: &mut (impl AsyncWrite + Unpin), message: &str) {
    // Fails if the client is gone.
    let _ = error.write_all(message.as_bytes()).await;
    let _ = error.shutdown().await;
}

/// Copies both ways; each side's end is passed on, and both must end. A connection that either side breaks off is no
/// failure of forwarding: the client sees its stream end.
async fn transfer(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut target: Box<dyn Connection>,
) -> std::io::Result<()> {
    unless_broken_off(
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut target, COPY_BUFFER_BYTES, COPY_BUFFER_BYTES).await,
    )
}

/// The same where the client cannot end its side alone: once the target has ended, so has the connection.
async fn transfer_until_target_ends(
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    target: Box<dyn Connection>,
) -> std::io::Result<()> {
    let (mut from, mut to) = tokio::io::split(target);
    let sending = async {
        tokio::io::copy(&mut input, &mut to).await?;
        to.shutdown().await?;
        std::future::pending().await
    };
    let result = tokio::select! {
        received = tokio::io::copy(&mut from, &mut output) => received,
        failed = sending => failed,
    };
    unless_broken_off(result)
}

fn unless_broken_off<T>(result: std::io::Result<T>) -> std::io::Result<()> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    match result {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Each port has two channels, for data and for an error, which begin with the port's number in little-endian order.
async fn channel_session(io: impl AsyncRead + AsyncWrite + Unpin, base64: bool, ports: &[u16], connect: &Connect) {
    let mut channels = Channels::new(Framing { base64, close_signal: false });
    let mut forwards = Vec::new();
    for (channel, port) in (0u8..).step_by(2).zip(ports.iter().copied()) {
        let input = channels.input(channel);
        let (mut output, mut error) = (channels.output(channel), channels.output(channel + 1));
        forwards.push(async move {
            let opened = async {
                output.write_all(&port.to_le_bytes()).await?;
                error.write_all(&port.to_le_bytes()).await
            };
            if opened.await.is_err() {
                return;
            }
            let result = async {
                let target = connect(port).await?;
                transfer_until_target_ends(input, &mut output, target).await.map_err(TargetError::from)
            };
            if let Err(problem) = result.await {
                let message = format!("error forwarding port {port} to pod: {}", text(problem.as_ref()));
                tracing::debug!(message, "port forward failed");
                tell(&mut error, &message).await;
            }
        });
    }
    let session = async {
        futures::future::join_all(forwards).await;
    };
    channels.serve(accept(io).await, session).await;
}
