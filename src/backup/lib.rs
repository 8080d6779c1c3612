//! A cluster in one file: the files that it is made anew from, packed, and sealed with a passphrase.
//!
//! ```text
//! magic | length u32 | manifest (JSON) | chunk ...
//! chunk = length u32, the last one's with its highest bit set | AES-256-GCM of a piece of tar.zst
//! ```
//!
//! The manifest is readable by everybody: it says what the file is and how its key is made of the passphrase. What is
//! sealed holds keys and Secrets.
//!
//! Invariants: a file gets its name only when it is whole and synced. Whatever is changed, cut off, added or put in
//! another order is noticed, the manifest included.

mod folder;
mod seal;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use folder::{list, prune};

use seal::{Opening, Sealing, SealingOptions};

const MAGIC: &[u8; 8] = b"CLSTBK01";
const MANIFEST_BYTES_MAX: u32 = 64 * 1024;
/// How names of these files end.
pub const SUFFIX: &str = ".clusterbackup";
/// Secrets are in there.
const FILE_MODE: u32 = 0o600;
const COMPRESSION_LEVEL: i32 = 3;
/// What is unpacked from one file, together: more than any store may hold.
const UNPACKED_BYTES_MAX: u64 = 64 << 30;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Tells clusters apart.
    pub cluster: String,
    /// The server that wrote it.
    pub server: String,
    /// Seconds since 1970.
    pub created: u64,
    pub revision: u64,
    /// Objects.
    pub keys: u64,
    /// What they weigh in the store.
    pub bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(flatten)]
    about: About,
    sealing: SealingOptions,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no snapshot of a cluster", path.display())]
    Foreign { path: PathBuf },
    #[error("{} cannot be opened: the passphrase is another one, or the file is damaged", path.display())]
    Sealed { path: PathBuf },
    #[error("{} is there already", path.display())]
    Exists { path: PathBuf },
    #[error("the passphrase is empty")]
    NoPassphrase,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::InvalidData => Error::Sealed { path },
        _ => Error::Io { action, path, source },
    }
}

/// Packs files under the names given into a new file.
pub fn write(path: &Path, about: &About, passphrase: &str, parts: &[(String, PathBuf)]) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::Exists { path: path.to_owned() });
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = pack(&partial, about, passphrase, parts).and_then(|()| {
        fs::rename(&partial, path).map_err(failed("rename", &partial))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
    });
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

fn pack(partial: &Path, about: &About, passphrase: &str, parts: &[(String, PathBuf)]) -> Result<(), Error> {
    if passphrase.is_empty() {
        return Err(Error::NoPassphrase);
    }
    let manifest = Manifest { about: about.clone(), sealing: SealingOptions::new() };
    let write = || -> io::Result<()> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let mut out = BufWriter::new(options.open(partial)?);
        let head = head(&serde_json::to_vec(&manifest)?);
        out.write_all(&head)?;
        let sealing = Sealing::new(out, &manifest.sealing.key(passphrase), &head)?;
        let mut archive = tar::Builder::new(zstd::Encoder::new(sealing, COMPRESSION_LEVEL)?);
        for (name, file) in parts {
            archive.append_path_with_name(file, name)?;
        }
        let out = archive.into_inner()?.finish()?.finish()?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(failed("write", partial))
}

/// What a file says of itself. Nothing has proved it yet.
pub fn about(path: &Path) -> Result<About, Error> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    Ok(manifest(&mut file, path)?.1.about)
}

