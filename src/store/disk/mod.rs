//! The file operations that durability rests on, behind a trait: the real ones, and in tests a disk that fills up,
//! loses what was not synced, and tears writes.
//!
//! Invariant that users keep: a file is there for good once it is synced and its directory is synced after it was
//! made or renamed.

mod real;

#[cfg(test)]
pub(crate) mod fake;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use real::RealDisk;

pub(crate) trait Disk: Send + Sync + Debug + 'static {
    /// Makes the directory and its parents; synced.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes an empty file in the place of any that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Names of the files in a directory, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Its operations take time and belong on a thread where that is no harm.
    fn blocks(&self) -> bool {
        true
    }
}

/// Does work on a disk where it holds nobody up.
pub(crate) async fn work<T: Send + 'static>(
    disk: &dyn Disk,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    if disk.blocks() { tokio::task::spawn_blocking(work).await } else { Ok(work()) }
}

pub(crate) trait DiskFile: Send + Sync + Debug {
    fn bytes(&self) -> io::Result<u64>;
    /// Reads until the buffer is full; a file that ends before is `UnexpectedEof`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file `bytes` long, with zeros, and with its room on the disk secured.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Cuts the file off.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// What is read next is to come from the disk and not from memory, as far as that can be had.
    fn read_from_disk(&self) {}
    /// Returns once everything written is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// The error says that there is no room on the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
