//! Watchers: who is woken by which change, and what each of them reads when it wakes.
//!
//! A watcher has no queue. It remembers the first revision that holds something for it and reads the state's own
//! history from there, so an idle one costs a few hundred bytes and a slow one costs no more than an idle one.
//!
//! Invariants:
//! - Registering and reading happen under the state's read lock, marking under its write lock: no gap, no duplicate.
//! - `pending` is the first revision with an unread change in the watcher's range, or 0.
//! - A batch ends at the end of a revision.
//!
//! Limitations: a watcher that is slower than compaction ends with `Lagged`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

use crate::command::Refusal;
use crate::error::WatchError as Error;
use crate::raft::Applied;
use crate::state::{Changes, State, Touched};
use crate::types::{Event, KeyRange, WatchBatch, WatchRequest};

/// A batch ends with the first revision that makes it this long.
const BATCH_EVENTS: usize = 1_000;
/// Changes looked at before the state's lock is given back for a moment.
const SCAN_EVENTS: usize = 10_000;

/// The state with its watchers. The one way to change the state is [`Watched::change`].
pub(crate) struct Watched {
    state: RwLock<(State, Applied)>,
    hub: Mutex<Hub>,
    closed: AtomicBool,
    /// Told when leases came or went.
    leases: Notify,
}

/// Follows the changes in a range of keys. Dropping it ends it.
pub struct Watcher {
    watched: Arc<Watched>,
    slot: Arc<Slot>,
    id: u64,
    keys: KeyRange,
    /// Nothing before this revision is delivered.
    from: u64,
    live: bool,
}

/// Asks a watcher for a sign of progress, from another task than the one that reads it.
#[derive(Clone)]
pub struct WatchProgress {
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    pending: AtomicU64,
    progress: AtomicBool,
    wake: Notify,
}

/// Finds the watchers of a key without looking at all of them.
#[derive(Default)]
struct Hub {
    next_id: u64,
    keys: HashMap<Bytes, Vec<(u64, Arc<Slot>)>>,
    prefixes: HashMap<Bytes, Vec<(u64, Arc<Slot>)>>,
    /// How many watched prefixes have each length.
    prefix_lengths: BTreeMap<usize, usize>,
    others: Vec<(u64, KeyRange, Arc<Slot>)>,
}

impl Watched {
    pub(crate) fn new(state: State, applied: Applied) -> Arc<Watched> {
        Arc::new(Watched {
            state: RwLock::new((state, applied)),
            hub: Mutex::default(),
            closed: AtomicBool::new(false),
            leases: Notify::new(),
        })
    }

