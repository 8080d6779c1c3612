//! A container's writable layer on top of an image, and the sums of what files take.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext};

/// What overlayfs is to mount for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Uppermost first, as the mount option `lowerdir` wants them; never empty. Paths are short, but many layers may
    /// still need more than a page of mount options: use `fsconfig`'s `lowerdir+`, or change directory to
    /// [`layers_dir`](Self::layers_dir) and mount with relative paths.
    pub lowerdirs: Vec<PathBuf>,
    pub upperdir: PathBuf,
    pub workdir: PathBuf,
    /// The directory that all of `lowerdirs` lie below.
    pub layers_dir: PathBuf,
}

/// What files take on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsUsage {
    /// The directory that was summed.
    #[serde(skip)]
    pub dir: PathBuf,
    pub used_bytes: u64,
    pub inodes_used: u64,
}

/// Whether this may name a container's directory.
pub(crate) fn is_container_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Blocks and inodes below `dir`. Symbolic links are not followed; hard links count once. What vanishes meanwhile is
/// left out.
pub(crate) fn usage(dir: &Path) -> Result<FsUsage, Error> {
    use std::os::unix::fs::MetadataExt;
    let mut usage = FsUsage { dir: dir.to_owned(), ..FsUsage::default() };
    let mut linked = HashSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(current) = pending.pop() {
        let entries = match std::fs::read_dir(&current) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && current != dir => continue,
            Err(error) => return Err(error).at("reading directory", &current),
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_dir() && metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            usage.used_bytes += metadata.blocks() * 512;
            usage.inodes_used += 1;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_stay_one_path_component() {
        assert!(is_container_id("3fa9-x_y.z"));
        for bad in ["", ".", "..", "a/b", ".x", "a\0", &"a".repeat(129)] {
            assert!(!is_container_id(bad), "{bad:?}");
        }
    }
}
