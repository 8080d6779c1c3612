//! The client that measures: HTTP/1.1 over TLS with the administrator's certificate. A connection blocks its thread; many
//! watches share one ([`follow`]), so that the client costs little beside what it measures.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const READ_MAX: Duration = Duration::from_secs(60);
const READ_BUFFER_BYTES: usize = 128 * 1024;
/// That of one of many connections that get little at a time.
const SMALL_BUFFER_BYTES: usize = 8 * 1024;

/// The API server on this host's loopback address.
#[derive(Clone)]
pub struct Api {
    config: Arc<ClientConfig>,
}

pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

/// The lines of a watch as they come.
pub struct Watch {
    connection: Connection,
    line: Vec<u8>,
    ended: bool,
}

/// What came before the body.
struct Head {
    status: u16,
    body: Framing,
}

enum Framing {
    Length(u64),
    Chunked,
}

impl Api {
    /// With the authority, certificate and key of a kubeconfig of ours.
    pub fn new(kubeconfig: &Path) -> anyhow::Result<Api> {
        let text = std::fs::read_to_string(kubeconfig)?;
        let field = |name: &str| -> anyhow::Result<Vec<u8>> {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            Ok(STANDARD.decode(line.with_context(|| format!("no {name} in the kubeconfig"))?.trim_matches('"'))?)
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&field("certificate-authority-data")?) {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_slice_iter(&field("client-certificate-data")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&field("client-key-data")?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Api { config: Arc::new(config) })
    }

    pub fn connect(&self) -> anyhow::Result<Connection> {
        self.connect_with(READ_BUFFER_BYTES)
    }

    /// One of many.
    pub fn connect_small(&self) -> anyhow::Result<Connection> {
        self.connect_with(SMALL_BUFFER_BYTES)
    }

    fn connect_with(&self, buffer_bytes: usize) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], 6443)), CONNECT_MAX)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(READ_MAX))?;
        let tls = ClientConnection::new(self.config.clone(), ServerName::try_from("127.0.0.1")?)?;
        Ok(Connection { stream: BufReader::with_capacity(buffer_bytes, StreamOwned::new(tls, tcp)) })
    }
}

