//! exec and attach: a process's streams on one connection.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::OptionFuture;
use http::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::spdy::{self, Stream};
use crate::upgrade::{Answer, Upgrade, negotiate};
use crate::websocket::{Channels, Framing, accept};
use crate::{
    BoxedRead, BoxedWrite, COPY_BUFFER_BYTES, Process, STREAM_CREATION_TIMEOUT, StreamOptions, TargetError,
    TerminalSize, status,
};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const V1_WEBSOCKET: &str = "channel.k8s.io";
const V1_WEBSOCKET_BASE64: &str = "base64.channel.k8s.io";
const WEBSOCKET: [&str; 5] = [V5, V4, V4_BASE64, V1_WEBSOCKET, V1_WEBSOCKET_BASE64];
const SPDY: [&str; 3] = [V4, V3, V2];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// The longest unfinished text on the resize stream.
const RESIZE_BYTES_MAX: usize = 4096;
/// How long the last status may wait for a client that does not read.
const STATUS_TIMEOUT: Duration = Duration::from_secs(30);

/// The client's ends of a session.
struct Client {
    stdin: Option<BoxedRead>,
    stdout: Option<BoxedWrite>,
    stderr: Option<BoxedWrite>,
    resize: Option<BoxedRead>,
    error: BoxedWrite,
    /// The status is JSON.
    json: bool,
    /// For messages: what is being done to the container.
    doing: &'static str,
}

/// Answers an exec request. If it is an upgrade, `start` is awaited once the client has opened its streams, and the
/// session runs in a task of its own until the process has ended or the client is gone.
pub fn serve_exec<B, F>(request: Request<B>, options: StreamOptions, start: F) -> Answer
where
    B: Send + 'static,
    F: Future<Output = Result<Process, TargetError>> + Send + 'static,
{
    serve(request, options, "executing command in", start)
}

/// As [`serve_exec`], for attach: `start` connects to the streams of a container that runs.
pub fn serve_attach<B, F>(request: Request<B>, options: StreamOptions, start: F) -> Answer
where
    B: Send + 'static,
    F: Future<Output = Result<Process, TargetError>> + Send + 'static,
{
    serve(request, options, "attaching to", start)
}

