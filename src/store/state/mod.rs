//! The state that the log builds: every key's current value and the history since the last compaction, in memory.
//!
//! Purpose: multi-version reads, transactions, and the record of changes that watchers follow. No I/O, no clock.
//!
//! Invariants:
//! - `history` holds every change with `compacted <= mod_revision`, in order of revision, then key.
//! - A key's version at a past revision is what its first later change says was there before; without a later
//!   change it is the current one. So the past costs no index ([`past`]).
//! - Within one revision a key changes at most once (`crate::check` refuses other transactions).
//! - `hash` is the sum of the hashes of all records (see [`record`]); it does not depend on the order of changes.
//!
//! Limitations: history lives in memory. The caller bounds it by compaction (`Config::history_bytes_max`).

mod changes;
mod lease;
mod past;
mod range;
mod record;
mod txn;

#[cfg(test)]
mod oracle_test;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::command::{Command, Refusal, Reply};
use crate::types::{Event, KeyValue};

pub(crate) use changes::{Changes, RecordId};
pub(crate) use lease::{LeaseRecord, Touched};
pub(crate) use record::Record;

use lease::Leases;

/// etcd's counter begins at 1, so the first change is at 2 and 0 is never a revision.
const REVISION_FIRST: u64 = 1;

/// A key that exists. The key itself is the map's; its lease is in [`Leases`].
#[derive(Clone, Debug)]
struct Current {
    value: Bytes,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    revision: u64,
    compacted: u64,
    keys: BTreeMap<Bytes, Current>,
    history: VecDeque<Arc<Event>>,
    /// The revisions of the deletions in `history`, by key.
    deletions: BTreeMap<Bytes, VecDeque<u64>>,
    leases: Leases,
    bytes: u64,
    history_bytes: u64,
    hash: u64,
    /// For the materialised state.
    dirty: Changes,
}

impl Default for State {
    fn default() -> State {
        State {
            revision: REVISION_FIRST,
            compacted: 0,
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            deletions: BTreeMap::new(),
            leases: Leases::default(),
            bytes: 0,
            history_bytes: 0,
            hash: 0,
            dirty: Changes::default(),
        }
    }
}

impl State {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Keys that exist.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of keys and values that exist.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of values that history alone keeps, and the weight of its records.
    pub(crate) fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    /// Sum of the hashes of all records; equal states have equal hashes.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Does one command. The changes it made are at the end of history, from index `history_len` before it.
    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        match command {
            Command::Txn(txn) => self.txn(txn),
            Command::Compact { revision } => match self.compact(*revision) {
                Ok(()) => Reply::Done { revision: self.revision },
                Err(refusal) => refusal.into(),
            },
            Command::Skip { revisions } => {
                self.revision = self.revision.saturating_add(*revisions);
                Reply::Done { revision: self.revision }
            }
            Command::LeaseGrant(lease) => self.lease_grant(lease),
            Command::LeaseRevoke { id } => self.lease_revoke(*id),
            Command::LeaseCheckpoint { remaining } => self.lease_checkpoint(remaining),
        }
    }

    /// A key that exists, with all that belongs to it.
    fn kv(&self, key: &Bytes, current: &Current) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: current.value.clone(),
            create_revision: current.create_revision,
            mod_revision: current.mod_revision,
            version: current.version,
            lease: self.leases.of(key),
        }
    }

    /// Drops the history before `revision`: reads and watches from there on stay possible.
    fn compact(&mut self, revision: u64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted { requested: revision, compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision { requested: revision, revision: self.revision });
        }
        self.compacted = revision;
        while self.history.front().is_some_and(|event| event.kv.mod_revision < revision) {
            let Some(event) = self.history.pop_front() else { break };
            self.history_bytes = self.history_bytes.saturating_sub(event_bytes(&event));
            for record in Record::superseded_by(&event) {
                self.hash = self.hash.wrapping_sub(record.hash());
                self.dirty.remove(&record);
            }
            if event.deleted
                && let Some(revisions) = self.deletions.get_mut(&event.kv.key)
            {
                revisions.pop_front();
                if revisions.is_empty() {
                    self.deletions.remove(&event.kv.key);
                }
            }
        }
        Ok(())
    }

    /// The changes with a revision of at least `revision`, in order.
    pub(crate) fn history_from(&self, revision: u64) -> impl Iterator<Item = &Arc<Event>> {
        let start = self.history.partition_point(|event| event.kv.mod_revision < revision);
        self.history.range(start..)
    }

    /// The revision at which history should begin for it to weigh about `bytes` less.
    pub(crate) fn revision_to_free(&self, bytes: u64) -> Option<u64> {
        let mut freed = 0;
        for event in &self.history {
            freed += event_bytes(event);
            if freed >= bytes {
                return Some(event.kv.mod_revision + 1).filter(|revision| *revision <= self.revision);
            }
        }
        None
    }

    /// A change at the current revision takes effect.
    fn change(&mut self, event: Event) {
        let event = Arc::new(event);
        let key = &event.kv.key;
        if let Some(prev) = &event.prev {
            self.bytes = self.bytes.saturating_sub(weight(&prev.key, &prev.value));
        }
        if event.deleted {
            self.keys.remove(key);
            self.deletions.entry(key.clone()).or_default().push_back(event.kv.mod_revision);
        } else {
            self.bytes += weight(key, &event.kv.value);
            let current = Current {
                value: event.kv.value.clone(),
                create_revision: event.kv.create_revision,
                mod_revision: event.kv.mod_revision,
                version: event.kv.version,
            };
            match self.keys.get_mut(key) {
                Some(slot) => *slot = current,
                None => {
                    self.keys.insert(key.clone(), current);
                }
            }
        }
        self.leases.attach(key, event.kv.lease);
        self.hash = self.hash.wrapping_add(Record::of(&event).hash());
        self.history_bytes += event_bytes(&event);
        self.dirty.put(&event);
        self.history.push_back(event);
    }
}

fn weight(key: &Bytes, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64
}

/// What an event keeps in memory that would else be free: its own weight and the value before it.
fn event_bytes(event: &Event) -> u64 {
    const EVENT_BYTES: u64 = 192;
    EVENT_BYTES + event.prev.as_ref().map_or(0, |prev| prev.value.len() as u64)
}
