//! The asking end: connections that are opened when there is something to ask, and kept.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{mpsc, oneshot};

use super::frame::{HELLO_WITHIN, Hello, read_answer, read_frame, send_hello, write_frame};
use super::{CALLS_MAX, Dial};
use crate::members::{CallError, Lane, Peer, Transport};
use crate::membership::NetworkConfig;
use crate::raft::Id;

/// Nobody is dialled for longer.
const DIAL_WITHIN: Duration = Duration::from_secs(2);

/// All connections to other members.
pub(crate) struct Connections {
    me: Id,
    address: String,
    dial: Arc<dyn Dial>,
    open: Mutex<BTreeMap<(String, Id, Lane), Slot>>,
    this: Weak<Connections>,
}

/// One is dialled at a time to one place.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

struct Connection {
    calls: mpsc::Sender<(u64, Bytes)>,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Bytes>>>,
    next: AtomicU64,
    broken: AtomicBool,
    ended: task::Shutdown,
}

impl Connections {
    pub(crate) fn new(me: Id, network: &NetworkConfig) -> Arc<Connections> {
        Arc::new_cyclic(|this| Connections {
            me,
            address: network.address.clone(),
            dial: network.dial.clone(),
            open: Mutex::default(),
            this: this.clone(),
        })
    }

    async fn call_within(&self, peer: Peer, lane: Lane, request: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let until = tokio::time::Instant::now() + timeout;
        let slot = self.open.lock().entry((peer.address.clone(), peer.id, lane)).or_default().clone();
        let connected = tokio::time::timeout_at(until, self.connection(&peer, &slot)).await;
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                tracing::debug!(address = peer.address, %error, "a member cannot be reached");
                return Err(CallError::Unreachable);
            }
            Err(_) => return Err(CallError::Unreachable),
        };
        let answered = tokio::time::timeout_at(until, connection.call(request)).await;
        match answered {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(CallError::NoAnswer),
            Err(_) => {
                // It may be dead without knowing.
                connection.end();
                Err(CallError::NoAnswer)
            }
        }
    }

    async fn connection(&self, peer: &Peer, slot: &Slot) -> io::Result<Arc<Connection>> {
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.broken.load(Ordering::Acquire)) {
            return Ok(connection.clone());
        }
        let mut stream = tokio::time::timeout(DIAL_WITHIN, self.dial.dial(&peer.address)).await??;
        let hello = Hello { from: self.me, address: self.address.clone(), to: peer.id };
        let begun = async {
            send_hello(&mut stream, &hello).await?;
            read_answer(&mut stream).await
        };
        tokio::time::timeout(HELLO_WITHIN, begun).await??;
        let (calls, outgoing) = mpsc::channel(CALLS_MAX);
        let connection = Arc::new(Connection {
            calls,
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            broken: AtomicBool::new(false),
            ended: task::Shutdown::new(),
        });
        task::spawn("store-connection", connection.clone().run(stream, outgoing));
        *slot = Some(connection.clone());
        Ok(connection)
    }
}

impl Transport for Connections {
    fn call(
        &self,
        peer: Peer,
        lane: Lane,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let this = self.this.upgrade();
        Box::pin(async move {
            match this {
                Some(this) => this.call_within(peer, lane, request, timeout).await,
                None => Err(CallError::Unreachable),
            }
        })
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for slot in self.open.get_mut().values() {
            if let Ok(slot) = slot.try_lock()
                && let Some(connection) = slot.as_ref()
            {
                connection.end();
            }
        }
    }
}

impl Connection {
    /// The answer; `None` if the connection ends before it comes.
    async fn call(&self, request: Bytes) -> Option<Bytes> {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(call, answer);
        let forgotten = Forgotten { connection: self, call };
        if self.broken.load(Ordering::Acquire) || self.calls.send((call, request)).await.is_err() {
            return None;
        }
        let answer = answered.await.ok();
        drop(forgotten);
        answer
    }

    fn end(&self) {
        self.broken.store(true, Ordering::Release);
        self.ended.cancel();
    }

    async fn run(self: Arc<Connection>, stream: Box<dyn super::Stream>, mut outgoing: mpsc::Receiver<(u64, Bytes)>) {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let mut writer = BufWriter::new(writer);
        let write = async {
            while let Some((call, request)) = outgoing.recv().await {
                write_frame(&mut writer, call, &request).await?;
                while let Ok((call, request)) = outgoing.try_recv() {
                    write_frame(&mut writer, call, &request).await?;
                }
                writer.flush().await?;
            }
            Ok::<(), io::Error>(())
        };
        let read = async {
            while let Some((call, answer)) = read_frame(&mut reader).await? {
                if let Some(waiting) = self.waiting.lock().remove(&call) {
                    let _ = waiting.send(answer);
                }
            }
            Err::<(), io::Error>(io::ErrorKind::UnexpectedEof.into())
        };
        tokio::select! {
            _ = write => {}
            _ = read => {}
            () = self.ended.cancelled() => {}
        }
        self.end();
        self.waiting.lock().clear();
    }
}

/// A call that nobody waits for any more.
struct Forgotten<'a> {
    connection: &'a Connection,
    call: u64,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.connection.waiting.lock().remove(&self.call);
    }
}
