//! The way to another member. Behind this trait stand the real network ([`super::wire`]) and, in tests, a pretended one.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::codec::{Encode, decode_all};
use crate::members::message::{Request, Response};
use crate::raft::Id;

/// Whoever answers at an address.
pub(crate) const ANYONE: Id = 0;

/// Who is to be reached, and where that was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// [`ANYONE`] answers where it is not known who lives at the address.
    pub(crate) id: Id,
    pub(crate) address: String,
}

/// What is long does not hold up what is urgent: they go separate ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    /// The log, votes, and what callers wait for.
    Urgent,
    /// Snapshots.
    Bulk,
}

/// No answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The request cannot have arrived.
    #[error("the member cannot be reached")]
    Unreachable,
    /// The request may have arrived.
    #[error("the member did not answer")]
    NoAnswer,
}

pub(crate) trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for the answer to it.
    fn call(
        &self,
        peer: Peer,
        lane: Lane,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;
}

/// There is nobody else.
pub(crate) struct Nowhere;

impl Transport for Nowhere {
    fn call(&self, _: Peer, _: Lane, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, CallError>> {
        Box::pin(std::future::ready(Err(CallError::Unreachable)))
    }
}

/// Asks a member for something. An answer that makes no sense is none.
pub(crate) async fn ask(
    transport: &dyn Transport,
    peer: Peer,
    lane: Lane,
    request: &Request,
    timeout: Duration,
) -> Result<Response, CallError> {
    let mut encoded = Vec::new();
    request.encode(&mut encoded);
    let answer = transport.call(peer, lane, encoded.into(), timeout).await?;
    decode_all(&answer).ok_or(CallError::NoAnswer)
}
