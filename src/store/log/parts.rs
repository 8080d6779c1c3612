//! The log part by part, for who reads it again.

use std::fmt;
use std::io;

use super::record::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use super::segment::Segment;
use super::{Log, LogPosition};

/// A segment, as far as it was written when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    segment: Segment,
    end: LogPosition,
}

impl Log {
    /// All parts, in order. The newest one ends with the last entry but one.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let index = self.shared.index.lock();
        let last = index.places.back().map_or(0, |place| place.position);
        let ends = index.segments.iter().skip(1).map(|next| next.base).chain([last]);
        index.segments.iter().zip(ends).map(|(segment, end)| Part { segment: segment.clone(), end }).collect()
    }

    /// The part is still there.
    pub(crate) fn has(&self, part: &Part) -> bool {
        self.shared.index.lock().segments.iter().any(|segment| segment.number == part.segment.number)
    }
}

impl Part {
    pub(crate) fn begin(&self) -> LogPosition {
        self.segment.base
    }

    pub(crate) fn end(&self) -> LogPosition {
        self.end
    }

    /// Checks the records from a position on, until so many bytes are read; returns where to go on.
    pub(crate) fn check(&self, from: LogPosition, bytes: u64) -> io::Result<LogPosition> {
        let damaged = |at| {
            let offset = self.segment.offset_of(at);
            io::Error::new(io::ErrorKind::InvalidData, format!("what was written at byte {offset} does not read back"))
        };
        self.segment.file.read_from_disk();
        let (mut at, mut buffer) = (from, Vec::new());
        while at < self.end && at < from + bytes {
            buffer.resize(HEADER_BYTES, 0);
            self.segment.file.read_at(self.segment.offset_of(at), &mut buffer)?;
            let length = record::payload_bytes(&buffer).filter(|length| *length <= PAYLOAD_BYTES_MAX);
            buffer.resize(HEADER_BYTES + length.ok_or_else(|| damaged(at))?, 0);
            self.segment.file.read_at(self.segment.offset_of(at), &mut buffer)?;
            at += record::read(&buffer, at).ok_or_else(|| damaged(at))?.bytes() as u64;
        }
        Ok(at)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {:016x} of the log", self.segment.number)
    }
}
