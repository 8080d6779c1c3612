//! SPDY/3.1, as much of it as Kubernetes' clients use: streams that the client opens, without flow control.
//!
//! Clients built on spdystream neither send WINDOW_UPDATE nor heed it, so none is sent, and what they send is
//! ignored; back-pressure is TCP's.

#[cfg(test)]
pub(crate) mod client;
mod frame;
mod headers;
mod session;
mod stream;

pub(crate) use headers::Headers;
pub(crate) use session::serve;
pub(crate) use stream::Stream;
