//! exec, attach and port-forward on the wire: WebSocket channels and SPDY/3.1.
//!
//! The server side of the CRI streaming server, as kubectl and other clients speak to it through API server and
//! kubelet, which pass upgraded connections on byte for byte:
//!
//! - exec and attach over WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io`, the older `channel.k8s.io`, and the
//!   base64 forms of the latter two) and over SPDY/3.1 (`v4.channel.k8s.io` down to `v2`);
//! - port-forward over SPDY/3.1 (`portforward.k8s.io`), over SPDY/3.1 inside of WebSocket messages, and over
//!   WebSocket channels (`v4.channel.k8s.io`, a pair for each port).
//!
//! The functions here answer the HTTP request at once; if it is an upgrade they go on in a task of their own. What is
//! behind the streams is the caller's: a future that starts a [`Process`], a function that connects to a port.
//!
//! Invariants: buffers are bounded and a slow side slows the other down; when the client is gone everything that
//! belongs to its session is dropped, which is how the process's keeper learns of it.
//!
//! Limitations: no SPDY flow control, which Kubernetes' clients do not have either; one slow stream may therefore
//! hold up its connection. The HTTP server must serve the connection with upgrades enabled.

mod portforward;
mod remotecommand;
mod spdy;
mod status;
#[cfg(test)]
mod tests;
mod upgrade;
mod websocket;

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use portforward::serve_port_forward;
pub use remotecommand::{serve_attach, serve_exec};

/// How long a client may take to open the streams that it announced.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// A quiet connection is pinged so often, so that a client which vanished is noticed.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Longest time that is spent on getting the last bytes to a client.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Buffer of each copy between client and process.
const COPY_BUFFER_BYTES: usize = 32 << 10;

/// Which streams the client asked for: the CRI's `ExecRequest` and `AttachRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamOptions {
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
    pub tty: bool,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
pub struct TerminalSize {
    #[serde(rename = "Width", default)]
    pub width: u16,
    #[serde(rename = "Height", default)]
    pub height: u16,
}

/// What went wrong behind the streams; its text, with its sources, is shown to the client.
pub type TargetError = Box<dyn std::error::Error + Send + Sync>;

pub type BoxedRead = Box<dyn AsyncRead + Send + Unpin>;
pub type BoxedWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// A running process, or a container that is attached to, as a session uses it.
///
/// The session ends when `stdout` and `stderr` have ended and `exit` is ready. If the client goes away before, all of
/// this is dropped.
pub struct Process {
    /// Shut down when the client's input ends.
    pub stdin: Option<BoxedWrite>,
    pub stdout: Option<BoxedRead>,
    pub stderr: Option<BoxedRead>,
    /// Told of the terminal's size, first and after each change.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// The exit code. For attach: 0 when the container's streams have ended.
    pub exit: BoxFuture<'static, Result<i32, TargetError>>,
}

/// A connection to a port: a socket, for example.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}
