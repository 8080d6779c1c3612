//! The doors through which the targets of `fuzz/` reach what registries send. They are there in builds for fuzzing only.

use std::io::Read;

use crate::manifest::{Manifest, Platform};
use crate::untar::Untar;
use crate::{Reference, RegistriesConfig, challenge, pull, unpack};

/// What a layer may unpack to here.
const LAYER_BYTES_MAX: u64 = 64 << 20;

pub fn manifest(json: &[u8]) {
    if let Ok(Manifest::Index(manifests)) = Manifest::parse(json) {
        let _ = Platform::here().choose(&manifests);
    }
    let _ = pull::parse_config("fuzz", json);
}

/// A layer's entries, without a place to put them.
pub fn layer(blob: &[u8]) {
    let Ok(archive) = unpack::decompressed(blob) else { return };
    let mut untar = Untar::new(archive.take(LAYER_BYTES_MAX));
    while let Ok(Some(_)) = untar.next() {}
}

pub fn reference(text: &str) {
    if let Ok(reference) = Reference::parse(text) {
        let _ = (reference.repository(), reference.selector(), reference.repo_tag());
    }
}

pub fn registries(yaml: &str) {
    let _ = RegistriesConfig::parse(yaml);
}

/// `WWW-Authenticate`.
pub fn challenge(header: &str) {
    let _ = challenge::parse(std::iter::once(header));
}
