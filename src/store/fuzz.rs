//! The doors through which the targets of `fuzz/` reach what is on the disk. They are there in builds for fuzzing only.

use std::io;
use std::sync::Arc;

use crate::codec::decode_all;
use crate::command::Batch;
use crate::disk::DiskFile;
use crate::raft::Entry;
use crate::state::Record;
use crate::{log, snapshot};

/// A record of the log at any place, and what records hold.
pub fn log_record(bytes: &[u8]) {
    log::read_record(bytes);
    let _ = decode_all::<Entry>(bytes);
    let _ = decode_all::<Batch>(bytes);
    let _ = decode_all::<Record>(bytes);
}

/// A snapshot: the bytes as they are, and as blocks with the right checksums, cut at zeros.
pub fn snapshot(bytes: &[u8]) {
    snapshot::is_readable(Arc::new(File(bytes.to_vec())));
    snapshot::is_readable(Arc::new(File(snapshot::of_blocks(bytes.split(|byte| *byte == 0)))));
}

/// A file that is read.
#[derive(Debug)]
struct File(Vec<u8>);

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.0.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
