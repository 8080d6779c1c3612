//! A materialised state in memory: the oracle that the database is compared with.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Checkpoint, Doubt, Header, Materialised};
use crate::state::{Record, RecordId, State};

#[derive(Default)]
pub(super) struct Memory {
    header: Option<Header>,
    records: BTreeMap<(u64, Bytes), Record>,
}

impl Materialised for Memory {
    fn load(&mut self) -> Result<Option<(Header, State)>, Doubt> {
        let Some(header) = self.header.clone() else { return Ok(None) };
        let mut state = State::restored(header.revision, header.compacted, &header.leases);
        self.records.values().cloned().for_each(|record| state.load(record));
        Ok(Some((header, state)))
    }

    fn verify(&mut self) -> Result<(), Doubt> {
        Ok(())
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), Doubt> {
        if checkpoint.whole {
            self.records.clear();
        }
        for record in checkpoint.put {
            self.records.insert((record.kv.mod_revision, record.kv.key.clone()), record);
        }
        for RecordId { revision, key } in checkpoint.remove {
            assert!(self.records.remove(&(revision, key)).is_some(), "what is removed was there");
        }
        self.header = Some(checkpoint.header);
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Doubt> {
        *self = Memory::default();
        Ok(())
    }
}
