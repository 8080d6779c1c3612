//! exec, attach and port-forward: tokens handed out over the CRI, redeemed on the streaming server.
//!
//! The CRI answers with a URL on loopback; whoever connects there names a token that nobody can guess, that
//! works once, and that ages. The wire protocols are `streaming`'s; here is what they are connected to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use cri::v1;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use streaming::{BoxedRead, BoxedWrite, Connection, Process, StreamOptions, TargetError, TerminalSize};
use task::Shutdown;
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::exec::{input_pipe, output_pipe};
use super::shims::{ShimAddress, ShimError};
use super::{Error, Runtime};
use crate::shim;
use crate::shim::protocol::{Reply, Request as ShimRequest, Streams};

/// How long a token may wait, and how many may.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(60);
const TOKENS_MAX: usize = 1000;
const SIZES_WAITING_MAX: usize = 8;
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Pause after the listener failed to accept: out of descriptors, perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ticket {
    Exec { container: String, args: Vec<String>, options: StreamOptions },
    Attach { container: String, options: StreamOptions },
    PortForward { sandbox: String, ports: Vec<u16> },
}

/// Tokens that were handed out and not yet redeemed.
#[derive(Debug, Default)]
struct Tickets(HashMap<String, (Instant, Ticket)>);

/// The streaming server: a listener and its tokens.
pub struct Server {
    address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    tickets: Mutex<Tickets>,
}

impl Tickets {
    fn issue(&mut self, ticket: Ticket, token: String, now: Instant) -> Result<(), Status> {
        self.0.retain(|_, (issued, _)| now.duration_since(*issued) < TOKEN_AGE_MAX);
        if self.0.len() >= TOKENS_MAX {
            return Err(Status::resource_exhausted("maximum number of in-flight requests exceeded"));
        }
        self.0.insert(token, (now, ticket));
        Ok(())
    }

    fn redeem(&mut self, token: &str, now: Instant) -> Option<Ticket> {
        let (issued, ticket) = self.0.remove(token)?;
        (now.duration_since(issued) < TOKEN_AGE_MAX).then_some(ticket)
    }
}

