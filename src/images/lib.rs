//! OCI images: registries, content, unpacked layers, snapshots.
//!
//! [`Images`] is a store of images under one directory. Images come in by [`Images::pull`] from registries
//! (with the mirrors, credentials and TLS of `registries.yaml`) or by [`Images::import`] from tarballs, and
//! leave by [`Images::remove`]. [`Images::prepare_rootfs`] gives a container its writable layer on top of an
//! image and says what overlayfs is to mount; mounting is the caller's.
//!
//! Invariants:
//! - A layer is unpacked once, named by its chain ID, and appears under its name only when the digest of its
//!   blob and its diff ID were both right and its files are on disk. What a crash leaves behind lies in `tmp/`
//!   and is swept by the next [`Images::open`].
//! - An image's record is written after all of its layers. A layer is deleted only when no image, no
//!   container's rootfs and no pull in flight refers to it.
//! - Nothing in an image can name a path outside of the directory its layer is unpacked into.
//!
//! Limitations: one process at a time may have a store open. Compressed blobs are not kept, so images cannot be
//! pushed or exported, and an interrupted pull begins its unfinished layers anew. Only `sha256` digests. No HTTP
//! proxies. Hard links to files of a lower layer and sparse tar entries are refused. A layer that puts a file below
//! what is a symbolic link in a lower layer hides that link with a directory.
//!
//! The registry client is our own over hyper: `oci-client` hides reqwest, which cannot be given client
//! certificates per registry, path rewrites or a name resolver that is safe in a static executable with our
//! TLS provider alone.

mod chain;
mod challenge;
mod error;
mod image;
mod import;
mod manifest;
mod pull;
mod reference;
mod registries;
mod registry;
mod rootfs;
mod state;
#[cfg(test)]
mod tests;
mod transport;
mod unpack;
mod untar;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::{Error, LayerError, PullError, chain_text};
pub use image::{Auth, Image, LayerInfo, Progress};
pub use oci_spec::image::{Config as ContainerConfig, ImageConfiguration};
pub use reference::{InvalidReference, Reference};
pub use registries::{RegistriesConfig, RegistriesError};
pub use rootfs::{FsUsage, Rootfs};

/// The most bytes that all layers of one image may unpack to.
pub const IMAGE_UNPACKED_BYTES_MAX: u64 = 64 << 30;

/// Where the store is and how it reaches registries.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// The store's own directory (`<data-dir>/agent/images-store`). It is made if it is missing.
    pub dir: PathBuf,
    pub registries: RegistriesConfig,
    /// The most bytes one image may unpack to; [`IMAGE_UNPACKED_BYTES_MAX`] unless there is a reason.
    pub image_unpacked_bytes_max: u64,
}

impl ImagesConfig {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            registries: RegistriesConfig::default(),
            image_unpacked_bytes_max: IMAGE_UNPACKED_BYTES_MAX,
        }
    }
}

/// A node's images. A clone is another handle on the same store.
#[derive(Clone)]
pub struct Images {
    state: Arc<state::State>,
    pulls: Arc<pull::Pulls>,
}

impl Images {
    /// Opens the store, sweeping what an interrupted pull or removal left behind. Records that do not decode,
    /// or whose layers are gone, are dropped with a warning; the image is then pulled again when it is needed.
    pub async fn open(config: ImagesConfig) -> Result<Self, Error> {
        let state = blocking(move || state::State::open(config)).await?;
        Ok(Self { state: Arc::new(state), pulls: Arc::default() })
    }

    /// The image with this ID (`sha256:<hex>`, or the hex alone) or this name (normalised as Docker does).
    pub fn get(&self, reference_or_id: &str) -> Option<Arc<Image>> {
        self.state.find(reference_or_id)
    }

    /// All images, ordered by ID.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.state.list()
    }

    /// Removes the image that [`get`](Self::get) finds, under all of its names, and the layers that nothing else
    /// uses. Removing what is not there is no error.
    pub async fn remove(&self, reference_or_id: &str) -> Result<(), Error> {
        let (state, name) = (self.state.clone(), reference_or_id.to_owned());
        blocking(move || state.remove(&name)).await
    }

    /// What the images take on the file system: their unpacked layers, not the containers' writable ones.
    pub fn fs_usage(&self) -> FsUsage {
        self.state.fs_usage()
    }

    /// Makes the writable layer of container `container_id` on top of an image, or finds the one that was made
    /// before, and says what to mount. The image's layers stay until [`release_rootfs`](Self::release_rootfs),
    /// even when the image is removed.
    pub async fn prepare_rootfs(&self, image_id: &str, container_id: &str) -> Result<Rootfs, Error> {
        let (state, image_id, container_id) = (self.state.clone(), image_id.to_owned(), container_id.to_owned());
        blocking(move || state.prepare_rootfs(&image_id, &container_id)).await
    }

    /// Deletes the container's writable layer. The caller has unmounted it. Releasing twice is no error.
    pub async fn release_rootfs(&self, container_id: &str) -> Result<(), Error> {
        let (state, container_id) = (self.state.clone(), container_id.to_owned());
        blocking(move || state.release_rootfs(&container_id)).await
    }

    /// The containers that have a rootfs here, so that the caller can release those it no longer knows.
    pub fn rootfs_ids(&self) -> Vec<String> {
        self.state.rootfs_ids()
    }

    /// What the container's writable layer takes; walks it. `None` if there is no such rootfs.
    pub async fn rootfs_usage(&self, container_id: &str) -> Result<Option<FsUsage>, Error> {
        let (state, container_id) = (self.state.clone(), container_id.to_owned());
        blocking(move || state.rootfs_usage(&container_id)).await
    }
}

/// Runs file-system work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Interrupted),
    }
}
