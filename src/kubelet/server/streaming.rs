//! Passes a request on to the container runtime's streaming server, and then the connection itself, byte for byte.

use std::time::Duration;

use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::routes::{Answer, Refusal};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `url` is what the runtime answered to Exec, Attach or PortForward: `http://127.0.0.1:port/exec/token`, or
/// `unix:///path/of/socket:/exec/token`.
pub async fn proxy(mut request: Request<Incoming>, url: &str) -> Result<Answer, Refusal> {
    let mut onward = Request::builder().method(request.method().clone());
    let (stream, path): (Box<dyn Duplex>, String) = match url.strip_prefix("unix://") {
        Some(rest) => {
            let (socket, path) = rest.split_once(':').ok_or_else(|| Refusal::internal("malformed streaming URL"))?;
            (Box::new(connected(UnixStream::connect(socket)).await?), path.to_owned())
        }
        None => {
            let uri: Uri = url.parse().map_err(Refusal::internal)?;
            let authority = uri.authority().ok_or_else(|| Refusal::internal("streaming URL without address"))?;
            let ip: std::net::IpAddr = match authority.host().trim_matches(['[', ']']) {
                "localhost" => std::net::Ipv4Addr::LOCALHOST.into(),
                host => host.parse().map_err(|_| Refusal::internal("streaming URL without an IP address"))?,
            };
            let port = authority.port_u16().unwrap_or(80);
            let stream = connected(TcpStream::connect((ip, port))).await?;
            let _ = stream.set_nodelay(true);
            onward = onward.header(header::HOST, authority.as_str());
            (Box::new(stream), uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string))
        }
    };
    onward = onward.uri(path);
    for (name, value) in request.headers().iter().filter(|(name, _)| *name != header::HOST) {
        onward = onward.header(name, value);
    }
    if onward.headers_ref().is_some_and(|headers| !headers.contains_key(header::HOST)) {
        onward = onward.header(header::HOST, "localhost");
    }
    let onward = onward.body(Empty::<bytes::Bytes>::new()).map_err(Refusal::internal)?;

    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Refusal::internal)?;
    task::spawn("stream-connection", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "streaming connection ended");
        }
    });
    let mut answer = sender.send_request(onward).await.map_err(Refusal::internal)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed()));
    }
    let theirs = hyper::upgrade::on(&mut answer);
    let ours = hyper::upgrade::on(&mut request);
    task::spawn("stream", async move {
        let (ours, theirs) = match tokio::try_join!(ours, theirs) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "connection not upgraded"),
        };
        let copied = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
        if let Err(error) = copied {
            tracing::debug!(%error, "stream ended");
        }
    });
    let mut switched = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in answer.headers() {
        switched = switched.header(name, value);
    }
    let body = Empty::new().map_err(|never| match never {}).boxed();
    switched.body(body).map_err(Refusal::internal)
}

trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

async fn connected<T>(connect: impl Future<Output = std::io::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(outcome) => outcome.map_err(Refusal::internal),
        Err(_) => Err(Refusal::internal("the container runtime's streaming server does not answer")),
    }
}
