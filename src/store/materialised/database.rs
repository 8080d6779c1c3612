//! The materialised state in sled.
//!
//! What sled 0.34 needs to survive power cuts, and gets here: an `fdatasync` of its file after each flush (its own
//! flush does not reach the disk), its directory and settings synced once they are made, and no value longer than
//! [`CHUNK_BYTES`], so that no page grows into files that are never synced. Nothing that is read is taken on trust.
//!
//! A record lies under `revision | hash of the key | chunk`, each big-endian; a value is `crc32 | content`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Checkpoint, Doubt, Header, Materialised};
use crate::codec::{Encode, Reader, decode_all};
use crate::state::{Record, RecordId, State};

const CHUNK_BYTES: usize = 4 << 10;
const CACHE_BYTES: u64 = 2 << 20;
/// A checkpoint is written in batches of so many bytes. sled holds many times a batch in memory: with 16 MiB it was
/// 200 MB, with this it is 60 MB, and 20 MB once what it freed is given back.
const BATCH_BYTES: usize = 1 << 20;
/// What sled may take on disk for each byte put, and what should stay free beside it.
const DISK_FACTOR: u64 = 4;
const DISK_RESERVE_BYTES: u64 = 128 << 20;
const HEADER: &[u8] = b"header";
const RECORD_KEY_BYTES: usize = 20;

pub(crate) struct Database {
    dir: PathBuf,
}

impl Database {
    pub(crate) fn new(dir: PathBuf) -> Database {
        Database { dir }
    }

    fn open(&self) -> Result<sled::Db, Doubt> {
        let fresh = !self.dir.exists();
        let config = sled::Config::new().path(&self.dir).cache_capacity(CACHE_BYTES).mode(sled::Mode::LowSpace);
        let database = config.open()?;
        if fresh {
            File::open(self.dir.join("conf"))?.sync_all()?;
            sync_dir(&self.dir)?;
            self.dir.parent().map_or(Ok(()), sync_dir)?;
        }
        Ok(database)
    }

    fn sync(&self, database: &sled::Db) -> Result<(), Doubt> {
        database.flush()?;
        File::open(self.dir.join("db"))?.sync_data()?;
        sync_dir(&self.dir)?;
        Ok(())
    }

    fn has_room(&self, bytes: u64) -> Result<bool, Doubt> {
        let dir = if self.dir.exists() { Some(self.dir.as_path()) } else { self.dir.parent() };
        let stat = nix::sys::statvfs::statvfs(dir.unwrap_or(Path::new("/"))).map_err(std::io::Error::from)?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        Ok(free > bytes.saturating_mul(DISK_FACTOR).saturating_add(DISK_RESERVE_BYTES))
    }
}

impl Materialised for Database {
    fn load(&mut self) -> Result<Option<(Header, State)>, Doubt> {
        let mut state = None;
        let mut records: Vec<Record> = Vec::new();
        let header = self.read(|header, record| {
            let state = state.get_or_insert_with(|| restored(header));
            // The records of a revision lie in the order of their keys' hashes and are loaded in the order of their keys.
            if records.last().is_some_and(|last| last.kv.mod_revision != record.kv.mod_revision) {
                load_revision(&mut records, state);
            }
            records.push(record);
        })?;
        let Some(header) = header else { return Ok(None) };
        let mut state = state.unwrap_or_else(|| restored(&header));
        load_revision(&mut records, &mut state);
        whole(&header, state.hash())?;
        Ok(Some((header, state)))
    }

