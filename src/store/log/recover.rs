//! Reading the log when it is opened: every record of every segment, in order.
//!
//! Where reading ends, two cases are told apart. Either nothing that was ever synced lies behind: then this is the
//! end, and what is left there is cut off. Or a later record says that the log was durable beyond this place, or a
//! later segment exists: then the disk has lost what it had promised to keep, and opening is refused.

use std::path::Path;

use openraft::{LogId, Vote};

use super::record::{self, Found, Kind};
use super::segment::{self, SEGMENT_HEADER_BYTES, Segment};
use super::{Index, LogPosition, Options, Place};
use crate::codec::{Decode, Reader, decode_all};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::raft::{Entry, Id};

/// What the log holds, and where it ends.
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) end: LogPosition,
}

pub(super) fn recover(disk: &dyn Disk, options: &Options) -> Result<Recovered, OpenError> {
    let mut recovered = Recovered { index: Index::default(), end: 0 };
    read(disk, options, &mut recovered)?;
    Ok(recovered)
}

/// The entries up to where the log is damaged, as far as they can be read.
pub(super) fn entries_before_damage(disk: &dyn Disk, options: &Options) -> Vec<Entry> {
    let mut recovered = Recovered { index: Index::default(), end: 0 };
    let _ = read(disk, options, &mut recovered);
    let index = &recovered.index;
    let entry = |place: &Place| super::read_entry(index.segment_of(place.position)?, *place).ok();
    index.places.iter().map_while(entry).collect()
}

fn read(disk: &dyn Disk, options: &Options, recovered: &mut Recovered) -> Result<(), OpenError> {
    let dir = &options.dir;
    disk.make_dir(dir).map_err(io("make", dir))?;
    let numbers = segment::list(disk, dir).map_err(io("list", dir))?;
    if numbers.is_empty() {
        segment::make_spare(disk, dir, options.segment_bytes).map_err(io("make a log in", dir))?;
        let first = segment::use_spare(disk, dir, 1, 0).map_err(io("make a log in", dir))?;
        recovered.index.segments.push_back(first);
        return Ok(());
    }
    let mut buffer = Vec::new();
    for (at, number) in numbers.iter().enumerate() {
        let path = Segment::path(dir, *number);
        let file = disk.open(&path).map_err(io("open", &path))?;
        let bytes = file.bytes().map_err(io("open", &path))?;
        buffer.resize(usize::try_from(bytes).unwrap_or(usize::MAX).min(options.segment_bytes as usize), 0);
        file.read_at(0, &mut buffer).map_err(io("read", &path))?;
        let damaged = |offset: u64, reason: &'static str, index: &Index| OpenError::LogDamaged {
            path: path.clone(),
            offset,
            reason,
            last_good_index: index.last.map_or(0, |last| last.index),
            last_good_revision: None,
        };
        let Some(base) = segment::read_header(&buffer, *number) else {
            return Err(damaged(0, "the segment's header is not readable", &recovered.index));
        };
        if at > 0 && (numbers.get(at - 1) != Some(&(number - 1)) || base != recovered.end) {
            return Err(damaged(0, "the segment does not continue the one before it", &recovered.index));
        }
        recovered.end = base;
        recovered.index.segments.push_back(Segment { number: *number, base, file: file.clone() });
        let start = SEGMENT_HEADER_BYTES as usize;
        let mut offset = start;
        let last_segment = at + 1 == numbers.len();
        while let Some(found) = record::read(buffer.get(offset..).unwrap_or_default(), recovered.end) {
            if recovered.index.take(&found, recovered.end).is_none() {
                return Err(damaged(offset as u64, "a record's content makes no sense", &recovered.index));
            }
            offset += found.bytes();
            recovered.end += found.bytes() as u64;
        }
        let rest = buffer.get(offset..).unwrap_or_default();
        if last_segment {
            if rest.iter().any(|byte| *byte != 0) {
                if promised_beyond(rest, recovered.end) {
                    return Err(damaged(offset as u64, "what was durable is not readable", &recovered.index));
                }
                tracing::warn!(path = %path.display(), offset, "a torn end of the log is cut off");
                file.truncate(offset as u64).map_err(io("repair", &path))?;
            }
            if rest.iter().any(|byte| *byte != 0) || bytes != options.segment_bytes {
                file.allocate(options.segment_bytes).map_err(io("repair", &path))?;
            }
            // What was written and not synced before the process ended counts as durable from here on.
            file.sync().map_err(io("sync", &path))?;
        } else if let Some(next) = numbers.get(at + 1) {
            let next_path = Segment::path(dir, *next);
            let mut header = vec![0; start];
            let read = disk.open(&next_path).and_then(|file| file.read_at(0, &mut header));
            read.map_err(io("read", &next_path))?;
            if segment::read_header(&header, *next).is_some_and(|base| base != recovered.end) {
                return Err(damaged(offset as u64, "what was durable is not readable", &recovered.index));
            }
        }
    }
    Ok(())
}

/// A whole record in `rest`, which begins at `from`, says that the log was durable beyond `from`.
fn promised_beyond(rest: &[u8], from: LogPosition) -> bool {
    (1..rest.len()).any(|skip| {
        let candidate = rest.get(skip..).unwrap_or_default();
        record::read(candidate, from + skip as u64).is_some_and(|found| found.durable > from)
    })
}

impl Index {
    /// Takes the next record; `None` if its content makes no sense.
    fn take(&mut self, found: &Found<'_>, position: LogPosition) -> Option<()> {
        match found.kind {
            Kind::Entry => {
                let log_id = LogId::<Id>::decode(&mut Reader::new(found.payload))?;
                if self.purged.is_some_and(|purged| log_id.index <= purged.index) {
                    return Some(());
                }
                if self.places.is_empty() {
                    self.first = log_id.index;
                }
                if log_id.index != self.end() {
                    return None;
                }
                let payload_bytes = u32::try_from(found.payload.len()).ok()?;
                self.places.push_back(Place { position, payload_bytes });
                self.last = Some(log_id);
            }
            Kind::Vote => self.vote = Some(decode_all::<Vote<Id>>(found.payload)?),
            Kind::Committed => self.committed = Some(decode_all::<LogId<Id>>(found.payload)?),
            Kind::Truncate => {
                let since: u64 = decode_all(found.payload)?;
                self.places.truncate(usize::try_from(since.saturating_sub(self.first)).ok()?);
                self.last = self.places.back().copied().and_then(|place| self.id_at(place));
            }
            Kind::Purged => {
                let purged: LogId<Id> = decode_all(found.payload)?;
                self.purged = self.purged.max(Some(purged));
                let drop = usize::try_from((purged.index + 1).saturating_sub(self.first)).ok()?.min(self.places.len());
                self.places.drain(..drop);
                self.first = self.first.max(purged.index + 1);
            }
            Kind::Mark => {}
        }
        Some(())
    }

    fn id_at(&self, place: Place) -> Option<LogId<Id>> {
        super::read_entry(self.segment_of(place.position)?, place).ok().map(|entry| entry.log_id)
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
