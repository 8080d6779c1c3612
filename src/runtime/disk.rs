//! Small files that are replaced whole.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest of our own files; a container's specification with a very long environment fits.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Writes aside and renames: a reader finds the old or the new content. Not synced: what the runtime keeps is
/// about processes, and none of them survives what an unsynced file would not.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, bytes)?;
    fs::rename(&aside, path)
}

pub fn replace_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

/// `None` if there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => {}
    }
    serde_json::from_slice(&fs::read(path)?).map(Some).map_err(io::Error::other)
}