    pub(crate) fn read(&self) -> MappedRwLockReadGuard<'_, State> {
        RwLockReadGuard::map(self.state.read(), |(state, _)| state)
    }

    pub(crate) fn applied(&self) -> Applied {
        self.state.read().1.clone()
    }

    /// Reads the state together with how far the log is applied to it.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&State, &Applied) -> T) -> T {
        let held = self.state.read();
        read(&held.0, &held.1)
    }

    /// Changes the state and wakes the watchers of what changed, each once.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, &mut Applied) -> T) -> T {
        let mut woken: Vec<Arc<Slot>> = Vec::new();
        let result = {
            let mut held = self.state.write();
            let (state, applied) = &mut *held;
            let before = state.revision();
            let result = change(state, applied);
            let hub = self.hub.lock();
            if state.compacted() > before + 1 {
                // Many entries at once: some of the changes are compacted already, and nobody can say whose they were.
                let unread = before + 1;
                let idle = |slot: &Arc<Slot>| {
                    slot.pending.compare_exchange(0, unread, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                };
                woken.extend(hub.all().into_iter().filter(idle));
            }
            for event in state.history_from(before + 1) {
                hub.mark(event, &mut woken);
            }
            if state.leases_touched() {
                self.leases.notify_one();
            }
            result
        };
        for slot in woken {
            slot.wake.notify_one();
        }
        result
    }

    /// Takes what changed since this was last asked for, together with the state.
    pub(crate) fn take_changes<T>(&self, take: impl FnOnce(&State, &Applied, Changes) -> T) -> T {
        let mut held = self.state.write();
        let changes = held.0.take_changes();
        take(&held.0, &held.1, changes)
    }

    /// The last changes taken did not arrive.
    pub(crate) fn forget_changes(&self) {
        self.state.write().0.forget_changes();
    }

    /// Returns once leases came or went that [`Watched::take_touched_leases`] has not told of.
    pub(crate) async fn leases_touched(&self) {
        self.leases.notified().await;
    }

    pub(crate) fn take_touched_leases(&self) -> Touched {
        self.state.write().0.take_touched_leases()
    }

    /// Puts another state in the place of this one, as a snapshot from the leader does. Watchers that had not
    /// read what the new one no longer has will find out when they read.
    pub(crate) fn replace(&self, state: State, applied: Applied) {
        let woken = {
            let mut old = self.state.write();
            let unread = old.0.revision() + 1;
            *old = (state, applied);
            self.leases.notify_one();
            let hub = self.hub.lock();
            let all = hub.all();
            for slot in &all {
                let _ = slot.pending.compare_exchange(0, unread, Ordering::Relaxed, Ordering::Relaxed);
            }
            all
        };
        for slot in woken {
            slot.wake.notify_one();
        }
    }

    /// Ends all watchers.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for slot in self.hub.lock().all() {
            slot.wake.notify_one();
        }
    }

    pub(crate) fn watch(self: &Arc<Watched>, request: WatchRequest) -> Result<Watcher, Refusal> {
        let state = self.read();
        let from = request.from_revision.unwrap_or(state.revision() + 1).max(1);
        if from < state.compacted() {
            return Err(Refusal::Compacted { requested: from, compacted: state.compacted() });
        }
        let slot = Arc::new(Slot::default());
        let behind = from <= state.revision();
        if behind {
            slot.pending.store(from, Ordering::Relaxed);
            slot.wake.notify_one();
        }
        let id = self.hub.lock().add(&request.keys, slot.clone());
        drop(state);
        Ok(Watcher { watched: self.clone(), slot, id, keys: request.keys, from, live: !behind })
    }
}

impl Watcher {
    /// Waits for the next changes. It may be dropped while it waits; nothing is lost.
    pub async fn next(&mut self) -> Result<WatchBatch, Error> {
        loop {
            if self.watched.closed.load(Ordering::Acquire) {
                return Err(Error::Closed);
            }
            if let Some(batch) = self.read()? {
                return Ok(batch);
            }
            if self.slot.pending.load(Ordering::Relaxed) == 0 {
                self.slot.wake.notified().await;
            }
        }
    }

    /// A handle that makes [`Watcher::next`] return a batch, empty if need be, with a revision that is no older
    /// than the one at the time of the request (etcd: `WatchProgressRequest`).
    pub fn progress(&self) -> WatchProgress {
        WatchProgress { slot: self.slot.clone() }
    }

