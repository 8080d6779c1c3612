//! A key as it was: each change says what was there before it, so one leads to the next, back to the revision asked for.
//!
//! Costs a search in history for each change of the key since that revision.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{Event, KeyValue};

use super::{Current, State};

impl State {
    /// A key as it was at `revision`, which is not compacted; `current` is what it is now.
    pub(super) fn version_at(&self, key: &Bytes, current: Option<&Current>, revision: u64) -> Option<KeyValue> {
        let mut changed = match current {
            Some(current) if current.mod_revision <= revision => return Some(self.kv(key, current)),
            Some(current) => current.mod_revision,
            None => self.deleted_before(key, u64::MAX)?,
        };
        while changed > revision {
            changed = match &self.change_at(key, changed)?.prev {
                Some(prev) if prev.mod_revision <= revision => return Some((**prev).clone()),
                Some(prev) => prev.mod_revision,
                // It came into being here, perhaps anew.
                None => self.deleted_before(key, changed)?,
            };
        }
        None
    }

    /// The last deletion of a key before a revision.
    fn deleted_before(&self, key: &Bytes, revision: u64) -> Option<u64> {
        let revisions = self.deletions.get(key)?;
        let later = revisions.partition_point(|deleted| *deleted < revision);
        revisions.get(later.checked_sub(1)?).copied()
    }

    fn change_at(&self, key: &Bytes, revision: u64) -> Option<&Arc<Event>> {
        self.history_from(revision)
            .take_while(|event| event.kv.mod_revision == revision)
            .find(|event| event.kv.key == *key)
    }
}
