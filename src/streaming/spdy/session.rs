//! A connection: frames taken apart and handed to their streams, and the streams' output put on the wire.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::FusedFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::frame::{self, PROTOCOL_ERROR, REFUSED_STREAM, Received};
use super::headers::{Decoder, Encoder, Headers};
use super::stream::Stream;
use crate::{CLOSE_TIMEOUT, PING_EVERY};

/// Streams that a client may have open at a time.
const STREAMS_MAX: usize = 1000;
/// Frames that wait for a stream's reader, and frames of all streams that wait to be sent.
const RECEIVED_FRAMES_MAX: usize = 32;
const SENT_FRAMES_MAX: usize = 16;
/// Streams that wait to be taken by the handler.
const NEW_STREAMS_MAX: usize = 16;

/// What goes out.
pub(super) enum Out {
    Data { stream: u32, fin: bool, data: Bytes },
    Reply { stream: u32 },
    Reset { stream: u32, status: u32 },
    Pong { id: u32 },
    Close,
}

/// What the reader knows of the streams, shared with them.
#[derive(Clone)]
pub(super) struct Shared {
    streams: Arc<Mutex<HashMap<u32, Known>>>,
    /// Resets by streams that are dropped, which cannot wait; at most one for each.
    resets: mpsc::UnboundedSender<Out>,
}

struct Known {
    /// Gone when the client has ended its side.
    input: Option<mpsc::Sender<Bytes>>,
    /// What comes on it is for whoever is behind the handler, and not about the streams.
    carries: bool,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more comes from the client.
    fn end_inputs(&self) {
        self.streams().values_mut().for_each(|known| known.input = None);
    }

    pub(super) fn is_open(&self, stream: u32) -> bool {
        self.streams().contains_key(&stream)
    }

    pub(super) fn dropped(&self, stream: u32, reset: Option<u32>) {
        if self.streams().remove(&stream).is_some()
            && let Some(status) = reset
        {
            // Fails only when the connection has ended.
            let _ = self.resets.send(Out::Reset { stream, status });
        }
    }
}

/// Serves a connection. Streams that `accept` takes by their headers are handed to `handler`; others are reset. Ends
/// when the handler has ended and all that its streams wrote is sent, or when the client is gone; then the handler is
/// dropped. One that was sent input has a while to make something of it: clients may send a file and hang up.
pub(crate) async fn serve<IO, A, H, F>(io: IO, accept: A, handler: H)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Fn(&Headers) -> bool,
    H: FnOnce(mpsc::Receiver<Stream>) -> F,
    F: Future<Output = ()>,
{
    let (reader, writer) = tokio::io::split(io);
    let (out, pending) = mpsc::channel(SENT_FRAMES_MAX);
    let (resets, pending_resets) = mpsc::unbounded_channel();
    let (new, streams) = mpsc::channel(NEW_STREAMS_MAX);
    let shared = Shared { streams: Arc::default(), resets };
    let sent_input = AtomicBool::new(false);
    let reading = read(reader, accept, new, out.clone(), shared, &sent_input).fuse();
    let writing = write(writer, pending, pending_resets).fuse();
    let handling = handler(streams);
    tokio::pin!(reading, writing, handling);
    tokio::select! {
        () = &mut handling => {
            let last = async {
                // Fails if the client is gone, and then there is nothing to do.
                let _ = out.send(Out::Close).await;
            };
            let closing = async { tokio::join!(last, &mut writing) };
            // The client's frames are read on meanwhile: it may wait for that before it reads ours.
            let reading_on = async {
                let _ = reading.await;
                std::future::pending::<()>().await
            };
            tokio::select! {
                _ = timeout(CLOSE_TIMEOUT, closing) => {}
                () = reading_on => {}
            }
            return;
        }
        result = &mut reading => log(result),
        result = &mut writing => log(result),
    }
    let last = async {
        // Whether there was input is known when all is read that came.
        while !reading.is_terminated() || sent_input.load(Ordering::Relaxed) {
            tokio::select! {
                () = &mut handling => return,
                result = &mut reading => log(result),
                result = &mut writing => log(result),
            }
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, last).await;
}

fn log(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "SPDY connection ended");
    }
}

/// Takes frames apart until the client is gone. Notes that a handler was sent input.
async fn read<A: Fn(&Headers) -> bool>(
    reader: impl AsyncRead + Unpin,
    accept: A,
    new: mpsc::Sender<Stream>,
    out: mpsc::Sender<Out>,
    shared: Shared,
    sent_input: &AtomicBool,
) -> io::Result<()> {
    let ended = take_apart(reader, accept, new, out, &shared, sent_input).await;
    shared.end_inputs();
    ended
}

