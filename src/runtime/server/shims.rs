//! The server's side of a shim: starting it and talking to it.

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::executable::Executable;
use crate::shim;
use crate::shim::protocol::{self, FailureKind, Reply, Request};

/// How much of a shim's complaint is kept.
const COMPLAINT_BYTES_MAX: u64 = 4096;
const READ_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    #[error("start shim")]
    Start(#[source] io::Error),
    #[error("start shim: {0}")]
    Refused(String),
    /// No shim listens: it has ended.
    #[error("the pod's shim is gone")]
    Gone(#[source] io::Error),
    #[error("{message}")]
    Failed { kind: FailureKind, message: String },
    #[error("the shim answered something else")]
    Unexpected,
}

/// Starts a shim with the specification at `spec` and returns its process ID once it listens.
/// Blocks for some milliseconds.
pub fn start(executable: &Executable, spec: &Path, log: &Path) -> Result<i32, ShimError> {
    let log = File::options().create(true).append(true).open(log).map_err(ShimError::Start)?;
    let mut child = Command::new(executable.path())
        .arg0("cluster")
        .arg("shim")
        .arg(spec)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(ShimError::Start)?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(COMPLAINT_BYTES_MAX).read_to_string(&mut said);
    }
    // The first process only forks.
    child.wait().map_err(ShimError::Start)?;
    match said.strip_prefix(shim::READY).and_then(|pid| pid.trim().parse().ok()) {
        Some(pid) => Ok(pid),
        None if said.is_empty() => Err(ShimError::Refused("it ended without a word".into())),
        None => Err(ShimError::Refused(said)),
    }
}

/// Where a shim listens.
#[derive(Debug, Clone)]
pub struct ShimAddress(pub PathBuf);

/// One request's connection.
#[derive(Debug)]
pub struct Conversation {
    stream: UnixStream,
    received: Vec<u8>,
}

impl ShimAddress {
    /// Asks and takes the first answer.
    pub async fn call(&self, request: &Request) -> Result<Reply, ShimError> {
        self.ask(request, &[]).await?.answer().await
    }

    /// Asks for something that is either done or not.
    pub async fn order(&self, request: &Request) -> Result<(), ShimError> {
        match self.call(request).await? {
            Reply::Done => Ok(()),
            _ => Err(ShimError::Unexpected),
        }
    }

    pub async fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Conversation, ShimError> {
        let mut stream = UnixStream::connect(&self.0).await.map_err(ShimError::Gone)?;
        let frame = protocol::encode(request).map_err(ShimError::Gone)?;
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        if !numbers.is_empty() {
            sent = stream
                .async_io(Interest::WRITABLE, || {
                    let messages = [ControlMessage::ScmRights(&numbers)];
                    let slices = [IoSlice::new(&frame)];
                    Ok(sendmsg::<()>(stream.as_raw_fd(), &slices, &messages, MsgFlags::MSG_NOSIGNAL, None)?)
                })
                .await
                .map_err(ShimError::Gone)?;
        }
        stream.write_all(frame.get(sent..).unwrap_or_default()).await.map_err(ShimError::Gone)?;
        Ok(Conversation { stream, received: Vec::new() })
    }

    /// A socket that the shim made in the pod's network.
    pub async fn connect(&self, port: u16, ipv6: bool) -> Result<OwnedFd, ShimError> {
        let mut conversation = self.ask(&Request::Connect { port, ipv6 }, &[]).await?;
        let stream = &conversation.stream;
        // The answer's first byte brings the descriptor, if there is one; the rest is read as usual.
        stream.readable().await.map_err(ShimError::Gone)?;
        let mut fd = None;
        let mut first = [0; 1];
        let count = stream
            .async_io(Interest::READABLE, || {
                let (count, received) = shim::receive_fd_with(stream.as_fd(), &mut first)?;
                fd = received;
                Ok(count)
            })
            .await
            .map_err(ShimError::Gone)?;
        conversation.received.extend_from_slice(first.get(..count).unwrap_or_default());
        conversation.answer().await?;
        fd.ok_or(ShimError::Unexpected)
    }
}

impl Conversation {
    /// The next answer; a refusal is an error.
    pub async fn answer(&mut self) -> Result<Reply, ShimError> {
        match self.next().await? {
            Some(Reply::Failed { kind, message }) => Err(ShimError::Failed { kind, message }),
            Some(reply) => Ok(reply),
            None => Err(ShimError::Gone(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The next answer; `None` when the shim has hung up. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<Option<Reply>, ShimError> {
        loop {
            if let Some(reply) = protocol::decode(&mut self.received).map_err(ShimError::Gone)? {
                return Ok(Some(reply));
            }
            self.received.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.received).await.map_err(ShimError::Gone)? == 0 {
                return Ok(None);
            }
        }
    }
}
