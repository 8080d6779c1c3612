//! The framing of one record in the log.
//!
//! ```text
//! crc u32 | payload length u32 | position u64 | durable u64 | kind u8 | payload
//! ```
//!
//! `position` counts bytes from the beginning of the log over all segments: content that was left over from another
//! time or place never passes for a record. `durable` is how far the log was synced when the record was written;
//! everything before that must be readable, whatever happened since. Zeros are no record.

use super::LogPosition;
use crate::codec::Reader;

pub(super) const HEADER_BYTES: usize = 25;
/// No payload is longer: a longer one is not a record.
pub(super) const PAYLOAD_BYTES_MAX: usize = 12 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Entry,
    Vote,
    Committed,
    /// Entries from this index on are void.
    Truncate,
    /// Entries up to and including this log id are in a snapshot.
    Purged,
    /// Nothing; written on a clean stop, so that damage to what lies before it is not taken for a torn tail.
    Mark,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Entry, Kind::Vote, Kind::Committed, Kind::Truncate, Kind::Purged, Kind::Mark];

    /// 0 is none, so that zeros are no record.
    fn number(self) -> u8 {
        match self {
            Kind::Entry => 1,
            Kind::Vote => 2,
            Kind::Committed => 3,
            Kind::Truncate => 4,
            Kind::Purged => 5,
            Kind::Mark => 6,
        }
    }
}

/// A record found in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) kind: Kind,
    pub(super) durable: LogPosition,
    pub(super) payload: &'a [u8],
}

impl Found<'_> {
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

pub(super) fn write(out: &mut Vec<u8>, position: LogPosition, durable: LogPosition, kind: Kind, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&position.to_le_bytes());
    out.extend_from_slice(&durable.to_le_bytes());
    out.push(kind.number());
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(out.get(start + 4..).unwrap_or_default());
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// How long the payload of a record is, by its header.
pub(super) fn payload_bytes(header: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(header);
    reader.u32()?;
    usize::try_from(reader.u32()?).ok()
}

/// The record at the front of `bytes`, if one is there, whole, and meant for `position`.
pub(super) fn read(bytes: &[u8], position: LogPosition) -> Option<Found<'_>> {
    let mut reader = Reader::new(bytes);
    let crc = reader.u32()?;
    let length = usize::try_from(reader.u32()?).ok()?;
    if reader.u64()? != position || length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let durable = reader.u64()?;
    let number = reader.u8()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.number() == number)?;
    let payload = reader.take(length)?;
    let covered = bytes.get(4..HEADER_BYTES + length)?;
    (crc32fast::hash(covered) == crc).then_some(Found { kind, durable, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_only_whole_unchanged_and_at_its_position() {
        let mut out = Vec::new();
        write(&mut out, 77, 60, Kind::Vote, b"payload");
        let found = read(&out, 77).unwrap();
        assert_eq!(
            (found.kind, found.durable, found.payload, found.bytes()),
            (Kind::Vote, 60, &b"payload"[..], out.len())
        );
        assert!(read(&out, 78).is_none());
        for length in 0..out.len() {
            assert!(read(&out[..length], 77).is_none());
        }
        for at in 0..out.len() {
            let mut damaged = out.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged, 77).is_none(), "byte {at}");
        }
        assert!(read(&[0; 64], 0).is_none());
    }
}