async fn take_apart<A: Fn(&Headers) -> bool>(
    reader: impl AsyncRead + Unpin,
    accept: A,
    new: mpsc::Sender<Stream>,
    out: mpsc::Sender<Out>,
    shared: &Shared,
    sent_input: &AtomicBool,
) -> io::Result<()> {
    let mut reader = tokio::io::BufReader::with_capacity(frame::DATA_BYTES_SENT_MAX, reader);
    let mut decoder = Decoder::new();
    let mut highest = 0;
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    while let Some(received) = frame::read(&mut reader).await? {
        match received {
            Received::Open { stream, fin, block } => {
                let headers = decoder.decode(&block)?;
                // Clients' streams have odd numbers that only grow.
                if stream % 2 == 0 || stream <= highest {
                    out.send(Out::Reset { stream, status: PROTOCOL_ERROR }).await.map_err(gone)?;
                    continue;
                }
                highest = stream;
                if shared.streams().len() >= STREAMS_MAX || !accept(&headers) {
                    out.send(Out::Reset { stream, status: REFUSED_STREAM }).await.map_err(gone)?;
                    continue;
                }
                let (input, received) = mpsc::channel(RECEIVED_FRAMES_MAX);
                let carries = matches!(headers.get("streamtype"), Some("stdin" | "data"));
                shared.streams().insert(stream, Known { input: (!fin).then_some(input), carries });
                let handle = Stream::new(stream, headers, received, out.clone(), shared.clone());
                // Before anything else on this stream: clients throw away what comes before the reply.
                out.send(Out::Reply { stream }).await.map_err(gone)?;
                // A handler that takes no more streams drops the stream, which resets it.
                let _ = new.send(handle).await;
            }
            Received::Data { stream, fin, data } => {
                let known = shared.streams().get(&stream).map(|known| (known.input.clone(), known.carries));
                if let Some((Some(input), carries)) = known.filter(|_| !data.is_empty()) {
                    if carries {
                        sent_input.store(true, Ordering::Relaxed);
                    }
                    // Fails when nobody reads this stream any more; what comes is thrown away.
                    let _ = input.send(data).await;
                }
                if fin {
                    end_input(shared, stream);
                }
            }
            Received::Headers { stream, fin, block } => {
                decoder.decode(&block)?;
                if fin {
                    end_input(shared, stream);
                }
            }
            Received::Reset { stream } => {
                shared.streams().remove(&stream);
            }
            // Even numbers answer pings of ours.
            Received::Ping { id } if id % 2 == 1 => out.send(Out::Pong { id }).await.map_err(gone)?,
            Received::Ping { .. } | Received::GoAway | Received::Other => {}
        }
    }
    Ok(())
}

fn end_input(shared: &Shared, stream: u32) {
    if let Some(known) = shared.streams().get_mut(&stream) {
        known.input = None;
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut pending: mpsc::Receiver<Out>,
    mut resets: mpsc::UnboundedReceiver<Out>,
) -> io::Result<()> {
    let mut encoder = Encoder::new()?;
    let mut bytes = BytesMut::new();
    let mut ping_at = Instant::now() + PING_EVERY;
    let (mut ping_id, mut last_stream) = (2u32, 0);
    loop {
        tokio::select! {
            // In order: what a stream wrote goes out before its reset.
            biased;
            Some(out) = pending.recv() => match out {
                Out::Data { stream, fin, data } => frame::data(&mut bytes, stream, fin, &data),
                Out::Reply { stream } => {
                    last_stream = stream;
                    let block = encoder.encode(&Headers::default())?;
                    frame::syn_reply(&mut bytes, stream, &block);
                }
                Out::Reset { stream, status } => frame::reset(&mut bytes, stream, status),
                Out::Pong { id } => frame::ping(&mut bytes, id),
                Out::Close => {
                    frame::go_away(&mut bytes, last_stream);
                    writer.write_all_buf(&mut bytes).await?;
                    return writer.shutdown().await;
                }
            },
            Some(out) = resets.recv() => {
                if let Out::Reset { stream, status } = out {
                    frame::reset(&mut bytes, stream, status);
                }
            }
            () = tokio::time::sleep_until(ping_at) => {
                frame::ping(&mut bytes, ping_id);
                ping_id = ping_id.wrapping_add(2);
            }
        }
        writer.write_all_buf(&mut bytes).await?;
        if pending.is_empty() {
            writer.flush().await?;
        }
        ping_at = Instant::now() + PING_EVERY;
    }
}