    /// Reads what is there, or `None` if that is nothing so far.
    fn read(&mut self) -> Result<Option<WatchBatch>, Error> {
        let state = self.watched.read();
        let pending = self.slot.pending.load(Ordering::Relaxed);
        let mut events = Vec::new();
        let mut through = state.revision();
        if pending != 0 {
            if pending.max(self.from) < state.compacted() {
                let compacted = state.compacted();
                return Err(if self.live { Error::Lagged { compacted } } else { Error::Compacted { compacted } });
            }
            let mut last = 0;
            for (looked_at, event) in state.history_from(pending).enumerate() {
                let revision = event.kv.mod_revision;
                if revision != last && (events.len() >= BATCH_EVENTS || looked_at >= SCAN_EVENTS) {
                    through = revision - 1;
                    break;
                }
                last = revision;
                if revision >= self.from && self.keys.contains(&event.kv.key) {
                    events.push(event.clone());
                }
            }
            let caught_up = through == state.revision();
            self.slot.pending.store(if caught_up { 0 } else { through + 1 }, Ordering::Relaxed);
            self.live |= caught_up;
        }
        let progress =
            self.slot.pending.load(Ordering::Relaxed) == 0 && self.slot.progress.swap(false, Ordering::Acquire);
        drop(state);
        Ok((progress || !events.is_empty()).then_some(WatchBatch { revision: through, events }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watched.hub.lock().remove(&self.keys, self.id);
    }
}

impl WatchProgress {
    pub fn request(&self) {
        self.slot.progress.store(true, Ordering::Release);
        self.slot.wake.notify_one();
    }
}

impl Hub {
    fn add(&mut self, keys: &KeyRange, slot: Arc<Slot>) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        if keys.end.is_none() {
            self.keys.entry(keys.start.clone()).or_default().push((id, slot));
        } else if keys.is_prefix() {
            *self.prefix_lengths.entry(keys.start.len()).or_default() += 1;
            self.prefixes.entry(keys.start.clone()).or_default().push((id, slot));
        } else {
            self.others.push((id, keys.clone(), slot));
        }
        id
    }

    fn remove(&mut self, keys: &KeyRange, id: u64) {
        let from = if keys.end.is_none() {
            &mut self.keys
        } else if keys.is_prefix() {
            if let Some(count) = self.prefix_lengths.get_mut(&keys.start.len()) {
                *count -= 1;
                if *count == 0 {
                    self.prefix_lengths.remove(&keys.start.len());
                }
            }
            &mut self.prefixes
        } else {
            self.others.retain(|(other, ..)| *other != id);
            return;
        };
        if let Some(slots) = from.get_mut(&keys.start) {
            slots.retain(|(other, _)| *other != id);
            if slots.is_empty() {
                from.remove(&keys.start);
            }
        }
    }

    /// All of them, in the order in which they came.
    fn all(&self) -> Vec<Arc<Slot>> {
        let keyed = self.keys.values().chain(self.prefixes.values()).flatten().cloned();
        let mut all: Vec<_> = keyed.chain(self.others.iter().map(|(id, _, slot)| (*id, slot.clone()))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Marks the watchers of an event's key; those that had nothing to read before are to be woken.
    fn mark(&self, event: &Event, woken: &mut Vec<Arc<Slot>>) {
        let key = &event.kv.key;
        let mut mark = |slot: &Arc<Slot>| {
            let revision = event.kv.mod_revision;
            if slot.pending.compare_exchange(0, revision, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                woken.push(slot.clone());
            }
        };
        if let Some(slots) = self.keys.get(key) {
            slots.iter().for_each(|(_, slot)| mark(slot));
        }
        for length in self.prefix_lengths.keys() {
            let Some(prefix) = key.get(..*length) else { break };
            if let Some(slots) = self.prefixes.get(prefix) {
                slots.iter().for_each(|(_, slot)| mark(slot));
            }
        }
        for (_, keys, slot) in &self.others {
            if keys.contains(key) {
                mark(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::types::Txn;

    #[tokio::test]
    async fn a_change_that_is_compacted_with_its_batch_is_told_of() {
        let watched = Watched::new(State::default(), Applied::default());
        let watch = |from: Option<u64>| {
            let request = WatchRequest { keys: KeyRange::key("a"), from_revision: from };
            watched.watch(request).ok().unwrap()
        };
        let (mut now, mut later) = (watch(None), watch(Some(4)));
        watched.change(|state, _| {
            for key in ["a", "b", "a"] {
                state.apply(&Command::Txn(Txn::put(key, "1")));
            }
            state.apply(&Command::Compact { revision: 4 });
        });
        assert_eq!(now.next().await.unwrap_err(), Error::Lagged { compacted: 4 });
        let batch = later.next().await.unwrap();
        assert_eq!((batch.revision, batch.events.len()), (4, 1), "who wanted only what is still there gets it");
    }
}
