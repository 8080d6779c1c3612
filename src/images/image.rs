//! What an image is to the rooms that use it.

use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:<hex>` of the image's configuration: the CRI's image ID.
    pub id: String,
    /// Names with tags, whole: `docker.io/library/nginx:latest`.
    pub repo_tags: Vec<String>,
    /// Names with manifest digests: `docker.io/library/nginx@sha256:…`.
    pub repo_digests: Vec<String>,
    /// What its layers take on disk, unpacked. Layers that images share count in each.
    pub size_bytes: u64,
    /// Environment, entrypoint, command, user, working directory, stop signal, labels, ports... without its
    /// history.
    pub config: Arc<ImageConfiguration>,
    /// Bottom first.
    pub layers: Vec<LayerInfo>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the layer's uncompressed archive.
    pub diff_id: String,
    /// Names the layer together with all layers below it.
    pub chain_id: String,
}

/// How far a pull is: one call per change of one layer, from any thread's task, not more often than every
/// 64 KiB or so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Digest of the layer's blob.
    pub layer: String,
    /// Compressed bytes received.
    pub done_bytes: u64,
    /// Compressed bytes in all.
    pub total_bytes: u64,
}

/// Credentials for one pull, as in the CRI's `AuthConfig`. They go to the registry that the reference names (and
/// the token service it points to), not to mirrors.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// base64 of `username:password`; used when `username` is empty.
    pub auth: String,
    /// An OAuth2 refresh token that is exchanged for an access token.
    pub identity_token: String,
    /// A bearer token that is sent as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}
