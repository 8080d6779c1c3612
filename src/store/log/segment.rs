//! Segments: the files that the log consists of. Each is allocated in full before it is used, so that a write into
//! it does not fail for want of room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogPosition;
use crate::codec::Reader;
use crate::disk::{Disk, DiskFile};

pub(super) const SEGMENT_HEADER_BYTES: u64 = 32;
const MAGIC: &[u8; 8] = b"CLOG0001";
const SUFFIX: &str = ".log";
const SPARE: &str = "spare";
const SPARE_NEW: &str = "spare.new";

/// A segment that is part of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Position of its first record.
    pub(super) base: LogPosition,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Segment {
    pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{number:016x}{SUFFIX}"))
    }

    pub(super) fn offset_of(&self, position: LogPosition) -> u64 {
        position - self.base + SEGMENT_HEADER_BYTES
    }
}

/// The numbers of the segments that are there, in order.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let names = disk.list(dir)?;
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Secures the room for one more segment.
pub(super) fn make_spare(disk: &dyn Disk, dir: &Path, bytes: u64) -> io::Result<()> {
    let new = dir.join(SPARE_NEW);
    let made = (|| {
        let file = disk.create(&new)?;
        file.allocate(bytes)?;
        file.sync()?;
        disk.rename(&new, &dir.join(SPARE))
    })();
    if made.is_err() {
        // It may hold part of the room that is short.
        let _ = disk.remove(&new);
    }
    made
}

pub(super) fn has_spare(disk: &dyn Disk, dir: &Path, bytes: u64) -> bool {
    disk.open(&dir.join(SPARE)).and_then(|file| file.bytes()).is_ok_and(|found| found == bytes)
}

/// Makes the spare into a segment. It is there for good on return.
pub(super) fn use_spare(disk: &dyn Disk, dir: &Path, number: u64, base: LogPosition) -> io::Result<Segment> {
    let spare = dir.join(SPARE);
    let file = disk.open(&spare)?;
    file.write_at(0, &header(number, base))?;
    file.sync()?;
    disk.rename(&spare, &Segment::path(dir, number))?;
    disk.sync_dir(dir)?;
    Ok(Segment { number, base, file })
}

fn header(number: u64, base: LogPosition) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&base.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.resize(SEGMENT_HEADER_BYTES as usize, 0);
    bytes
}

/// The base position from a segment's header, if that is whole and says what the name says.
pub(super) fn read_header(bytes: &[u8], number: u64) -> Option<LogPosition> {
    let mut reader = Reader::new(bytes);
    let magic = reader.take(MAGIC.len())?;
    let (named, base, crc) = (reader.u64()?, reader.u64()?, reader.u32()?);
    let covered = bytes.get(..MAGIC.len() + 16)?;
    (magic == MAGIC && named == number && crc == crc32fast::hash(covered)).then_some(base)
}