impl Server {
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Streaming { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { address, listener: Mutex::new(Some(listener)), tickets: Mutex::default() })
    }

    fn url(&self, face: &str, ticket: Ticket) -> Result<String, Status> {
        let token = hex::encode(rand::random::<[u8; 16]>());
        self.tickets.lock().issue(ticket, token.clone(), Instant::now())?;
        Ok(format!("http://{}/{face}/{token}", self.address))
    }

    /// Accepts connections until `shutdown`.
    pub fn serve(&self, runtime: &Arc<Runtime>, shutdown: Shutdown) {
        let Some(listener) = self.listener.lock().take() else { return };
        let runtime = Arc::downgrade(runtime);
        task::spawn("streaming", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shutdown.cancelled() => return,
                };
                match accepted {
                    Ok((connection, _)) => {
                        task::spawn("stream", connected(connection, runtime.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a stream");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
}

async fn connected(connection: TcpStream, runtime: Weak<Runtime>) {
    let _ = connection.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let runtime = runtime.upgrade();
        async move {
            let answer = match runtime {
                Some(runtime) => runtime.stream(request),
                None => refusal(StatusCode::SERVICE_UNAVAILABLE, "the runtime is stopping"),
            };
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a stream's connection ended");
    }
}

fn refusal(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text.to_owned())));
    *answer.status_mut() = code;
    answer
}

impl Runtime {
    pub fn exec_url(&self, request: v1::ExecRequest) -> Result<String, Status> {
        let container = self.running(&request.container_id)?;
        if request.cmd.is_empty() {
            return Err(Status::invalid_argument("no command specified"));
        }
        let options = options(request.stdin, request.stdout, request.stderr, request.tty)?;
        let ticket = Ticket::Exec { container: container.id.clone(), args: request.cmd, options };
        self.streaming.url("exec", ticket)
    }

    pub fn attach_url(&self, request: v1::AttachRequest) -> Result<String, Status> {
        let container = self.running(&request.container_id)?;
        let options = options(request.stdin, request.stdout, request.stderr, request.tty)?;
        self.streaming.url("attach", Ticket::Attach { container: container.id.clone(), options })
    }

    pub fn port_forward_url(&self, request: v1::PortForwardRequest) -> Result<String, Status> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Status::failed_precondition(format!("sandbox {:?} is not running", sandbox.id)));
        }
        let ports = request.port.iter().map(|port| u16::try_from(*port).ok().filter(|port| *port > 0));
        let ports = ports.collect::<Option<_>>().ok_or_else(|| Status::invalid_argument("port is out of range"))?;
        self.streaming.url("portforward", Ticket::PortForward { sandbox: sandbox.id.clone(), ports })
    }

    fn stream(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let token = request.uri().path().rsplit('/').next().unwrap_or_default();
        let Some(ticket) = self.streaming.tickets.lock().redeem(token, Instant::now()) else {
            return refusal(StatusCode::NOT_FOUND, "no such stream, or it was used or waited too long");
        };
        match ticket {
            Ticket::Exec { container, args, options } => {
                streaming::serve_exec(request, options, async move { self.open_exec(&container, args, options).await })
            }
            Ticket::Attach { container, options } => {
                streaming::serve_attach(request, options, async move { self.open_attach(&container, options).await })
            }
            Ticket::PortForward { sandbox, ports } => streaming::serve_port_forward(request, ports, move |port| {
                let (runtime, sandbox) = (self.clone(), sandbox.clone());
                async move { runtime.open_port(&sandbox, port).await }
            }),
        }
    }

    fn shim_of(&self, container: &str) -> Result<(ShimAddress, Arc<super::state::Container>), TargetError> {
        let container = self.running(container)?;
        Ok((self.sandbox(&container.record.sandbox_id)?.shim.clone(), container))
    }

    async fn open_exec(&self, id: &str, args: Vec<String>, options: StreamOptions) -> Result<Process, TargetError> {
        let (shim, container) = self.shim_of(id)?;
        let streams = Streams { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr };
        let request = ShimRequest::Exec { container: container.id.clone(), args, tty: options.tty, streams };
        if options.tty {
            return exec_with_terminal(&shim, request, options).await;
        }
        let ends = Ends::open(options)?;
        let mut conversation = shim.ask(&request, &ends.theirs()).await?;
        let (stdin, stdout, stderr) = ends.ours();
        conversation.answer().await?;
        Ok(Process { stdin, stdout, stderr, resize: None, exit: exit(conversation) })
    }

    async fn open_attach(&self, id: &str, options: StreamOptions) -> Result<Process, TargetError> {
        let (shim, container) = self.shim_of(id)?;
        let options = StreamOptions { stderr: options.stderr && !container.config.tty, ..options };
        let ends = Ends::open(options)?;
        let streams = Streams { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr };
        let request = ShimRequest::Attach { container: container.id.clone(), streams };
        shim.ask(&request, &ends.theirs()).await?.answer().await?;
        let (stdin, stdout, stderr) = ends.ours();
        let resize = (options.tty && container.config.tty).then(|| {
            let (sender, mut sizes) = mpsc::channel::<TerminalSize>(SIZES_WAITING_MAX);
            let id = container.id.clone();
            task::spawn("terminal size", async move {
                while let Some(TerminalSize { width, height }) = sizes.recv().await {
                    let request = ShimRequest::Resize { container: id.clone(), columns: width, rows: height };
                    if let Err(error) = shim.order(&request).await {
                        tracing::debug!(container = id, %error, "resizing the terminal");
                    }
                }
            });
            sender
        });
        let mut status = container.status.subscribe();
        let exit = Box::pin(async move {
            // The streams end with the container, and the session waits for both.
            let _ = status.wait_for(|status| !status.is_running()).await;
            Ok(0)
        });
        Ok(Process { stdin, stdout, stderr, resize, exit })
    }

    async fn open_port(&self, sandbox: &str, port: u16) -> Result<Box<dyn Connection>, TargetError> {
        let sandbox = self.sandbox(sandbox)?;
        let mut last: TargetError = "not connected".into();
        for ipv6 in [false, true] {
            match connect(&sandbox.shim, port, ipv6).await {
                Ok(stream) => return Ok(Box::new(stream)),
                // What 127.0.0.1 says is what users know.
                Err(error) if !ipv6 => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }
}

fn options(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<StreamOptions, Status> {
    if tty && stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Status::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(StreamOptions { stdin, stdout, stderr, tty })
}

async fn connect(shim: &ShimAddress, port: u16, ipv6: bool) -> Result<TcpStream, TargetError> {
    let socket = std::net::TcpStream::from(shim.connect(port, ipv6).await?);
    let stream = TcpStream::from_std(socket)?;
    tokio::time::timeout(CONNECT_MAX, stream.writable()).await??;
    match stream.take_error()? {
        Some(error) => Err(format!("dial tcp {}:{port}: {error}", if ipv6 { "[::1]" } else { "127.0.0.1" }).into()),
        None => Ok(stream),
    }
}

/// Waits for a command's exit code. Dropping it hangs up, which kills the command.
fn exit(mut conversation: super::shims::Conversation) -> BoxFuture<'static, Result<i32, TargetError>> {
    Box::pin(async move {
        match conversation.answer().await? {
            Reply::Exited { code } => Ok(code),
            _ => Err(ShimError::Unexpected.into()),
        }
    })
}

async fn exec_with_terminal(
    shim: &ShimAddress,
    request: ShimRequest,
    options: StreamOptions,
) -> Result<Process, TargetError> {
    let (ours, theirs) = UnixStream::pair()?;
    let request = match request {
        // The one descriptor is the socket that the terminal comes through.
        ShimRequest::Exec { container, args, tty, .. } => {
            let streams = Streams { stdin: true, stdout: false, stderr: false };
            ShimRequest::Exec { container, args, tty, streams }
        }
        other => other,
    };
    let mut conversation = shim.ask(&request, &[theirs.as_fd()]).await?;
    drop(theirs);
    conversation.answer().await?;
    // It was sent before the command began, so this does not wait.
    let master = shim::receive_fd(ours.as_fd())?.ok_or("no terminal was made")?;
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let (sender, mut sizes) = mpsc::channel::<TerminalSize>(SIZES_WAITING_MAX);
    let terminal = master.try_clone()?;
    task::spawn("terminal size", async move {
        while let Some(size) = sizes.recv().await {
            if let Err(error) = crate::sys::set_window_size(terminal.as_fd(), size.width, size.height) {
                tracing::debug!(%error, "resizing the terminal");
            }
        }
    });
    let stdin = if options.stdin { Some(pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?) } else { None };
    let stdout = Terminal(pipe::Receiver::from_owned_fd_unchecked(master)?);
    Ok(Process {
        stdin: stdin.map(|stdin| Box::new(stdin) as BoxedWrite),
        stdout: Some(Box::new(stdout)),
        stderr: None,
        resize: Some(sender),
        exit: exit(conversation),
    })
}

/// A terminal's output: when its last user has gone it reads as an I/O error, which is its end.
struct Terminal(pipe::Receiver);

impl tokio::io::AsyncRead for Terminal {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(context, buffer).map(|result| match result {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(()),
            other => other,
        })
    }
}

