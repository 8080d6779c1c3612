//! The Container Runtime Interface (CRI) v1 on the wire: messages, client and server, generated from
//! `cri.proto`, and the way to a runtime's Unix socket.
//!
//! kubelet speaks it to any runtime; `runtime` serves it to any kubelet and to `crictl`.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// The generated types of package `runtime.v1`.
#[allow(clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Largest message in either direction; upstream's kubelet and containerd use the same.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Opens a channel to the runtime that listens on the Unix socket `path`.
///
/// The connection is made with the first call and again after it was lost, so this never waits.
pub fn connect(path: &Path) -> Channel {
    let path: PathBuf = path.to_owned();
    // The address is required by the HTTP layer and not used: the connector below decides.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}
