//! Frames on the wire.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::BLOCK_BYTES_MAX;

const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
pub(super) const FIN: u8 = 1;
/// Largest piece of data that is taken, and that is sent.
const DATA_BYTES_MAX: usize = 4 << 20;
pub(super) const DATA_BYTES_SENT_MAX: usize = 32 << 10;

pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const REFUSED_STREAM: u32 = 3;
pub(super) const CANCEL: u32 = 5;

/// What a client sends, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    Open {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    /// SYN_REPLY or HEADERS: nothing in it matters but its place in the compression.
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Other,
}

/// Reads a frame; `None` at the end.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Received>> {
    let mut head = [0; 8];
    if io.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    io.read_exact(&mut head[1..]).await?;
    let [a, b, c, d, flags, x, y, z] = head;
    let first = u32::from_be_bytes([a, b, c, d]);
    let length = u32::from_be_bytes([0, x, y, z]) as usize;
    let fin = flags & FIN != 0;
    let control = first & CONTROL != 0;
    if length > if control { BLOCK_BYTES_MAX } else { DATA_BYTES_MAX } {
        return Err(invalid("frame that is too large"));
    }
    let mut payload = BytesMut::with_capacity(length);
    let copied = (&mut *io).take(length as u64).read_buf_all(&mut payload).await?;
    if copied < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let payload = payload.freeze();
    if !control {
        return Ok(Some(Received::Data { stream: first, fin, data: payload }));
    }
    if (first >> 16) as u16 & 0x7fff != VERSION {
        return Err(invalid("frame of another SPDY version"));
    }
    let number = |at: usize| {
        let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(|| invalid("control frame that is too short"))
    };
    let stream = |at| number(at).map(|id| id & !CONTROL);
    let block = |at: usize| {
        if payload.len() < at { Err(invalid("control frame that is too short")) } else { Ok(payload.slice(at..)) }
    };
    Ok(Some(match first as u16 {
        // Stream, associated stream, priority and slot.
        SYN_STREAM => Received::Open { stream: stream(0)?, fin, block: block(10)? },
        SYN_REPLY | HEADERS => Received::Headers { stream: stream(0)?, fin, block: block(4)? },
        RST_STREAM => Received::Reset { stream: stream(0)? },
        PING => Received::Ping { id: number(0)? },
        GOAWAY => Received::GoAway,
        _ => Received::Other,
    }))
}

trait ReadBufAll {
    async fn read_buf_all(self, into: &mut BytesMut) -> io::Result<usize>;
}

impl<R: AsyncRead + Unpin> ReadBufAll for tokio::io::Take<R> {
    async fn read_buf_all(mut self, into: &mut BytesMut) -> io::Result<usize> {
        while self.limit() > 0 {
            if self.read_buf(into).await? == 0 {
                break;
            }
        }
        Ok(into.len())
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

pub(super) fn data(into: &mut BytesMut, stream: u32, fin: bool, data: &[u8]) {
    into.put_u32(stream & !CONTROL);
    length(into, if fin { FIN } else { 0 }, data.len());
    into.put_slice(data);
}

pub(super) fn syn_reply(into: &mut BytesMut, stream: u32, block: &[u8]) {
    control(into, SYN_REPLY, 0, 4 + block.len());
    into.put_u32(stream);
    into.put_slice(block);
}

pub(super) fn reset(into: &mut BytesMut, stream: u32, status: u32) {
    control(into, RST_STREAM, 0, 8);
    into.put_u32(stream);
    into.put_u32(status);
}

pub(super) fn ping(into: &mut BytesMut, id: u32) {
    control(into, PING, 0, 4);
    into.put_u32(id);
}

pub(super) fn go_away(into: &mut BytesMut, last_stream: u32) {
    control(into, GOAWAY, 0, 8);
    into.put_u32(last_stream);
    into.put_u32(0);
}

#[cfg(test)]
pub(super) fn syn_stream(into: &mut BytesMut, stream: u32, fin: bool, block: &[u8]) {
    control(into, SYN_STREAM, if fin { FIN } else { 0 }, 10 + block.len());
    into.put_u32(stream);
    into.put_u32(0);
    into.put_u16(0);
    into.put_slice(block);
}

fn control(into: &mut BytesMut, kind: u16, flags: u8, bytes: usize) {
    into.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    length(into, flags, bytes);
}

fn length(into: &mut BytesMut, flags: u8, bytes: usize) {
    into.put_u8(flags);
    into.put_uint(bytes as u64, 3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_are_written() {
        let mut bytes = BytesMut::new();
        syn_stream(&mut bytes, 5, true, b"block");
        data(&mut bytes, 5, false, b"hello");
        reset(&mut bytes, 5, CANCEL);
        ping(&mut bytes, 7);
        go_away(&mut bytes, 3);
        let mut input = &bytes[..];
        assert_eq!(
            read(&mut input).await.unwrap(),
            Some(Received::Open { stream: 5, fin: true, block: Bytes::from_static(b"block") })
        );
        let hello = Bytes::from_static(b"hello");
        assert_eq!(read(&mut input).await.unwrap(), Some(Received::Data { stream: 5, fin: false, data: hello }));
        assert_eq!(read(&mut input).await.unwrap(), Some(Received::Reset { stream: 5 }));
        assert_eq!(read(&mut input).await.unwrap(), Some(Received::Ping { id: 7 }));
        assert_eq!(read(&mut input).await.unwrap(), Some(Received::GoAway));
        assert_eq!(read(&mut input).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        for bytes in [
            &b"\x80\x03\x00\x01\x00\x00\x00\x02ab"[..],
            b"\x80\x02\x00\x06\x00\x00\x00\x04abcd",
            b"\x80\x03\x00\x01\x00\xff\xff\xff",
            b"\x00\x00",
            b"\x00\x00\x00\x01\x00\x00\x00\x09short",
        ] {
            assert!(read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }
}