/// Both ends of the pipes of a session.
struct Ends {
    stdin: Option<(pipe::Sender, OwnedFd)>,
    stdout: Option<(pipe::Receiver, OwnedFd)>,
    stderr: Option<(pipe::Receiver, OwnedFd)>,
}

impl Ends {
    fn open(options: StreamOptions) -> std::io::Result<Self> {
        Ok(Self {
            stdin: options.stdin.then(input_pipe).transpose()?,
            stdout: options.stdout.then(output_pipe).transpose()?,
            stderr: options.stderr.then(output_pipe).transpose()?,
        })
    }

    /// In the order of the protocol.
    fn theirs(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        let stdin = self.stdin.iter().map(|(_, theirs)| theirs.as_fd());
        let outputs = self.stdout.iter().chain(&self.stderr).map(|(_, theirs)| theirs.as_fd());
        stdin.chain(outputs).collect()
    }

    /// Closes theirs.
    fn ours(self) -> (Option<BoxedWrite>, Option<BoxedRead>, Option<BoxedRead>) {
        let read = |end: Option<(pipe::Receiver, OwnedFd)>| end.map(|(ours, _)| Box::new(ours) as BoxedRead);
        (self.stdin.map(|(ours, _)| Box::new(ours) as BoxedWrite), read(self.stdout), read(self.stderr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_once_and_not_for_long() {
        let ticket = Ticket::PortForward { sandbox: "s".into(), ports: vec![80] };
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.issue(ticket.clone(), "a".into(), now).unwrap();
        tickets.issue(ticket.clone(), "b".into(), now).unwrap();
        assert_eq!(tickets.redeem("a", now), Some(ticket.clone()));
        assert_eq!(tickets.redeem("a", now), None);
        assert_eq!(tickets.redeem("b", now + TOKEN_AGE_MAX), None);
        for number in 0..TOKENS_MAX {
            tickets.issue(ticket.clone(), number.to_string(), now).unwrap();
        }
        assert!(tickets.issue(ticket.clone(), "c".into(), now).is_err());
        assert!(tickets.issue(ticket, "c".into(), now + TOKEN_AGE_MAX).is_ok(), "the old ones are gone");
    }
}
