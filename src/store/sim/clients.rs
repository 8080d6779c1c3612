//! Clients that read, write and watch through whichever member they find.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::history::{Alive, Call, End, History, Operation, Watched};
use crate::{Compare, Error, KeyRange, Op, OpOutcome, Put, Range, Store, Txn, WatchError, WatchRequest};

const KEYS: [&str; 4] = ["a", "a/1", "b", "c"];
/// A client gives up after so long.
const PATIENCE: Duration = Duration::from_secs(12);

/// The members that can be reached. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Stores {
    inner: Arc<Mutex<BTreeMap<String, Store>>>,
}

impl Stores {
    pub(super) fn add(&self, name: &str, store: Store) {
        self.inner.lock().insert(name.to_owned(), store);
    }

    pub(super) fn remove(&self, name: &str) {
        self.inner.lock().remove(name);
    }

    fn any(&self, random: &mut StdRng) -> Option<Store> {
        let inner = self.inner.lock();
        let stores: Vec<&Store> = inner.values().collect();
        if stores.is_empty() { None } else { Some(stores[random.random_range(0..stores.len())].clone()) }
    }
}

/// Does one operation after the other until it is told to stop.
pub(super) async fn client(number: u64, seed: u64, stores: Stores, history: History, stop: task::Shutdown) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut made = 0;
    let mut lease = 0;
    while !stop.is_cancelled() {
        sleep(Duration::from_millis(random.random_range(0..300))).await;
        let Some(store) = stores.any(&mut random) else { continue };
        if random.random_bool(0.05) {
            lease = grant(&store, random.random_range(1..1_000_000), &history).await.unwrap_or(lease);
        }
        if lease != 0 && random.random_bool(0.2) {
            keep_alive(&store, lease, &history).await;
        }
        if random.random_bool(0.05) {
            let revision = history.through().saturating_sub(random.random_range(0..30));
            let _ = tokio::time::timeout(PATIENCE, store.compact(revision)).await;
        }
        let key = KEYS[random.random_range(0..KEYS.len())];
        made += 1;
        let value = format!("{number}-{made}");
        let call = match random.random_range(0..10) {
            0..3 => Call::Put { value, lease: if random.random_bool(0.2) { lease } else { 0 } },
            3..6 => {
                let seen = store.range(&Range::all(KeyRange::key(key))).ok();
                let expected = seen.and_then(|seen| seen.kvs.first().map(|kv| kv.mod_revision)).unwrap_or(0);
                Call::Swap { expected, value }
            }
            6 => Call::Delete,
            _ => Call::Get,
        };
        let began = history.tick();
        let end = tokio::time::timeout(PATIENCE, perform(&store, key, &call)).await.unwrap_or(End::Unknown);
        let ended = history.tick();
        history.with(|inner| inner.operations.push(Operation { key, call, began, ended, end }));
    }
}

async fn perform(store: &Store, key: &'static str, call: &Call) -> End {
    let txn = match call {
        Call::Get => return get(store, key).await,
        Call::Put { value, lease } => {
            let put = Put { key: key.into(), value: value.clone().into(), lease: *lease, ..Put::default() };
            Txn { success: vec![Op::Put(put)], ..Txn::default() }
        }
        Call::Swap { expected, value } => {
            let compare = vec![Compare::mod_revision(key, *expected)];
            Txn { compare, ..Txn::put(key, value.clone()) }
        }
        Call::Delete => Txn::delete(KeyRange::key(key)),
    };
    match store.txn(txn).await {
        Ok(outcome) if !outcome.succeeded => End::NotSwapped { revision: outcome.revision },
        Ok(outcome) if matches!(outcome.responses[0], OpOutcome::Delete { deleted: 0, .. }) => {
            End::Found { revision: outcome.revision, kv: None }
        }
        Ok(outcome) => End::Written { revision: outcome.revision },
        Err(Error::Unknown | Error::Closed) => End::Unknown,
        Err(_) => End::Refused,
    }
}

async fn get(store: &Store, key: &'static str) -> End {
    if store.read_index().await.is_err() {
        return End::Refused;
    }
    match store.range(&Range::all(KeyRange::key(key))) {
        Ok(found) => {
            let kv = found.kvs.into_iter().next().map(|kv| (kv.value, kv.mod_revision));
            End::Found { revision: found.revision, kv }
        }
        Err(_) => End::Refused,
    }
}

