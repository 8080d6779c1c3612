//! Snapshots: the whole state at one index of the log, in one file.
//!
//! ```text
//! magic | block: header (JSON) | blocks of records ...
//! block = length u32 | crc u32 | content
//! ```
//!
//! Invariants: a snapshot gets its name only after it was synced and read back whole; the one before it goes after
//! that. A snapshot that is read is checked block by block, by the number of its records and by the state's hash.

mod check;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode, Reader};
use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::raft::{Applied, SnapshotMeta};
use crate::state::{LeaseRecord, Record, State};

/// Where they lie in the store's directory.
pub(crate) const DIR: &str = "snapshot";

const MAGIC: &[u8; 8] = b"CSNP0001";
const SUFFIX: &str = ".snapshot";
const TEMPORARY: &str = "snapshot.new";
const RECEIVED: &str = "snapshot.received";
/// A block ends with the first record that makes it this long.
const BLOCK_BYTES: usize = 256 << 10;
/// No block is longer: one record of the largest transaction fits.
const BLOCK_BYTES_MAX: usize = 4 << 20;

/// What goes into a snapshot.
pub(crate) struct Contents {
    pub(crate) meta: SnapshotMeta,
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    pub(crate) hash: u64,
    pub(crate) leases: Vec<LeaseRecord>,
    pub(crate) records: Vec<Record>,
}

impl Contents {
    /// The state as it is. Shares its bytes.
    pub(crate) fn of(state: &State, applied: &Applied) -> Contents {
        let id = applied.log_id.map(|id| format!("{}-{}", id.leader_id.term, id.index));
        Contents {
            meta: SnapshotMeta {
                last_log_id: applied.log_id,
                last_membership: applied.membership.clone(),
                snapshot_id: id.unwrap_or_else(|| "empty".to_owned()),
            },
            revision: state.revision(),
            compacted: state.compacted(),
            hash: state.hash(),
            leases: state.leases(),
            records: state.records(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    meta: SnapshotMeta,
    revision: u64,
    compacted: u64,
    hash: u64,
    #[serde(default)]
    leases: Vec<LeaseRecord>,
    records: u64,
}

/// A snapshot as Raft hands it on: where it lies.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl SnapshotFile {
    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(crate) fn open(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.path)
    }

    /// Makes it, in the place of any that is there.
    pub(crate) fn create(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(&self.path)
    }
}

impl std::fmt::Display for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "snapshot {}", self.path.display())
    }
}

/// The directory of snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    current: Mutex<Option<Current>>,
    /// One is written at a time.
    writing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Current {
    meta: SnapshotMeta,
    path: PathBuf,
    bytes: u64,
}

