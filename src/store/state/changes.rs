//! What changed since the last checkpoint of the materialised state.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::Event;

use super::{Record, State};

/// Beyond so many bytes it is no longer kept track of; everything is written instead.
const CHANGES_BYTES_MAX: u64 = 32 << 20;

/// What a change weighs beyond its key and value.
const CHANGE_BYTES: u64 = 128;

/// Names a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordId {
    pub(crate) revision: u64,
    pub(crate) key: Bytes,
}

#[derive(Debug, Default)]
pub(crate) enum Changes {
    /// Nothing is known; everything may have changed.
    #[default]
    Everything,
    Some {
        put: Vec<Arc<Event>>,
        /// Records that a compaction dropped, also of those in `put`.
        remove: Vec<RecordId>,
        bytes: u64,
    },
}

impl Changes {
    /// Bytes of the changes; those of everything if that is not known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Changes::Everything => None,
            Changes::Some { bytes, .. } => Some(*bytes),
        }
    }

    pub(super) fn put(&mut self, event: &Arc<Event>) {
        if let Changes::Some { put, bytes, .. } = self {
            *bytes += (event.kv.key.len() + event.kv.value.len()) as u64 + CHANGE_BYTES;
            put.push(event.clone());
        }
        self.bound();
    }

    pub(super) fn remove(&mut self, record: &Record) {
        if let Changes::Some { remove, bytes, .. } = self {
            *bytes += record.kv.key.len() as u64 + CHANGE_BYTES;
            remove.push(RecordId { revision: record.kv.mod_revision, key: record.kv.key.clone() });
        }
        self.bound();
    }

    fn bound(&mut self) {
        if self.bytes().is_some_and(|bytes| bytes > CHANGES_BYTES_MAX) {
            *self = Changes::Everything;
        }
    }
}

impl State {
    /// Bytes that a checkpoint would have to write.
    pub(crate) fn changed_bytes(&self) -> u64 {
        self.dirty.bytes().unwrap_or(self.bytes + self.history_bytes)
    }

    /// What changed since this was last asked for.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::replace(&mut self.dirty, Changes::Some { put: Vec::new(), remove: Vec::new(), bytes: 0 })
    }

    /// The last changes taken did not arrive.
    pub(crate) fn forget_changes(&mut self) {
        self.dirty = Changes::Everything;
    }
}
