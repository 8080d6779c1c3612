//! Small files that are written as a whole: to a temporary name, synced, renamed, directory synced.

use std::io;
use std::path::Path;

use crate::disk::Disk;

const BYTES_MAX: u64 = 4_096;

/// The file's text, or `None` if there is no such file.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = file.bytes()?;
    if bytes > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long"));
    }
    let mut buffer = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_at(0, &mut buffer)?;
    String::from_utf8(buffer).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(crate) fn write(disk: &dyn Disk, path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let file = disk.create(&temporary)?;
    file.write_at(0, text.as_bytes())?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => disk.sync_dir(dir),
        None => Ok(()),
    }
}