impl Connection {
    /// A request that has to succeed; the decoded answer.
    pub fn call(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let mut answer = Vec::new();
        let status = self.exchange(method, path, body, |bytes| answer.extend_from_slice(bytes))?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    /// A request that has to succeed; the length of the answer, which is read and let go.
    pub fn count(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<u64> {
        let (mut length, mut begin) = (0, Vec::new());
        let status = self.exchange(method, path, body, |bytes| {
            if length == 0 {
                begin.extend(bytes.iter().take(300));
            }
            length += bytes.len() as u64;
        })?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&begin));
        }
        Ok(length)
    }

    pub fn status(&mut self, path: &str) -> anyhow::Result<u16> {
        self.exchange("GET", path, "", |_| ())
    }

    /// Hands each line of a watch to `seen` until that returns true. The time of a line is that of its last byte.
    pub fn watch(&mut self, path: &str, mut seen: impl FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        self.send("GET", path, "")?;
        let head = self.head()?;
        if head.status != 200 {
            bail!("watch {path}: {}", head.status);
        }
        let (mut line, mut enough) = (Vec::new(), false);
        self.body(&head.body, |bytes| {
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if !enough && line.ends_with(b"\n") {
                    enough = seen(&line);
                    line.clear();
                }
            }
            !enough
        })
    }

    /// Begins a watch that is read by [`follow`].
    pub fn into_watch(mut self, path: &str) -> anyhow::Result<Watch> {
        self.send("GET", path, "")?;
        let head = self.head()?;
        if head.status != 200 {
            bail!("watch {path}: {}", head.status);
        }
        self.stream.get_ref().sock.set_nonblocking(true)?;
        Ok(Watch { connection: self, line: Vec::new(), ended: false })
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str, mut part: impl FnMut(&[u8])) -> anyhow::Result<u16> {
        self.send(method, path, body)?;
        let head = self.head()?;
        self.body(&head.body, |bytes| {
            part(bytes);
            true
        })?;
        Ok(head.status)
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
        let form = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:6443\r\nUser-Agent: bench\r\nAccept: application/json\r\n\
             Content-Type: {form}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        Ok(())
    }

    fn head(&mut self) -> anyhow::Result<Head> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
        let mut body = Framing::Length(0);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok(Head { status, body });
            }
            match line.split_once(": ") {
                Some(("content-length", length)) => body = Framing::Length(length.parse()?),
                Some(("transfer-encoding", "chunked")) => body = Framing::Chunked,
                _ => {}
            }
        }
    }

    /// Reads a body until its end, or until `part` returns false.
    fn body(&mut self, framing: &Framing, mut part: impl FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        match framing {
            Framing::Length(length) => {
                self.exactly(*length, &mut part)?;
            }
            Framing::Chunked => loop {
                let length = u64::from_str_radix(&self.line()?, 16)?;
                let go_on = self.exactly(length, &mut part)?;
                if !go_on {
                    return Ok(());
                }
                self.line()?;
                if length == 0 {
                    return Ok(());
                }
            },
        }
        Ok(())
    }

    fn exactly(&mut self, length: u64, part: &mut impl FnMut(&[u8]) -> bool) -> anyhow::Result<bool> {
        let mut left = length;
        while left > 0 {
            let bytes = self.stream.fill_buf()?;
            let take = bytes.len().min(usize::try_from(left)?);
            if take == 0 {
                bail!("the connection ended within a body");
            }
            let go_on = part(bytes.get(..take).unwrap_or_default());
            self.stream.consume(take);
            left -= take as u64;
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        const LINE_BYTES_MAX: u64 = 16 * 1024;
        let mut line = String::new();
        self.stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        if !line.ends_with('\n') {
            bail!("the connection ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Reads watches until `seen` has returned true for each; it gets the number of the watch and a line.
pub fn follow(watches: &mut [Watch], mut seen: impl FnMut(usize, &[u8]) -> bool) -> anyhow::Result<()> {
    const EVENTS: usize = 256;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (number, watch) in watches.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        epoll.add(watch.connection.stream.get_ref().sock.as_fd(), event)?;
    }
    // What was read along with the head.
    for (number, watch) in watches.iter_mut().enumerate() {
        watch.read(|line| seen(number, line))?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    while watches.iter().any(|watch| !watch.ended) {
        let count = epoll.wait(&mut events, EpollTimeout::try_from(READ_MAX)?)?;
        if count == 0 {
            bail!("nothing came for {READ_MAX:?}");
        }
        for event in events.iter().take(count) {
            let number = usize::try_from(event.data())?;
            let Some(watch) = watches.get_mut(number) else { continue };
            watch.read(|line| seen(number, line))?;
            if watch.ended {
                epoll.delete(watch.connection.stream.get_ref().sock.as_fd())?;
            }
        }
    }
    Ok(())
}

impl Watch {
    /// Hands on what is there. Of a chunked body the lines that are objects count, those between them are lengths.
    fn read(&mut self, mut seen: impl FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        let Watch { connection, line, ended } = self;
        loop {
            let bytes = match connection.stream.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let length = bytes.len();
            if length == 0 {
                bail!("the watch ended");
            }
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.ends_with(b"\n") {
                    *ended |= line.starts_with(b"{") && seen(line);
                    line.clear();
                }
            }
            connection.stream.consume(length);
            // The socket is looked at again when there is more: that costs less than to look in vain.
            let decrypted = connection.stream.get_mut().conn.process_new_packets()?.plaintext_bytes_to_read();
            if *ended || (decrypted == 0 && connection.stream.buffer().is_empty()) {
                return Ok(());
            }
        }
    }
}
