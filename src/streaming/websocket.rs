//! WebSocket messages: as channels, where the first byte says which, and as a tunnel for bytes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use futures::future::FusedFuture;
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

use crate::{CLOSE_TIMEOUT, COPY_BUFFER_BYTES, PING_EVERY};

/// Largest message that is taken from a client.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Messages that wait to be sent.
const QUEUE_MESSAGES_MAX: usize = 8;
/// Input that waits for its reader, per channel.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// The channel of a process's input.
const STDIN: u8 = 0;
/// In v5: "this channel is closed", with the channel in the next byte.
const CLOSE_SIGNAL: u8 = 255;

/// How channels are put into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framing {
    /// Text messages: the channel as a digit, the rest in base64.
    pub base64: bool,
    /// The client may close single channels.
    pub close_signal: bool,
}

/// Sends what is written to it as messages of one channel.
pub(crate) type ChannelWriter = SinkWriter<CopyToBytes<ChannelSink>>;

pub(crate) struct Channels {
    framing: Framing,
    queue: mpsc::Sender<Message>,
    pending: mpsc::Receiver<Message>,
    /// By channel: where its input goes.
    inputs: Vec<(u8, DuplexStream)>,
}

pub(crate) async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) -> WebSocketStream<IO> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

impl Channels {
    pub(crate) fn new(framing: Framing) -> Self {
        let (queue, pending) = mpsc::channel(QUEUE_MESSAGES_MAX);
        Self { framing, queue, pending, inputs: Vec::new() }
    }

    /// What the client sends on a channel. Channels without an input are read and thrown away.
    pub(crate) fn input(&mut self, channel: u8) -> impl AsyncRead + Send + Unpin + use<> {
        // Either end notices when the other is dropped, which those of `simplex` do not.
        let (read, write) = tokio::io::duplex(INPUT_BYTES_MAX);
        self.inputs.push((channel, write));
        read
    }

    /// Where to write what the client shall get on a channel.
    pub(crate) fn output(&self, channel: u8) -> ChannelWriter {
        let sink = ChannelSink { channel, framing: self.framing, queue: PollSender::new(self.queue.clone()) };
        SinkWriter::new(CopyToBytes::new(sink))
    }

    /// An empty message, by which clients see that the session is up.
    pub(crate) async fn announce(&self, channel: u8) {
        // There is room: it is the first.
        let _ = self.queue.send(frame(self.framing, channel, &[])).await;
    }

    /// Serves the connection until `session` has ended and all that it wrote is sent, or until the client is gone; then
    /// `session` is dropped. A session that was sent input has a while to make something of it: clients may send a
    /// file and hang up.
    pub(crate) async fn serve<IO>(self, socket: WebSocketStream<IO>, session: impl Future<Output = ()>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (sink, stream) = socket.split();
        let queue = self.queue;
        let sent_input = AtomicBool::new(false);
        let reading = read(self.framing, stream, self.inputs, &sent_input).fuse();
        let writing = write(sink, self.pending).fuse();
        tokio::pin!(reading, writing, session);
        let ended = tokio::select! {
            () = &mut session => true,
            () = &mut reading => false,
            () = &mut writing => false,
        };
        if !ended {
            let last = async {
                // Whether there was input is known when all is read that came.
                while !reading.is_terminated() || sent_input.load(Ordering::Relaxed) {
                    tokio::select! {
                        () = &mut session => return,
                        () = &mut reading => {}
                        () = &mut writing => {}
                    }
                }
            };
            let _ = timeout(CLOSE_TIMEOUT, last).await;
        }
        if ended {
            let last = async {
                let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                // Fails if the client is gone, and then there is nothing to do.
                let _ = queue.send(Message::Close(Some(close))).await;
            };
            let closing = async {
                tokio::join!(last, writing);
                // The client closes its side in answer.
                reading.await;
            };
            let _ = timeout(CLOSE_TIMEOUT, closing).await;
        }
    }
}