impl Snapshots {
    /// Finds the newest snapshot, and clears away what was not finished. Its records are not looked at yet.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<Snapshots, OpenError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { action, path, source }
        };
        disk.make_dir(&dir).map_err(failed("make", &dir))?;
        let mut names = disk.list(&dir).map_err(failed("list", &dir))?;
        for name in names.iter().filter(|name| *name == TEMPORARY || *name == RECEIVED) {
            let path = dir.join(name);
            disk.remove(&path).map_err(failed("remove", &path))?;
        }
        names.retain(|name| name.ends_with(SUFFIX));
        let mut current = None;
        if let Some(name) = names.pop() {
            let path = dir.join(name);
            let file = disk.open(&path).map_err(failed("open", &path))?;
            let bytes = file.bytes().map_err(failed("open", &path))?;
            // One whose header is damaged is found out when it is loaded.
            let header = Blocks::new(file).and_then(|mut blocks| blocks.header());
            let meta = header.map(|header| header.meta).unwrap_or_default();
            current = Some(Current { meta, path, bytes });
        }
        let snapshots = Snapshots { disk, dir, current: Mutex::new(current), writing: Mutex::new(()) };
        for name in names {
            let path = snapshots.dir.join(name);
            snapshots.disk.remove(&path).map_err(failed("remove", &path))?;
        }
        Ok(snapshots)
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn current(&self) -> Option<(SnapshotMeta, SnapshotFile)> {
        let current = self.current.lock().clone()?;
        Some((current.meta, SnapshotFile { disk: self.disk.clone(), path: current.path }))
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.current.lock().as_ref().map_or(0, |current| current.bytes)
    }

    /// Puts the newest snapshot aside, as damaged.
    pub(crate) fn set_aside(&self) -> io::Result<()> {
        match self.current.lock().take() {
            None => Ok(()),
            Some(current) => self.disk.rename(&current.path, &current.path.with_extension("damaged")),
        }
    }

    /// Loads the newest snapshot, checking all of it.
    pub(crate) fn load(&self) -> Result<Option<(SnapshotMeta, State)>, OpenError> {
        let Some(current) = self.current.lock().clone() else { return Ok(None) };
        let loaded = self.disk.open(&current.path).and_then(load);
        let (header, state) = loaded.map_err(|error| damaged(&current.path, &error))?;
        Ok(Some((header.meta, state)))
    }

    /// Writes a snapshot; on return it is verified and the newest.
    pub(crate) fn write(&self, contents: &Contents) -> io::Result<SnapshotFile> {
        let _writing = self.writing.lock();
        let temporary = self.dir.join(TEMPORARY);
        let written = write_file(self.disk.as_ref(), &temporary, contents);
        if written.is_err() {
            let _ = self.disk.remove(&temporary);
        }
        self.publish(&temporary, written?)
    }

    /// Where a snapshot that comes from another member is to be written.
    pub(crate) fn receiving(&self) -> SnapshotFile {
        SnapshotFile { disk: self.disk.clone(), path: self.dir.join(RECEIVED) }
    }

    /// Takes over a snapshot that lies elsewhere; returns its state. A witness keeps none of it.
    pub(crate) fn install(&self, snapshot: &SnapshotFile, meta: &SnapshotMeta, witness: bool) -> io::Result<State> {
        let (_, mut state) = read_file(snapshot.disk.as_ref(), &snapshot.path)?;
        if witness {
            state = State::restored(0, 0, &[]);
        }
        let applied = Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() };
        self.write(&Contents { meta: meta.clone(), ..Contents::of(&state, &applied) })?;
        Ok(state)
    }

    fn publish(&self, temporary: &Path, header: Header) -> io::Result<SnapshotFile> {
        let index = header.meta.last_log_id.map_or(0, |id| id.index);
        let term = header.meta.last_log_id.map_or(0, |id| id.leader_id.term);
        let newer = |current: &Current| current.meta.last_log_id > header.meta.last_log_id;
        if let Some(current) = self.current.lock().clone().filter(newer) {
            // One came from the leader meanwhile.
            self.disk.remove(temporary)?;
            return Ok(SnapshotFile { disk: self.disk.clone(), path: current.path });
        }
        let path = self.dir.join(format!("{index:016x}-{term:016x}{SUFFIX}"));
        self.disk.rename(temporary, &path)?;
        self.disk.sync_dir(&self.dir)?;
        let bytes = self.disk.open(&path)?.bytes()?;
        let before = self.current.lock().replace(Current { meta: header.meta, path: path.clone(), bytes });
        if let Some(before) = before
            && before.path != path
        {
            // One that cannot be removed now is removed when the store is opened.
            let _ = self.disk.remove(&before.path);
        }
        Ok(SnapshotFile { disk: self.disk.clone(), path })
    }
}

/// Writes a snapshot to a file of its own, syncs it and reads it back.
fn write_file(disk: &dyn Disk, path: &Path, contents: &Contents) -> io::Result<Header> {
    let header = Header {
        meta: contents.meta.clone(),
        revision: contents.revision,
        compacted: contents.compacted,
        hash: contents.hash,
        leases: contents.leases.clone(),
        records: contents.records.len() as u64,
    };
    let file = disk.create(path)?;
    let mut offset = 0;
    let mut put = |bytes: &[u8]| -> io::Result<()> {
        file.write_at(offset, bytes)?;
        offset += bytes.len() as u64;
        Ok(())
    };
    let mut first = MAGIC.to_vec();
    first.extend_from_slice(&block(&serde_json::to_vec(&header)?));
    put(&first)?;
    let mut content = Vec::with_capacity(BLOCK_BYTES * 2);
    for record in &contents.records {
        record.encode(&mut content);
        if content.len() >= BLOCK_BYTES {
            put(&block(&content))?;
            content.clear();
        }
    }
    if !content.is_empty() {
        put(&block(&content))?;
    }
    file.sync()?;
    verify(file, &header)?;
    Ok(header)
}

