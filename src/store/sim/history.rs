//! What clients did and saw, and what the group says has happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::raft::Id;
use crate::{Event, KeyRange, LeaseId};

/// What a client asked for. Values are unique.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Put {
        value: String,
        lease: LeaseId,
    },
    /// Puts the value if the key's mod revision is this one.
    Swap {
        expected: u64,
        value: String,
    },
    Delete,
    Get,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// It was written at this revision.
    Written { revision: u64 },
    /// It found the key as it was at this revision: value and mod revision.
    Found { revision: u64, kv: Option<(Bytes, u64)> },
    /// At this revision the comparison did not hold.
    NotSwapped { revision: u64 },
    /// Certainly nothing was written.
    Refused,
    /// Nobody knows.
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) key: &'static str,
    pub(super) call: Call,
    /// Places in the order of all beginnings and ends.
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) end: End,
}

/// What one watcher saw, without interruption.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) keys: KeyRange,
    pub(super) from: u64,
    /// It has seen everything up to here.
    pub(super) through: u64,
    pub(super) events: Vec<Arc<Event>>,
}

#[derive(Clone, Debug)]
pub(super) struct Alive {
    pub(super) lease: LeaseId,
    /// When the client asked for what was then granted.
    pub(super) at: Instant,
    pub(super) ttl_seconds: i64,
}

/// Everything that is looked at in the end. Clones share it.
#[derive(Clone, Default)]
pub(super) struct History {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
pub(super) struct Inner {
    clock: u64,
    pub(super) operations: Vec<Operation>,
    pub(super) watched: Vec<Watched>,
    /// All events, by revision.
    pub(super) events: BTreeMap<u64, Vec<Arc<Event>>>,
    /// When the deletion of a key with a lease was first seen.
    pub(super) ends: Vec<(LeaseId, Instant)>,
    pub(super) alive: Vec<Alive>,
    /// Who said that it leads in which term.
    pub(super) leaders: Vec<(u64, Id)>,
}

impl History {
    /// The next place in the order of everything.
    pub(super) fn tick(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        inner.clock
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock())
    }

    /// The last revision of which all events are known.
    pub(super) fn through(&self) -> u64 {
        self.inner.lock().events.keys().next_back().copied().unwrap_or(1)
    }
}

impl Inner {
    /// The key's value and mod revision at a revision.
    pub(super) fn at(&self, key: &str, revision: u64) -> Option<(Bytes, u64)> {
        let past = self.events.range(..=revision).rev().flat_map(|(_, events)| events);
        let last = past.into_iter().find(|event| event.kv.key == key.as_bytes())?;
        (!last.deleted).then(|| (last.kv.value.clone(), last.kv.mod_revision))
    }
}