/// Unpacks a file into an empty directory, if the passphrase is right and all of it is whole.
pub fn read(path: &Path, passphrase: &str, into: &Path) -> Result<About, Error> {
    let mut file = BufReader::new(File::open(path).map_err(failed("open", path))?);
    let (head, manifest) = manifest(&mut file, path)?;
    let mut unpack = || -> io::Result<()> {
        let opening = Opening::new(&mut file, &manifest.sealing.key(passphrase), &head)?;
        let mut archive = tar::Archive::new(zstd::Decoder::new(opening)?.take(UNPACKED_BYTES_MAX));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.into_owned();
            let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || !entry.header().entry_type().is_file() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let place = into.join(&name);
            if let Some(dir) = place.parent() {
                fs::create_dir_all(dir)?;
            }
            let mut out = File::options().write(true).create_new(true).mode(FILE_MODE).open(&place)?;
            io::copy(&mut entry, &mut out)?;
        }
        // To the end, so that what was cut off is noticed even behind the archive's own end.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map(|_| ())
    };
    unpack().map_err(failed("unpack", path))?;
    Ok(manifest.about)
}

fn head(manifest: &[u8]) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&u32::try_from(manifest.len()).unwrap_or(u32::MAX).to_le_bytes());
    head.extend_from_slice(manifest);
    head
}

/// The manifest, and the bytes up to its end.
fn manifest(file: &mut impl Read, path: &Path) -> Result<(Vec<u8>, Manifest), Error> {
    let foreign = || Error::Foreign { path: path.to_owned() };
    let (mut magic, mut length) = ([0; MAGIC.len()], [0; 4]);
    file.read_exact(&mut magic).and_then(|()| file.read_exact(&mut length)).map_err(|_| foreign())?;
    let length = u32::from_le_bytes(length);
    if magic != *MAGIC || length > MANIFEST_BYTES_MAX {
        return Err(foreign());
    }
    let mut text = vec![0; usize::try_from(length).map_err(|_| foreign())?];
    file.read_exact(&mut text).map_err(|_| foreign())?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| foreign())?;
    if !manifest.sealing.is_sound() {
        return Err(foreign());
    }
    Ok((head(&text), manifest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path) -> (PathBuf, About) {
        fs::write(dir.join("big"), (0..300_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
        fs::write(dir.join("small"), "secret").unwrap();
        let about = About { cluster: "c".into(), server: "one".into(), created: 1, revision: 2, keys: 3, bytes: 4 };
        let path = dir.join(format!("x{SUFFIX}"));
        let parts = [("state".to_owned(), dir.join("big")), ("server/tls/ca.key".to_owned(), dir.join("small"))];
        write(&path, &about, "pass", &parts).unwrap();
        assert!(matches!(write(&path, &about, "pass", &parts), Err(Error::Exists { .. })));
        assert!(matches!(write(&dir.join("y"), &about, "", &parts), Err(Error::NoPassphrase)));
        assert!(!dir.join("y").exists() && !dir.join("y.partial").exists());
        (path, about)
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, about) = made(dir.path());
        assert_eq!(super::about(&path).unwrap(), about);
        assert_eq!(read(&path, "pass", &dir.path().join("out")).unwrap(), about);
        let same = |a: &str, b: &str| fs::read(dir.path().join(a)).unwrap() == fs::read(dir.path().join(b)).unwrap();
        assert!(same("big", "out/state") && same("small", "out/server/tls/ca.key"));
        assert!(!fs::read(&path).unwrap().windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn what_is_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = made(dir.path());
        let whole = fs::read(&path).unwrap();
        let refused = |name: &str, bytes: &[u8], passphrase: &str| {
            let changed = dir.path().join(name);
            fs::write(&changed, bytes).unwrap();
            read(&changed, passphrase, &dir.path().join(format!("{name}-out"))).unwrap_err()
        };
        assert!(matches!(refused("passphrase", &whole, "other"), Error::Sealed { .. }));
        for at in [20, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let error = refused(&format!("changed-{at}"), &changed, "pass");
            assert!(matches!(error, Error::Sealed { .. } | Error::Foreign { .. }), "{at}: {error}");
            refused(&format!("cut-{at}"), &whole[..at], "pass");
        }
        let longer = [&whole[..], b"more"].concat();
        assert!(matches!(refused("longer", &longer, "pass"), Error::Sealed { .. }));
        assert!(matches!(refused("foreign", b"something else entirely", "pass"), Error::Foreign { .. }));
    }
}