/// Writes a snapshot that is kept elsewhere.
pub(crate) fn save(disk: &dyn Disk, path: &Path, contents: &Contents) -> io::Result<()> {
    write_file(disk, path, contents).map(|_| ())
}

/// Reads a snapshot from a file of its own: how far the log had been applied to it, and its state.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<(Applied, State)> {
    let (header, state) = load(disk.open(path)?)?;
    Ok((Applied { log_id: header.meta.last_log_id, membership: header.meta.last_membership }, state))
}

fn block(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 8);
    bytes.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn damaged(path: &Path, error: &io::Error) -> OpenError {
    tracing::error!(path = %path.display(), %error, "a snapshot is damaged");
    OpenError::SnapshotDamaged { path: path.to_owned(), reason: "its content is not what was written" }
}

/// Reads a snapshot block by block.
struct Blocks {
    file: Arc<dyn DiskFile>,
    offset: u64,
    end: u64,
    buffer: Vec<u8>,
}

impl Blocks {
    fn new(file: Arc<dyn DiskFile>) -> io::Result<Blocks> {
        let mut magic = [0; MAGIC.len()];
        file.read_at(0, &mut magic)?;
        if magic != *MAGIC {
            return Err(invalid("it is no snapshot"));
        }
        Ok(Blocks { end: file.bytes()?, file, offset: MAGIC.len() as u64, buffer: Vec::new() })
    }

    /// The next block's content; `None` at the end.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.offset == self.end {
            return Ok(None);
        }
        let mut frame = [0; 8];
        self.file.read_at(self.offset, &mut frame)?;
        let mut reader = Reader::new(&frame);
        let (length, crc) = reader.u32().zip(reader.u32()).ok_or_else(|| invalid("a block is cut off"))?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length > BLOCK_BYTES_MAX {
            return Err(invalid("a block is too long"));
        }
        self.buffer.resize(length, 0);
        self.file.read_at(self.offset + 8, &mut self.buffer)?;
        if crc32fast::hash(&self.buffer) != crc {
            return Err(invalid("a block's checksum is wrong"));
        }
        self.offset += 8 + length as u64;
        Ok(Some(&self.buffer))
    }

    fn header(&mut self) -> io::Result<Header> {
        let content = self.next()?.ok_or_else(|| invalid("it has no header"))?;
        Ok(serde_json::from_slice(content)?)
    }

    fn records(&mut self, mut each: impl FnMut(Record)) -> io::Result<u64> {
        let mut count = 0;
        while let Some(content) = self.next()? {
            let mut reader = Reader::new(content);
            while !reader.is_empty() {
                each(Record::decode(&mut reader).ok_or_else(|| invalid("a record makes no sense"))?);
                count += 1;
            }
        }
        Ok(count)
    }
}

fn load(file: Arc<dyn DiskFile>) -> io::Result<(Header, State)> {
    let mut blocks = Blocks::new(file)?;
    let header = blocks.header()?;
    let mut state = State::restored(header.revision, header.compacted, &header.leases);
    let count = blocks.records(|record| state.load(record))?;
    if count != header.records || state.hash() != header.hash {
        return Err(invalid("records are missing or changed"));
    }
    Ok((header, state))
}

/// Reads back what was written.
fn verify(file: Arc<dyn DiskFile>, want: &Header) -> io::Result<()> {
    let mut blocks = Blocks::new(file)?;
    blocks.header()?;
    let mut hash: u64 = 0;
    let count = blocks.records(|record| hash = hash.wrapping_add(record.hash()))?;
    if count != want.records || hash != want.hash {
        return Err(invalid("what was written does not read back"));
    }
    Ok(())
}
