//! The client's side, for tests.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::frame::{self, Received};
use super::headers::{Decoder, Encoder, Headers};

pub(crate) struct Client<IO> {
    io: BufReader<IO>,
    encoder: Encoder,
    decoder: Decoder,
    next: u32,
}

/// What came from the server, streams by their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Reply(u32),
    Data(u32, Bytes),
    End(u32),
    Reset(u32),
    GoAway,
    Gone,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io: BufReader::new(io), encoder: Encoder::new().unwrap(), decoder: Decoder::new(), next: 1 }
    }

    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let headers = Headers(headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
        let block = self.encoder.encode(&headers).unwrap();
        let mut bytes = BytesMut::new();
        frame::syn_stream(&mut bytes, stream, false, &block);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
        stream
    }

    pub(crate) async fn send(&mut self, stream: u32, data: &[u8], fin: bool) {
        let mut bytes = BytesMut::new();
        frame::data(&mut bytes, stream, fin, data);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub(crate) async fn ping(&mut self, id: u32) {
        let mut bytes = BytesMut::new();
        frame::ping(&mut bytes, id);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
        assert_eq!(frame::read(&mut self.io).await.unwrap(), Some(Received::Ping { id }));
    }

    pub(crate) async fn next(&mut self) -> Event {
        loop {
            return match frame::read(&mut self.io).await {
                Ok(Some(Received::Headers { stream, block, .. })) => {
                    self.decoder.decode(&block).unwrap();
                    Event::Reply(stream)
                }
                Ok(Some(Received::Data { stream, data, fin: false })) => Event::Data(stream, data),
                Ok(Some(Received::Data { stream, data, fin: true })) => {
                    assert!(data.is_empty());
                    Event::End(stream)
                }
                Ok(Some(Received::Reset { stream })) => Event::Reset(stream),
                Ok(Some(Received::GoAway)) => Event::GoAway,
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => Event::Gone,
            };
        }
    }

    /// All that comes until the server closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Event::Gone => return events,
                event => events.push(event),
            }
        }
    }
}
