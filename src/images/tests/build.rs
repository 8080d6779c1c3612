//! Layers and images as a builder would make them.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use crate::chain::sha256;

/// A layer's archive, entry by entry; nothing is checked.
#[derive(Default)]
pub struct Layer(Vec<u8>);

impl Layer {
    pub fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().div_ceil(512) * 512, 0);
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(tar::EntryType::Regular, path, "", 0o644, content.as_bytes())
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(tar::EntryType::Directory, path, "", mode, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, 0o777, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, target, 0o644, b"")
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let mut bytes = self.0;
        bytes.extend_from_slice(builder.get_ref());
        Self(bytes)
    }

    pub fn tar(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Content that does not compress.
pub fn noise(bytes: usize) -> String {
    let mut state = 1u64;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b' ' + (state >> 33) as u8 % 90)
        })
        .collect()
}

/// An image's blobs by digest, its manifest last.
pub struct Built {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer_digests: Vec<String>,
}

impl Built {
    pub fn id(&self) -> String {
        sha256(&self.config)
    }
}

/// `layers` are blobs with the archives they hold.
pub fn image(layers: &[(Vec<u8>, &[u8])], docker: bool) -> Built {
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["A=b"], "Cmd": ["/bin/x"], "WorkingDir": "/w", "User": "7", "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|(_, tar)| sha256(tar)).collect::<Vec<_>>()},
        "history": [{"created_by": "x"}],
    }))
    .unwrap();
    let (manifest_type, config_type, layer_type) = if docker {
        (
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        )
    } else {
        (
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        )
    };
    let descriptor = |kind: &str, blob: &[u8]| json!({"mediaType": kind, "digest": sha256(blob), "size": blob.len()});
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": descriptor(config_type, &config),
        "layers": layers.iter().map(|(blob, _)| descriptor(layer_type, blob)).collect::<Vec<_>>(),
    }))
    .unwrap();
    let layer_digests = layers.iter().map(|(blob, _)| sha256(blob)).collect();
    let mut blobs: BTreeMap<_, _> = layers.iter().map(|(blob, _)| (sha256(blob), blob.clone())).collect();
    blobs.insert(sha256(&config), config.clone());
    blobs.insert(sha256(&manifest), manifest.clone());
    Built { blobs, manifest, config, layer_digests }
}

/// An index with the image for this machine behind one for another.
pub fn index(image: &Built) -> Vec<u8> {
    let here = crate::manifest::Platform::here();
    serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"digest": sha256(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "s390x"}},
            {"digest": sha256(&image.manifest), "size": image.manifest.len(),
             "platform": {"os": "linux", "architecture": here.architecture, "variant": here.variant}},
        ],
    }))
    .unwrap()
}

/// A tarball of members.
pub fn tarball(members: &[(&str, &[u8])]) -> Vec<u8> {
    members
        .iter()
        .fold(Layer::default(), |layer, (name, content)| {
            layer.pax(&[("path", name.as_bytes())]).entry(tar::EntryType::Regular, "x", "", 0o644, content)
        })
        .tar()
}