async fn grant(store: &Store, id: i64, history: &History) -> Option<i64> {
    let at = Instant::now();
    let granted = tokio::time::timeout(PATIENCE, store.lease_grant(Some(id), 3)).await.ok()?.ok()?;
    let alive = Alive { lease: granted.id, at, ttl_seconds: granted.ttl_seconds };
    history.with(|inner| inner.alive.push(alive));
    Some(granted.id)
}

async fn keep_alive(store: &Store, lease: i64, history: &History) {
    let at = Instant::now();
    if let Ok(Ok(ttl_seconds)) = tokio::time::timeout(PATIENCE, store.lease_keep_alive(lease)).await {
        history.with(|inner| inner.alive.push(Alive { lease, at, ttl_seconds }));
    }
}

/// Watches through one member after the other, going on where it was.
pub(super) async fn watcher(seed: u64, stores: Stores, history: History, stop: task::Shutdown) {
    let mut random = StdRng::seed_from_u64(seed);
    let keys = [KeyRange::prefix("a"), KeyRange::prefix(""), KeyRange::key("b"), KeyRange::between("a/1", "c")];
    let keys = keys[random.random_range(0..keys.len())].clone();
    let mut seen = Watched { keys: keys.clone(), from: 2, through: 1, events: Vec::new() };
    while !stop.is_cancelled() {
        // Sometimes so long that what it has not seen is compacted.
        let away_ms = if random.random_bool(0.2) { 6_000 } else { 200 };
        sleep(Duration::from_millis(random.random_range(0..away_ms))).await;
        let Some(store) = stores.any(&mut random) else { continue };
        let request = WatchRequest { keys: keys.clone(), from_revision: Some(seen.through + 1) };
        let lost = match store.watch(request) {
            Ok(mut watching) => loop {
                let next = tokio::select! {
                    biased;
                    next = watching.next() => next,
                    () = stop.cancelled() => break false,
                };
                match next {
                    Ok(batch) => {
                        seen.through = batch.revision.max(seen.through);
                        seen.events.extend(batch.events);
                    }
                    Err(WatchError::Closed) => break false,
                    Err(WatchError::Compacted { .. } | WatchError::Lagged { .. }) => break true,
                }
                if random.random_bool(0.02) {
                    // Sometimes it tries another member.
                    break false;
                }
            },
            Err(Error::Compacted { .. }) => true,
            Err(_) => false,
        };
        if lost {
            // It was told; it begins anew with what there is.
            let from = store.revision().max(seen.through) + 1;
            let next = Watched { keys: keys.clone(), from, through: from - 1, events: Vec::new() };
            let before = std::mem::replace(&mut seen, next);
            history.with(|inner| inner.watched.push(before));
        }
    }
    history.with(|inner| inner.watched.push(seen));
}

/// Follows all there is, for the others to be compared with.
pub(super) async fn recorder(stores: Stores, history: History, stop: task::Shutdown) {
    let mut random = StdRng::seed_from_u64(0);
    while !stop.is_cancelled() {
        sleep(Duration::from_millis(20)).await;
        let Some(store) = stores.any(&mut random) else { continue };
        let from = history.through() + 1;
        let request = WatchRequest { keys: KeyRange::prefix(""), from_revision: Some(from) };
        let Ok(mut watching) = store.watch(request) else { continue };
        loop {
            let next = tokio::select! {
                biased;
                next = tokio::time::timeout(Duration::from_secs(1), watching.next()) => next,
                () = stop.cancelled() => return,
            };
            let Ok(Ok(batch)) = next else { break };
            history.with(|inner| {
                for event in batch.events {
                    let lease = event.prev.as_ref().filter(|_| event.deleted).map_or(0, |prev| prev.lease);
                    if lease != 0 {
                        inner.ends.push((lease, Instant::now()));
                    }
                    inner.events.entry(event.kv.mod_revision).or_default().push(event);
                }
            });
        }
    }
}

/// Follows who a member says that leads.
pub(super) async fn leaders(store: Store, history: History) {
    let mut leading = store.leading();
    let id = store.id();
    loop {
        let now = *leading.borrow_and_update();
        if now.here {
            history.with(|inner| inner.leaders.push((now.term, id)));
        }
        if leading.changed().await.is_err() {
            return;
        }
    }
}
