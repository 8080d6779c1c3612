//! Leases and the keys attached to them. When a lease ends is not decided here: the leader does that by its clock and
//! says so with a command (see `crate::lessor`).
//!
//! Invariants:
//! - `attached` has the keys that exist and have a lease, and no others; each is in its lease's `keys`.
//! - A state without leases pays nothing for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::{Refusal, Remaining, Reply};
use crate::types::{LEASES_MAX, Lease, LeaseId, NO_LEASE};

use super::State;

/// More leases than this that were touched are not told apart.
const TOUCHED_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: BTreeMap<LeaseId, Held>,
    attached: HashMap<Bytes, LeaseId>,
    touched: Touched,
}

/// A lease as it is kept.
#[derive(Debug)]
struct Held {
    ttl_seconds: i64,
    /// What the last leader said is left of it; 0 is all.
    remaining_seconds: i64,
    keys: BTreeSet<Bytes>,
}

/// A lease outside of memory. Which keys it has is said by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) id: LeaseId,
    pub(crate) ttl_seconds: i64,
    pub(crate) remaining_seconds: i64,
}

/// Leases that came or went since this was last asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    All,
    Some(Vec<LeaseId>),
}

impl Default for Touched {
    fn default() -> Touched {
        Touched::Some(Vec::new())
    }
}

impl Touched {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Touched::Some(ids) if ids.is_empty())
    }

    fn add(&mut self, id: LeaseId) {
        match self {
            Touched::Some(ids) if ids.len() < TOUCHED_MAX => ids.push(id),
            _ => *self = Touched::All,
        }
    }
}

impl Leases {
    pub(super) fn restored(records: &[LeaseRecord]) -> Leases {
        let leases = records.iter().map(|record| {
            let LeaseRecord { id, ttl_seconds, remaining_seconds } = *record;
            (id, Held { ttl_seconds, remaining_seconds, keys: BTreeSet::new() })
        });
        Leases { leases: leases.collect(), attached: HashMap::new(), touched: Touched::All }
    }

    /// The lease of a key that exists.
    pub(super) fn of(&self, key: &Bytes) -> LeaseId {
        if self.attached.is_empty() { NO_LEASE } else { self.attached.get(key).copied().unwrap_or(NO_LEASE) }
    }

    pub(super) fn exists(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// A key has this lease from now on, and no other one.
    pub(super) fn attach(&mut self, key: &Bytes, id: LeaseId) {
        if id == NO_LEASE && self.attached.is_empty() {
            return;
        }
        let before = if id == NO_LEASE { self.attached.remove(key) } else { self.attached.insert(key.clone(), id) };
        if before == Some(id) {
            return;
        }
        if let Some(held) = before.and_then(|before| self.leases.get_mut(&before)) {
            held.keys.remove(key);
        }
        if let Some(held) = self.leases.get_mut(&id) {
            held.keys.insert(key.clone());
        }
    }
}

impl State {
    pub(super) fn lease_grant(&mut self, lease: &Lease) -> Reply {
        let leases = &mut self.leases;
        if lease.id == NO_LEASE {
            return Refusal::LeaseNotFound { id: lease.id }.into();
        }
        if leases.exists(lease.id) {
            return Refusal::LeaseExists { id: lease.id }.into();
        }
        if leases.leases.len() >= LEASES_MAX {
            return Refusal::TooManyLeases.into();
        }
        let held = Held { ttl_seconds: lease.ttl_seconds, remaining_seconds: 0, keys: BTreeSet::new() };
        leases.leases.insert(lease.id, held);
        leases.touched.add(lease.id);
        Reply::Done { revision: self.revision }
    }

    /// Deletes the keys of the lease, if it has any, at one revision.
    pub(super) fn lease_revoke(&mut self, id: LeaseId) -> Reply {
        let Some(held) = self.leases.leases.remove(&id) else { return Refusal::LeaseNotFound { id }.into() };
        self.leases.touched.add(id);
        let revision = self.revision + 1;
        for key in &held.keys {
            self.delete_key(key, revision);
        }
        if !held.keys.is_empty() {
            self.revision = revision;
        }
        Reply::Done { revision: self.revision }
    }

    pub(super) fn lease_checkpoint(&mut self, remaining: &[Remaining]) -> Reply {
        for Remaining { id, seconds } in remaining {
            if let Some(held) = self.leases.leases.get_mut(id) {
                held.remaining_seconds = *seconds;
            }
        }
        Reply::Done { revision: self.revision }
    }

    pub(crate) fn lease(&self, id: LeaseId) -> Option<LeaseRecord> {
        let held = self.leases.leases.get(&id)?;
        Some(LeaseRecord { id, ttl_seconds: held.ttl_seconds, remaining_seconds: held.remaining_seconds })
    }

    /// The keys that go with a lease, in order.
    pub(crate) fn lease_keys(&self, id: LeaseId) -> impl Iterator<Item = &Bytes> {
        self.leases.leases.get(&id).into_iter().flat_map(|held| &held.keys)
    }

    /// All leases, in the order of their numbers.
    pub(crate) fn leases(&self) -> Vec<LeaseRecord> {
        self.leases.leases.keys().filter_map(|id| self.lease(*id)).collect()
    }

    pub(crate) fn leases_touched(&self) -> bool {
        !self.leases.touched.is_empty()
    }

    pub(crate) fn take_touched_leases(&mut self) -> Touched {
        std::mem::take(&mut self.leases.touched)
    }
}
