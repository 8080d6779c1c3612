//! How a connection begins, and the frames on it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::FRAME_BYTES_MAX;
use crate::codec::{Reader, put_bytes, put_u64};
use crate::raft::Id;

const MAGIC: &[u8; 4] = b"CSTR";
/// Who speaks another version is refused.
const VERSION: u32 = 1;
const HELLO_BYTES_MAX: usize = 1_024;
/// A connection that has not begun by then is closed.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(5);
const WELCOME: u8 = 1;
const REFUSED: u8 = 0;

/// What who opens a connection says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) from: Id,
    /// Where the one who speaks can be reached.
    pub(super) address: String,
    /// Who is meant; 0 is anyone.
    pub(super) to: Id,
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

pub(super) async fn send_hello(stream: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    let mut content = MAGIC.to_vec();
    content.extend_from_slice(&VERSION.to_le_bytes());
    put_u64(&mut content, hello.from);
    put_u64(&mut content, hello.to);
    put_bytes(&mut content, hello.address.as_bytes());
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_le_bytes()).await?;
    stream.write_all(&content).await?;
    stream.flush().await
}

pub(super) async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
    let length = usize::try_from(stream.read_u32_le().await?).map_err(io::Error::other)?;
    if length > HELLO_BYTES_MAX {
        return Err(invalid("the hello is too long"));
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await?;
    let mut reader = Reader::new(&content);
    if reader.take(MAGIC.len()) != Some(MAGIC) {
        return Err(invalid("it is no member"));
    }
    if reader.u32() != Some(VERSION) {
        return Err(invalid("the member speaks another version"));
    }
    let hello = (|| {
        let (from, to) = (reader.u64()?, reader.u64()?);
        let address = std::str::from_utf8(reader.bytes()?).ok()?.to_owned();
        Some(Hello { from, address, to })
    })();
    hello.ok_or_else(|| invalid("the hello is cut off"))
}

pub(super) async fn answer_hello(stream: &mut (impl AsyncWrite + Unpin), welcome: bool) -> io::Result<()> {
    stream.write_u8(if welcome { WELCOME } else { REFUSED }).await?;
    stream.flush().await
}

pub(super) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    match stream.read_u8().await? {
        WELCOME => Ok(()),
        REFUSED => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "another member lives there")),
        _ => Err(invalid("it is no member")),
    }
}

pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), call: u64, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| invalid("the message is too long"))?;
    stream.write_all(&length.to_le_bytes()).await?;
    stream.write_all(&call.to_le_bytes()).await?;
    stream.write_all(content).await
}

/// The next frame; `None` where the stream ends between two.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u64, Bytes)>> {
    let length = match stream.read_u32_le().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > FRAME_BYTES_MAX {
        return Err(invalid("a message is too long"));
    }
    let call = stream.read_u64_le().await?;
    // Memory grows with what has come, not with what was announced.
    let mut content = Vec::new();
    let read = (&mut *stream).take(u64::from(length)).read_to_end(&mut content).await?;
    if read as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((call, content.into())))
}