fn serve<B, F>(mut request: Request<B>, options: StreamOptions, doing: &'static str, start: F) -> Answer
where
    B: Send + 'static,
    F: Future<Output = Result<Process, TargetError>> + Send + 'static,
{
    let (upgrade, answer) = match negotiate(request.headers(), &WEBSOCKET, &SPDY, true) {
        Ok(agreed) => agreed,
        Err(refusal) => return refusal,
    };
    let upgraded = hyper::upgrade::on(&mut request);
    task::spawn("remote command", async move {
        match upgraded.await {
            Ok(io) => session(TokioIo::new(io), upgrade, options, doing, start).await,
            Err(error) => tracing::debug!(%error, "remote command was not upgraded"),
        }
    });
    answer
}

async fn session<IO, F>(io: IO, upgrade: Upgrade, options: StreamOptions, doing: &'static str, start: F)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = Result<Process, TargetError>> + Send,
{
    match upgrade {
        Upgrade::WebSocket(protocol) => {
            let framing =
                Framing { base64: matches!(protocol, V4_BASE64 | V1_WEBSOCKET_BASE64), close_signal: protocol == V5 };
            let mut channels = Channels::new(framing);
            let output = |wanted: bool, channel| wanted.then(|| Box::new(channels.output(channel)) as BoxedWrite);
            let (stdout, stderr) = (output(options.stdout, STDOUT), output(options.stderr, STDERR));
            let error: BoxedWrite = Box::new(channels.output(ERROR));
            let mut input = |wanted: bool, channel| wanted.then(|| Box::new(channels.input(channel)) as BoxedRead);
            let (stdin, resize) = (input(options.stdin, STDIN), input(options.tty, RESIZE));
            let json = matches!(protocol, V5 | V4 | V4_BASE64);
            let client = Client { stdin, stdout, stderr, resize, error, json, doing };
            let lowest = match options {
                StreamOptions { stdout: true, .. } => STDOUT,
                StreamOptions { stderr: true, .. } => STDERR,
                _ => ERROR,
            };
            channels.announce(lowest).await;
            channels.serve(accept(io).await, run(client, start)).await;
        }
        Upgrade::Spdy(protocol) => {
            let accept = |headers: &spdy::Headers| {
                matches!(headers.get("streamtype"), Some("stdin" | "stdout" | "stderr" | "error" | "resize"))
            };
            let serving = spdy::serve(io, accept, |streams| async move {
                match collect(streams, options, protocol, doing).await {
                    Some((client, _rest)) => run(client, start).await,
                    None => tracing::debug!("client did not open its streams"),
                }
            });
            serving.await;
        }
    }
}

/// Waits for the streams that the options call for. What comes later is held, and ignored.
async fn collect(
    mut streams: mpsc::Receiver<Stream>,
    options: StreamOptions,
    protocol: &str,
    doing: &'static str,
) -> Option<(Client, mpsc::Receiver<Stream>)> {
    let (mut stdin, mut stdout, mut stderr, mut resize, mut error) = (None, None, None, None, None);
    let wants_resize = options.tty && protocol != V2;
    let collecting = async {
        loop {
            let stream = streams.recv().await?;
            let slot = match stream.headers().get("streamtype") {
                Some("stdin") => &mut stdin,
                Some("stdout") => &mut stdout,
                Some("stderr") => &mut stderr,
                Some("resize") => &mut resize,
                _ => &mut error,
            };
            slot.get_or_insert(stream);
            let complete = error.is_some()
                && (stdin.is_some() || !options.stdin)
                && (stdout.is_some() || !options.stdout)
                && (stderr.is_some() || !options.stderr)
                && (resize.is_some() || !wants_resize);
            if complete {
                return Some(());
            }
        }
    };
    timeout(STREAM_CREATION_TIMEOUT, collecting).await.ok()??;
    let read = |stream: Option<Stream>| stream.map(|stream| Box::new(stream) as BoxedRead);
    let write = |stream: Option<Stream>| stream.map(|stream| Box::new(stream) as BoxedWrite);
    let client = Client {
        stdin: read(stdin),
        stdout: write(stdout),
        stderr: write(stderr),
        resize: read(resize),
        error: write(error)?,
        json: protocol == V4,
        doing,
    };
    Some((client, streams))
}

/// One session, from starting the process to telling how it ended.
async fn run(mut client: Client, start: impl Future<Output = Result<Process, TargetError>>) {
    let result = match start.await {
        Ok(process) => joined(&mut client, process).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        tracing::debug!(error = %status::text(error.as_ref()), "remote command failed");
    }
    let report = status::report(&result, client.doing, client.json);
    let telling = async {
        client.error.write_all(&report).await?;
        client.error.shutdown().await
    };
    // A client that is gone is noticed by whoever serves its connection.
    let _ = timeout(STATUS_TIMEOUT, telling).await;
}

/// Copies in both directions until the process has ended and its output is delivered.
async fn joined(client: &mut Client, process: Process) -> Result<i32, TargetError> {
    let Process { stdin, stdout, stderr, resize, exit } = process;
    let input = async {
        if let (Some(from), Some(to)) = (client.stdin.take(), stdin) {
            // A process that no longer reads its input is no failure.
            let _ = copy(from, to).await;
        }
        std::future::pending::<()>().await
    };
    let sizes = async {
        if let (Some(from), Some(to)) = (client.resize.take(), resize) {
            forward_sizes(from, to).await;
        }
        std::future::pending::<()>().await
    };
    let output = |from: Option<BoxedRead>, to: Option<BoxedWrite>| {
        OptionFuture::from(from.map(|from| async move {
            match to {
                Some(to) => copy(from, to).await,
                None => copy(from, tokio::io::sink()).await,
            }
        }))
    };
    let outputs = async {
        let (_, _, code) =
            tokio::join!(output(stdout, client.stdout.take()), output(stderr, client.stderr.take()), exit,);
        code
    };
    tokio::select! {
        code = outputs => code,
        () = input => Ok(0),
        () = sizes => Ok(0),
    }
}

/// Copies until the end, flushing whenever there is nothing more to read at once, and closes `to`.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(COPY_BUFFER_BYTES);
    loop {
        buffer.clear();
        let count = match from.read_buf(&mut buffer).await {
            Ok(count) => count,
            // The master side of a terminal that all processes have closed.
            Err(error) if error.raw_os_error() == Some(EIO) => 0,
            Err(error) => {
                let _ = to.shutdown().await;
                return Err(error);
            }
        };
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
        to.flush().await?;
    }
}

const EIO: i32 = 5;

async fn forward_sizes(mut from: BoxedRead, to: mpsc::Sender<TerminalSize>) {
    let mut text = Vec::new();
    let mut buffer = BytesMut::with_capacity(RESIZE_BYTES_MAX);
    loop {
        buffer.clear();
        match from.read_buf(&mut buffer).await {
            Ok(count) if count > 0 => text.extend_from_slice(&buffer),
            _ => return,
        }
        for size in sizes(&mut text) {
            if to.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// Takes the whole JSON objects from the beginning of `text`. What is no such object is thrown away.
fn sizes(text: &mut Vec<u8>) -> Vec<TerminalSize> {
    let mut found = Vec::new();
    let mut objects = serde_json::Deserializer::from_slice(text).into_iter::<TerminalSize>();
    let mut broken = false;
    for object in objects.by_ref() {
        match object {
            Ok(size) => found.push(size),
            Err(error) => {
                broken = !error.is_eof();
                break;
            }
        }
    }
    let taken = objects.byte_offset();
    if broken || text.len() - taken.min(text.len()) > RESIZE_BYTES_MAX {
        text.clear();
    } else {
        text.drain(..taken.min(text.len()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_pieces_and_several_at_once() {
        let mut text = br#"{"Width":80,"Height":24}
{"Width":100,"Height":30}{"Wid"#
            .to_vec();
        let size = |width, height| TerminalSize { width, height };
        assert_eq!(sizes(&mut text), [size(80, 24), size(100, 30)]);
        text.extend_from_slice(br#"th":1,"Height":2}"#);
        assert_eq!(sizes(&mut text), [size(1, 2)]);
        text.extend_from_slice(b"nonsense");
        assert_eq!(sizes(&mut text), []);
        text.extend_from_slice(br#"{"Width":5,"Height":6}"#);
        assert_eq!(sizes(&mut text), [size(5, 6)]);
    }
}
