//! The real network: frames on byte streams that somebody else opens, encrypts and authenticates.
//!
//! ```text
//! dialler:  hello                       | frame ...
//! answerer:        | welcome or refusal | frame ...
//! frame = length u32 | call u64 | content
//! ```
//!
//! One connection for each member and lane, opened by who has something to ask; any number of calls are on their way
//! at once. The hello says which member is meant: who lives at an address where another member used to be does not
//! answer for it.
//!
//! Invariants: no frame is longer than [`FRAME_BYTES_MAX`]; so many calls at most are answered at once
//! ([`CALLS_MAX`]); a connection on which a call got no answer in time is closed, and the next call opens another.

mod connections;
mod frame;
mod serve;

#[cfg(test)]
mod wire_test;

use std::io;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use connections::Connections;
pub(crate) use serve::serve;

/// A batch of commands, and whatever may come of them.
const FRAME_BYTES_MAX: u32 = 32 << 20;
/// Calls of one connection that are answered at once.
const CALLS_MAX: usize = 256;

/// A way to somebody, in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Opens ways to other members.
pub trait Dial: Send + Sync + 'static {
    /// Opens a way to the member at an address. The one at the other end must be a member, by whatever the two sides
    /// know each other.
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}
