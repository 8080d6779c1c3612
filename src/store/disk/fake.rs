//! A disk in memory, for tests. It counts the operations that change it and stops at a chosen one, as if the power
//! had gone; then what was not synced is kept, lost or torn, by a seeded choice.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile};

/// Writes reach the disk in pieces of this size, in any order, unless a sync comes in between.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
pub(crate) struct FakeDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    files: Vec<Data>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    operations: u64,
    syncs: u64,
    stop_at: Option<u64>,
    quota: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Data {
    content: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug)]
struct FakeFile {
    inner: Arc<Mutex<Inner>>,
    id: usize,
}

impl FakeDisk {
    /// Operations that changed something so far.
    pub(crate) fn operations(&self) -> u64 {
        self.inner.lock().operations
    }

    /// Syncs of files so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// Lets every operation from this one on fail.
    pub(crate) fn stop_at(&self, operation: u64) {
        self.inner.lock().stop_at = Some(operation);
    }

    /// Lets files take at most this many bytes together.
    pub(crate) fn set_quota(&self, bytes: Option<u64>) {
        self.inner.lock().quota = bytes;
    }

    /// What a machine finds that starts after the power went.
    pub(crate) fn after_power_cut(&self, seed: u64) -> FakeDisk {
        let mut random = StdRng::seed_from_u64(seed);
        let inner = self.inner.lock();
        let files = inner.files.iter().map(|data| {
            let mut content = data.durable.clone();
            if data.content.len() != content.len() && random.random_bool(0.5) {
                content.resize(data.content.len(), 0);
            }
            for start in (0..content.len()).step_by(SECTOR_BYTES) {
                let end = (start + SECTOR_BYTES).min(content.len()).min(data.content.len());
                if start < end && content[start..end] != data.content[start..end] && random.random_bool(0.5) {
                    content[start..end].copy_from_slice(&data.content[start..end]);
                }
            }
            Data { durable: content.clone(), content }
        });
        let files = files.collect();
        let mut names = inner.durable_names.clone();
        for (path, id) in &inner.names {
            if !names.contains_key(path) && random.random_bool(0.5) {
                // A rename takes effect as a whole.
                names.retain(|_, other| other != id);
                names.insert(path.clone(), *id);
            }
        }
        let inner = Inner { files, durable_names: names.clone(), names, ..Inner::default() };
        FakeDisk { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The content of a file, to damage it.
    pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner.lock();
        let id = inner.names[path];
        edit(&mut inner.files[id].content);
        inner.files[id].durable = inner.files[id].content.clone();
    }
}

impl Inner {
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.stop_at {
            Some(stop) if self.operations >= stop => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|id| self.files[*id].content.len() as u64).sum()
    }

    fn grow(&mut self, id: usize, bytes: usize) -> io::Result<()> {
        let more = bytes.saturating_sub(self.files[id].content.len()) as u64;
        if more > 0 && self.quota.is_some_and(|quota| self.used() + more > quota) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if more > 0 {
            self.files[id].content.resize(bytes, 0);
        }
        Ok(())
    }
}

impl Disk for FakeDisk {
    fn blocks(&self) -> bool {
        false
    }

    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        let id = inner.files.len();
        inner.files.push(Data::default());
        inner.names.insert(path.to_owned(), id);
        Ok(Arc::new(FakeFile { inner: self.inner.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.lock();
        let id = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FakeFile { inner: self.inner.clone(), id }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner.lock();
        let below = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(below.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        inner.names.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        let id = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        let names = inner.names.clone();
        inner.durable_names.retain(|path, _| path.parent() != Some(dir));
        inner.durable_names.extend(names.into_iter().filter(|(path, _)| path.parent() == Some(dir)));
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.inner.lock().files[self.id].content.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = inner.files[self.id].content.get(start..start + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let stopped = inner.operation();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        inner.grow(self.id, start + bytes.len())?;
        inner.files[self.id].content[start..start + bytes.len()].copy_from_slice(bytes);
        stopped
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        inner.grow(self.id, usize::try_from(bytes).map_err(io::Error::other)?)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        inner.files[self.id].content.truncate(usize::try_from(bytes).map_err(io::Error::other)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        inner.syncs += 1;
        let data = &mut inner.files[self.id];
        data.durable = data.content.clone();
        Ok(())
    }
}