/// Takes messages apart until the client is gone. Notes that a process was sent input.
async fn read<IO: AsyncRead + AsyncWrite + Unpin>(
    framing: Framing,
    mut stream: SplitStream<WebSocketStream<IO>>,
    mut inputs: Vec<(u8, DuplexStream)>,
    sent_input: &AtomicBool,
) {
    while let Some(message) = stream.next().await {
        let data = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Close(_)) => return,
            Ok(_) => continue,
            Err(error) => {
                if !matches!(error, Error::ConnectionClosed | Error::AlreadyClosed) {
                    tracing::debug!(%error, "WebSocket connection ended");
                }
                return;
            }
        };
        let Some((channel, data)) = unframe(framing, data) else { continue };
        if framing.close_signal && channel == CLOSE_SIGNAL {
            // Dropping the pipe's end is its end of file.
            inputs.retain(|(input, _)| data.first() != Some(input));
            continue;
        }
        let Some((_, input)) = inputs.iter_mut().find(|(input, _)| *input == channel) else { continue };
        if channel == STDIN && !data.is_empty() {
            sent_input.store(true, Ordering::Relaxed);
        }
        if input.write_all(&data).await.is_err() {
            // Nobody reads it any more: let it run into nothing.
            inputs.retain(|(input, _)| *input != channel);
        }
    }
}

/// Sends what is queued, and pings when there is nothing, until a close message is sent or the client is gone.
async fn write<IO: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<IO>, Message>,
    mut pending: mpsc::Receiver<Message>,
) {
    let mut ping_at = Instant::now() + PING_EVERY;
    loop {
        let message = tokio::select! {
            message = pending.recv() => match message {
                Some(message) => message,
                None => return,
            },
            () = tokio::time::sleep_until(ping_at) => Message::Ping(Bytes::new()),
        };
        ping_at = Instant::now() + PING_EVERY;
        let last = matches!(message, Message::Close(_));
        if sink.send(message).await.is_err() || last {
            return;
        }
    }
}

fn unframe(framing: Framing, mut data: Bytes) -> Option<(u8, Bytes)> {
    let first = data.try_get_u8().ok()?;
    if !framing.base64 {
        return Some((first, data));
    }
    let channel = first.checked_sub(b'0')?;
    Some((channel, STANDARD.decode(&data).ok()?.into()))
}

fn frame(framing: Framing, channel: u8, data: &[u8]) -> Message {
    if framing.base64 {
        return Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(data)));
    }
    let mut message = BytesMut::with_capacity(1 + data.len());
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(data);
    Message::Binary(message.freeze())
}

/// Puts one channel's data into the queue of messages.
pub(crate) struct ChannelSink {
    channel: u8,
    framing: Framing,
    queue: PollSender<Message>,
}

impl futures::Sink<Bytes> for ChannelSink {
    type Error = io::Error;

    fn poll_ready(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), io::Error>> {
        self.queue.poll_ready_unpin(context).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn start_send(mut self: std::pin::Pin<&mut Self>, data: Bytes) -> Result<(), io::Error> {
        let message = frame(self.framing, self.channel, &data);
        self.queue.start_send_unpin(message).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_close(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// The bytes inside of a WebSocket's binary messages, whatever their boundaries.
pub(crate) fn tunnel<IO: AsyncRead + AsyncWrite + Unpin + Send>(
    socket: WebSocketStream<IO>,
) -> impl AsyncRead + AsyncWrite + Unpin + Send {
    let (sink, stream) = socket.split();
    let messages = stream.filter_map(async |message| match message {
        Ok(Message::Binary(data)) => Some(Ok(data)),
        Ok(Message::Text(_)) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message in a tunnel"))),
        Ok(_) => None,
        Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    });
    let sink = sink.sink_map_err(io::Error::other).with(async |data: Bytes| Ok::<_, io::Error>(Message::Binary(data)));
    let (read, write) = (StreamReader::new(Box::pin(messages)), SinkWriter::new(CopyToBytes::new(Box::pin(sink))));
    tokio::io::join(read, tokio::io::BufWriter::with_capacity(COPY_BUFFER_BYTES, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_both_forms() {
        let binary = Framing { base64: false, close_signal: false };
        let base64 = Framing { base64: true, close_signal: false };
        assert_eq!(frame(binary, 1, b"x"), Message::binary(vec![1, b'x']));
        assert_eq!(frame(base64, 1, b"x"), Message::text("1eA=="));
        assert_eq!(unframe(base64, Bytes::from_static(b"0eA==")), Some((0, Bytes::from_static(b"x"))));
        assert_eq!(unframe(base64, Bytes::from_static(b"!")), None);
        assert_eq!(unframe(binary, Bytes::new()), None);
    }
}