    fn verify(&mut self) -> Result<(), Doubt> {
        let mut hash: u64 = 0;
        match self.read(|_, record| hash = hash.wrapping_add(record.hash()))? {
            Some(header) => whole(&header, hash),
            None => Ok(()),
        }
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), Doubt> {
        let weight = |record: &Record| (record.kv.key.len() + record.kv.value.len() + 64) as u64;
        if !self.has_room(checkpoint.put.iter().map(weight).sum())? {
            return Err(Doubt::NoRoom);
        }
        if checkpoint.whole {
            self.discard()?;
        }
        let database = self.open()?;
        if !checkpoint.whole && database.get(HEADER)?.is_none() {
            return Err(Doubt::Content("there is no checkpoint to go on from"));
        }
        // Without a header the content is void; the last batch brings the new one.
        let mut batch = sled::Batch::default();
        batch.remove(HEADER);
        let mut bytes = 0;
        for record in checkpoint.put {
            bytes += put(&mut batch, &record);
            if bytes > BATCH_BYTES {
                database.apply_batch(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        database.apply_batch(std::mem::take(&mut batch))?;
        for RecordId { revision, key } in &checkpoint.remove {
            let prefix = prefix(*revision, key);
            for found in database.scan_prefix(prefix).keys() {
                batch.remove(found?);
                bytes += RECORD_KEY_BYTES;
            }
            if bytes > BATCH_BYTES {
                database.apply_batch(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        let header = serde_json::to_vec(&checkpoint.header).map_err(std::io::Error::from)?;
        batch.insert(HEADER, with_checksum(&header));
        database.apply_batch(batch)?;
        self.sync(&database)?;
        drop(database);
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Doubt> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Database {
    /// Hands out all records, in the order of their revisions; `None` if there is no checkpoint.
    fn read(&self, mut each: impl FnMut(&Header, Record)) -> Result<Option<Header>, Doubt> {
        if !self.dir.exists() {
            return Ok(None);
        }
        let database = self.open()?;
        let Some(header) = database.get(HEADER)? else { return Ok(None) };
        let header: Header =
            serde_json::from_slice(checked(&header)?).map_err(|_| Doubt::Content("its header makes no sense"))?;
        let mut encoded = Vec::new();
        let mut gather = Gather::default();
        for item in database.iter() {
            let (key, value) = item?;
            if key.len() != RECORD_KEY_BYTES {
                continue;
            }
            if gather.begins_another(&key)? && !encoded.is_empty() {
                each(&header, taken(&mut encoded)?);
            }
            encoded.extend_from_slice(checked(&value)?);
        }
        if !encoded.is_empty() {
            each(&header, taken(&mut encoded)?);
        }
        Ok(Some(header))
    }
}

fn restored(header: &Header) -> State {
    State::restored(header.revision, header.compacted, &header.leases)
}

fn whole(header: &Header, hash: u64) -> Result<(), Doubt> {
    let whole = hash == header.hash;
    if whole { Ok(()) } else { Err(Doubt::Content("its content does not have the hash that was written")) }
}

/// Sees where one record's chunks end and the next one's begin, and that none is missing.
#[derive(Default)]
struct Gather {
    prefix: Vec<u8>,
    next_chunk: u32,
}

impl Gather {
    fn begins_another(&mut self, key: &[u8]) -> Result<bool, Doubt> {
        let mut reader = Reader::new(key);
        let prefix = reader.take(RECORD_KEY_BYTES - 4).unwrap_or_default();
        let chunk = reader.u32().map_or(0, u32::swap_bytes);
        let another = self.prefix != prefix;
        let expected = if another { 0 } else { self.next_chunk };
        if chunk != expected {
            return Err(Doubt::Content("a part of a value is missing"));
        }
        self.prefix.clear();
        self.prefix.extend_from_slice(prefix);
        self.next_chunk = chunk + 1;
        Ok(another)
    }
}

/// Takes a record's chunks as one record.
fn taken(encoded: &mut Vec<u8>) -> Result<Record, Doubt> {
    let record = decode_all(encoded).ok_or(Doubt::Content("a record makes no sense"))?;
    encoded.clear();
    Ok(record)
}

fn load_revision(records: &mut Vec<Record>, state: &mut State) {
    records.sort_by(|a, b| a.kv.key.cmp(&b.kv.key));
    records.drain(..).for_each(|record| state.load(record));
}

/// Adds a record to a batch; returns its bytes.
fn put(batch: &mut sled::Batch, record: &Record) -> usize {
    let mut encoded = Vec::new();
    record.encode(&mut encoded);
    let prefix = prefix(record.kv.mod_revision, &record.kv.key);
    for (number, chunk) in encoded.chunks(CHUNK_BYTES).enumerate() {
        let mut key = prefix.to_vec();
        key.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
        batch.insert(key, with_checksum(chunk));
    }
    encoded.len()
}

fn prefix(revision: u64, key: &[u8]) -> [u8; RECORD_KEY_BYTES - 4] {
    // FNV-1a. Two keys of one revision with the same hash would fail the check of the whole, and no more.
    let hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    ((u128::from(revision) << 64) | u128::from(hash)).to_be_bytes()
}

fn with_checksum(content: &[u8]) -> Vec<u8> {
    let mut value = crc32fast::hash(content).to_le_bytes().to_vec();
    value.extend_from_slice(content);
    value
}

fn checked(value: &[u8]) -> Result<&[u8], Doubt> {
    let mut reader = Reader::new(value);
    let crc = reader.u32();
    let content = value.get(4..).unwrap_or_default();
    if crc == Some(crc32fast::hash(content)) { Ok(content) } else { Err(Doubt::Content("a checksum is wrong")) }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}
