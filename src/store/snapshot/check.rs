//! A snapshot read again, step by step.

use std::io;

use super::{Blocks, Header, Reader, Record, SnapshotFile, invalid};
use crate::codec::Decode;

/// How far it has come.
pub(crate) struct Check {
    blocks: Blocks,
    header: Header,
    records: u64,
    hash: u64,
}

impl SnapshotFile {
    pub(crate) fn check(&self) -> io::Result<Check> {
        let file = self.open()?;
        file.read_from_disk();
        let mut blocks = Blocks::new(file)?;
        let header = blocks.header()?;
        Ok(Check { blocks, header, records: 0, hash: 0 })
    }
}

impl Check {
    /// Reads so many bytes; `true` says that this was the end, and everything is as it was written.
    pub(crate) fn step(&mut self, bytes: u64) -> io::Result<bool> {
        let until = self.blocks.offset + bytes;
        while self.blocks.offset < until {
            let Some(content) = self.blocks.next()? else {
                let whole = self.records == self.header.records && self.hash == self.header.hash;
                return if whole { Ok(true) } else { Err(invalid("records are missing or changed")) };
            };
            let mut reader = Reader::new(content);
            while !reader.is_empty() {
                let record = Record::decode(&mut reader).ok_or_else(|| invalid("a record makes no sense"))?;
                self.hash = self.hash.wrapping_add(record.hash());
                self.records += 1;
            }
        }
        Ok(false)
    }
}
