//! One stream of a session: read what the client sends, write what it shall get.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::Headers;
use super::frame::{CANCEL, DATA_BYTES_SENT_MAX};
use super::session::{Out, Shared};

/// A stream that the client opened and that was accepted. Shutting it down ends our side of it; dropping it before
/// resets it.
pub(crate) struct Stream {
    id: u32,
    headers: Headers,
    received: mpsc::Receiver<Bytes>,
    current: Bytes,
    out: PollSender<Out>,
    finished: bool,
    shared: Shared,
}

impl Stream {
    pub(super) fn new(
        id: u32,
        headers: Headers,
        received: mpsc::Receiver<Bytes>,
        out: mpsc::Sender<Out>,
        shared: Shared,
    ) -> Self {
        Self { id, headers, received, current: Bytes::new(), out: PollSender::new(out), finished: false, shared }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn headers(&self) -> &Headers {
        &self.headers
    }

    fn poll_send(&mut self, context: &mut Context<'_>, fin: bool, data: &[u8]) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(if fin { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) });
        }
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.out.poll_reserve(context)).map_err(|_| broken())?;
        if !self.shared.is_open(self.id) {
            // The client has reset the stream.
            self.out.abort_send();
            self.finished = true;
            return Poll::Ready(Err(broken()));
        }
        let frame = Out::Data { stream: self.id, fin, data: Bytes::copy_from_slice(data) };
        self.finished = fin;
        Poll::Ready(self.out.send_item(frame).map_err(|_| broken()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.received.poll_recv(context)) {
                Some(data) => self.current = data,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.current.len().min(into.remaining());
        into.put_slice(self.current.get(..count).unwrap_or_default());
        self.current.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let data = data.get(..DATA_BYTES_SENT_MAX).unwrap_or(data);
        ready!(self.poll_send(context, false, data))?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context, true, &[])
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.dropped(self.id, (!self.finished).then_some(CANCEL));
    }
}
