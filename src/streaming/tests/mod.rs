//! Whole sessions between hyper's server and clients of our own, over pipes in memory.

mod exec;
mod forward;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::upgrade::Answer;
use crate::{Process, TerminalSize};

/// A connection to a server that answers every request with `answer`.
fn connected(answer: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static) -> DuplexStream {
    let (client, server) = tokio::io::duplex(16 << 10);
    task::spawn("test server", async move {
        let service = hyper::service::service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        connection.with_upgrades().await.unwrap();
    });
    client
}

async fn websocket(io: DuplexStream, protocol: &str) -> WebSocketStream<DuplexStream> {
    let mut request = "ws://test/".into_client_request().unwrap();
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let (socket, answer) = tokio_tungstenite::client_async(request, io).await.unwrap();
    if !protocol.is_empty() {
        assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    }
    socket
}

async fn spdy(mut io: DuplexStream, protocol: &str) -> crate::spdy::client::Client<DuplexStream> {
    let request = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: spdy/3.1"), "{head}");
    assert!(head.contains(&format!("x-stream-protocol-version: {protocol}")), "{head}");
    crate::spdy::client::Client::new(io)
}

/// The process's end of a [`Process`].
struct Inside {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    resize: mpsc::Receiver<TerminalSize>,
    exit: tokio::sync::oneshot::Sender<i32>,
    /// The session has dropped the process.
    dropped: Arc<AtomicBool>,
}

struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn process() -> (Process, Inside) {
    let pipe = || tokio::io::duplex(1024);
    let ((stdin, stdin_inside), (stdout, stdout_inside), (stderr, stderr_inside)) = (pipe(), pipe(), pipe());
    let (resize, sizes) = mpsc::channel(4);
    let (exit, code) = tokio::sync::oneshot::channel();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(dropped.clone());
    let process = Process {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize: Some(resize),
        exit: Box::pin(async move {
            let _flag = flag;
            code.await.map_err(Into::into)
        }),
    };
    let inside =
        Inside { stdin: stdin_inside, stdout: stdout_inside, stderr: stderr_inside, resize: sizes, exit, dropped };
    (process, inside)
}

#[tokio::test]
async fn a_plain_request_is_refused() {
    let mut io = connected(|request| crate::serve_port_forward(request, vec![], |_| async { Err("no".into()) }));
    io.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("missing upgrade headers"), "{answer}");
}
