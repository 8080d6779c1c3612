//! What can go wrong, one enum per way in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::reference::InvalidReference;

/// A failure of the local store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("no space left on device: {} has {free_bytes} bytes free, {needed_bytes} are needed", path.display())]
    DiskFull { path: PathBuf, free_bytes: u64, needed_bytes: u64 },
    #[error("image {0} not found")]
    ImageNotFound(String),
    #[error("container ID {0:?} cannot name a directory")]
    BadContainerId(String),
    #[error("container {container_id} has a rootfs of another image already")]
    RootfsOfAnotherImage { container_id: String },
    #[error("{what} does not decode")]
    Decode { what: String, source: serde_json::Error },
    #[error("{0}")]
    Archive(String),
    #[error("layer {layer}")]
    Layer { layer: String, source: LayerError },
    #[error("the work was interrupted")]
    Interrupted,
}

/// A layer that was refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The blob's digest, or the diff ID of what it holds, is not what the manifest or configuration says.
    #[error("digest mismatch: expected {expected}, got {got}")]
    DigestMismatch { expected: String, got: String },
    #[error("entry {path:?}: {reason}")]
    Entry { path: String, reason: &'static str },
    #[error("entry {path:?}")]
    EntryIo { path: String, source: io::Error },
    #[error("unpacks to more than the {max_bytes} bytes an image may have")]
    TooLarge { max_bytes: u64 },
    #[error("no space left on device: {free_bytes} bytes free")]
    DiskFull { free_bytes: u64 },
    #[error("reading the archive")]
    Read(#[source] io::Error),
    #[error("{0}")]
    Malformed(&'static str),
    /// The download ended before the layer did.
    #[error("download did not finish")]
    Cut,
}

/// A pull that failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// kubelet's `InvalidImageName`.
    #[error(transparent)]
    InvalidImageName(#[from] InvalidReference),
    #[error("{reference}: not found")]
    NotFound { reference: String },
    /// The registry wants credentials, or other ones.
    #[error("{host}: authorization failed: {reason}")]
    Unauthorized { host: String, reason: String },
    /// No endpoint answered: kubelet's `RegistryUnavailable`.
    #[error("{host}: registry is unavailable: {reason}")]
    Unavailable { host: String, reason: String },
    #[error("{reference}: no image for {platform} in the index")]
    NoPlatform { reference: String, platform: String },
    #[error("{what} {digest}: digest mismatch: expected {digest}, got {got}")]
    DigestMismatch { what: &'static str, digest: String, got: String },
    #[error("{what}: {reason}")]
    Malformed { what: String, reason: String },
    /// Unpacking or storing failed; its own layer errors include digest mismatches.
    #[error(transparent)]
    Store(#[from] Error),
    /// A layer failed; every pull that waits for it gets the same error.
    #[error(transparent)]
    Shared(Arc<PullError>),
}

impl PullError {
    /// The error itself, when it was shared.
    pub fn inner(&self) -> &Self {
        match self {
            Self::Shared(shared) => shared.inner(),
            other => other,
        }
    }
}

/// An error's text with those of all its sources: what a user should see of it.
pub fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!(": {source}"));
        next = source.source();
    }
    text
}

pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }
}
