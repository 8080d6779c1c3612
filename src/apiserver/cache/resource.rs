//! The watch cache of one resource: every object as stored, and a window of what changed last.
//!
//! Invariants: objects and window change together under one lock; events lie in the window in revision order; all
//! events after [`Snapshot::revision`] that a watcher asks for are either in the window or the watcher is told that
//! they are gone. A watcher reads from the window at its own pace: it costs nothing but its position, and one that is
//! slower than the window is ended.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::object::Stored;

/// Events kept at most, and at least however much they weigh.
pub const WINDOW_EVENTS_MAX: usize = 16_384;
const WINDOW_EVENTS_MIN: usize = 256;
/// Beyond this weight the oldest events go.
const WINDOW_BYTES_MAX: usize = 8 << 20;
/// Events that a watcher takes at once.
const BATCH_EVENTS_MAX: usize = 256;

pub struct ResourceCache {
    prefix: Bytes,
    /// Objects that were there at first.
    filled_with: usize,
    state: RwLock<State>,
    /// How many events there have been; waking up is all it is for.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Bytes, Arc<Stored>>,
    /// What the objects weigh.
    objects_bytes: usize,
    window: VecDeque<Arc<Change>>,
    window_bytes: usize,
    /// Number of the window's first event, counted from the start.
    first: u64,
    /// Every event after this revision is in the window.
    complete_after: u64,
    /// The last event's revision, or that of the initial fill.
    revision: u64,
}

/// One event, as all watchers share it.
pub struct Change {
    pub revision: u64,
    pub deleted: bool,
    /// The object; after a deletion as it was last, at the deletion's revision.
    pub object: Arc<Stored>,
    pub previous: Option<Arc<Stored>>,
    frames: [OnceLock<Bytes>; 3],
    /// For watchers that take protobuf; most changes have none.
    protobuf_frames: OnceLock<Box<[OnceLock<Bytes>; 3]>>,
}

/// The objects at one moment.
pub struct Snapshot {
    pub objects: Vec<Arc<Stored>>,
    /// A watch from here on misses nothing.
    pub revision: u64,
}

/// A reader of the window.
pub struct Follower {
    cache: Arc<ResourceCache>,
    next: u64,
    changed: watch::Receiver<u64>,
}

/// The events that were asked for are no longer in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The window begins after this revision.
    pub complete_after: u64,
}

impl ResourceCache {
    pub(super) fn new(prefix: Bytes, objects: Vec<Stored>, revision: u64) -> Arc<ResourceCache> {
        let filled_with = objects.len();
        let objects_bytes = objects.iter().map(|stored| stored.value.len()).sum();
        let objects = objects.into_iter().map(|stored| (stored.key.clone(), Arc::new(stored))).collect();
        let state = State { objects, objects_bytes, complete_after: revision, revision, ..State::default() };
        Arc::new(ResourceCache { prefix, filled_with, state: RwLock::new(state), changed: watch::Sender::new(0) })
    }

    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The last change's revision: as long as it stays, what was derived from the objects stays right.
    pub fn revision(&self) -> u64 {
        self.state.read().revision
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Objects that were there when the cache was filled.
    pub fn filled_with(&self) -> usize {
        self.filled_with
    }

    /// Events since then.
    pub fn events(&self) -> u64 {
        *self.changed.borrow()
    }

    /// What the objects weigh together.
    pub fn bytes(&self) -> usize {
        self.state.read().objects_bytes
    }

    /// Those who follow the changes, watches of clients among them.
    pub fn watchers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// `path` is `namespace/name`, or the name.
    pub fn get(&self, path: &str) -> Option<Arc<Stored>> {
        self.state.read().objects.get(&self.key(path)).cloned()
    }

    /// The objects of a namespace, or all; `reached` is a revision known to be applied.
    pub fn snapshot(&self, namespace: Option<&str>, reached: u64) -> Snapshot {
        let state = self.state.read();
        Snapshot { objects: self.select(&state, namespace), revision: state.revision.max(reached) }
    }

    pub fn objects(&self, namespace: Option<&str>) -> Vec<Arc<Stored>> {
        self.select(&self.state.read(), namespace)
    }

    /// Follows what changes after `revision`.
    pub fn follow(self: &Arc<Self>, revision: u64) -> Result<Follower, TooOld> {
        let state = self.state.read();
        if revision < state.complete_after {
            return Err(TooOld { complete_after: state.complete_after });
        }
        let skipped = state.window.partition_point(|change| change.revision <= revision);
        let next = state.first + skipped as u64;
        Ok(Follower { cache: self.clone(), next, changed: self.changed.subscribe() })
    }

    /// A snapshot and everything after it.
    pub fn snapshot_and_follow(self: &Arc<Self>, namespace: Option<&str>, reached: u64) -> (Snapshot, Follower) {
        let state = self.state.read();
        let snapshot = Snapshot { objects: self.select(&state, namespace), revision: state.revision.max(reached) };
        let next = state.first + state.window.len() as u64;
        (snapshot, Follower { cache: self.clone(), next, changed: self.changed.subscribe() })
    }

    /// Applies changes in their order; all of a revision must come in one call. A change without an object is a
    /// deletion.
    pub(super) fn apply(&self, changes: impl IntoIterator<Item = (Bytes, u64, Option<Stored>)>) {
        let mut state = self.state.write();
        for (key, revision, object) in changes {
            state.change(key, revision, object);
        }
        let count = state.first + state.window.len() as u64;
        drop(state);
        self.changed.send_replace(count);
    }

    /// Brings the objects to what they are at `revision`, with one change for each that differs.
    pub(super) fn replace(&self, objects: Vec<Stored>, revision: u64) {
        let mut next: BTreeMap<Bytes, Stored> =
            objects.into_iter().map(|stored| (stored.key.clone(), stored)).collect();
        let mut changes = Vec::new();
        for (key, known) in &self.state.read().objects {
            match next.remove(key) {
                Some(stored) if stored.mod_revision == known.mod_revision => {}
                Some(stored) => changes.push((key.clone(), stored.mod_revision, Some(stored))),
                None => changes.push((key.clone(), revision, None)),
            }
        }
        changes.extend(next.into_iter().map(|(key, stored)| (key, stored.mod_revision, Some(stored))));
        changes.sort_by_key(|(_, revision, _)| *revision);
        self.apply(changes);
    }

    fn key(&self, path: &str) -> Bytes {
        let mut key = Vec::with_capacity(self.prefix.len() + path.len());
        key.put_slice(&self.prefix);
        key.put_slice(path.as_bytes());
        Bytes::from(key)
    }

    fn select(&self, state: &State, namespace: Option<&str>) -> Vec<Arc<Stored>> {
        match namespace {
            None => state.objects.values().cloned().collect(),
            Some(namespace) => {
                let start = self.key(&format!("{namespace}/"));
                let bounds = (Bound::Included(start.clone()), Bound::Unbounded);
                let range = state.objects.range::<Bytes, _>(bounds);
                range.take_while(|(key, _)| key.starts_with(&start)).map(|(_, stored)| stored.clone()).collect()
            }
        }
    }
}

impl State {
    fn change(&mut self, key: Bytes, revision: u64, object: Option<Stored>) {
        let (object, previous, deleted) = match object {
            Some(object) => {
                let object = Arc::new(object);
                let previous = self.objects.insert(key, object.clone());
                (object, previous, false)
            }
            None => {
                let Some(previous) = self.objects.remove(&key) else { return };
                (Arc::new(previous.at(revision)), Some(previous), true)
            }
        };
        if !deleted {
            self.objects_bytes += object.value.len();
        }
        self.objects_bytes -= previous.as_ref().map_or(0, |previous| previous.value.len());
        self.revision = revision;
        self.window_bytes += object.value.len();
        let change = Change {
            revision,
            deleted,
            object,
            previous,
            frames: [const { OnceLock::new() }; 3],
            protobuf_frames: OnceLock::new(),
        };
        self.window.push_back(Arc::new(change));
        while self.window.len() > WINDOW_EVENTS_MAX
            || (self.window_bytes > WINDOW_BYTES_MAX && self.window.len() > WINDOW_EVENTS_MIN)
        {
            let Some(oldest) = self.window.pop_front() else { break };
            self.window_bytes -= oldest.object.value.len();
            self.first += 1;
            self.complete_after = oldest.revision;
        }
    }
}

impl Change {
    /// `{"type":"ADDED","object":…}` and a line feed; made once for all watchers.
    pub fn frame(&self, kind: api::EventKind) -> Bytes {
        let (at, name) = place(kind);
        self.frames[at].get_or_init(|| frame(name, &self.object)).clone()
    }

    /// The event in protobuf, which `make` makes; made once for all watchers.
    pub fn protobuf_frame(&self, kind: api::EventKind, make: impl FnOnce() -> Bytes) -> Bytes {
        let frames = self.protobuf_frames.get_or_init(Box::default);
        frames[place(kind).0].get_or_init(make).clone()
    }
}

fn place(kind: api::EventKind) -> (usize, &'static str) {
    match kind {
        api::EventKind::Added => (0, "ADDED"),
        api::EventKind::Modified => (1, "MODIFIED"),
        api::EventKind::Deleted | api::EventKind::Bookmark => (2, "DELETED"),
    }
}

/// A watch event's bytes on the wire.
pub fn frame(kind: &str, object: &Stored) -> Bytes {
    let mut out = Vec::with_capacity(object.served_bytes_max() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    object.write(&mut out);
    out.put_slice(b"}\n");
    Bytes::from(out)
}

impl Follower {
    /// Changes that are there already; empty when none are.
    pub fn ready(&mut self) -> Result<Vec<Arc<Change>>, TooOld> {
        let state = self.cache.state.read();
        let Some(at) = self.next.checked_sub(state.first) else {
            return Err(TooOld { complete_after: state.complete_after });
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let changes: Vec<_> = state.window.iter().skip(at).take(BATCH_EVENTS_MAX).cloned().collect();
        self.next += changes.len() as u64;
        Ok(changes)
    }

    /// The next changes, at least one.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, TooOld> {
        loop {
            self.changed.borrow_and_update();
            let changes = self.ready()?;
            if !changes.is_empty() {
                return Ok(changes);
            }
            if self.changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, revision: u64) -> Stored {
        let value = format!(r#"{{"kind":"X","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        Stored::new(format!("/registry/x/{name}").into(), value.into(), revision, "/registry/x/".len()).unwrap()
    }

    fn put(cache: &ResourceCache, name: &str, revision: u64) {
        let object = stored(name, revision);
        cache.apply([(object.key.clone(), revision, Some(object))]);
    }

    fn seen(changes: &[Arc<Change>]) -> Vec<(String, u64, bool)> {
        changes.iter().map(|one| (one.object.path().to_owned(), one.revision, one.deleted)).collect()
    }

    #[tokio::test]
    async fn a_follower_sees_what_comes_after_its_revision() {
        let cache = ResourceCache::new("/registry/x/".into(), vec![stored("a", 3)], 5);
        assert_eq!(cache.follow(4).err(), Some(TooOld { complete_after: 5 }));
        put(&cache, "b", 6);
        put(&cache, "a", 7);
        let mut follower = cache.follow(6).unwrap();
        cache.apply([("/registry/x/b".into(), 8, None), ("/registry/x/none".into(), 9, None)]);
        let changes = follower.next().await.unwrap();
        assert_eq!(seen(&changes), [("a".into(), 7, false), ("b".into(), 8, true)]);
        assert_eq!(changes[1].object.mod_revision, 8, "a deletion shows the object at its own revision");
        assert_eq!(cache.snapshot(None, 0).objects.len(), 1);
        assert_eq!(cache.bytes(), stored("a", 7).value.len());
        assert!(follower.ready().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_follower_that_is_too_slow_is_told() {
        let cache = ResourceCache::new("/registry/x/".into(), Vec::new(), 0);
        let mut slow = cache.follow(0).unwrap();
        for revision in 1..=WINDOW_EVENTS_MAX as u64 + 1 {
            put(&cache, "a", revision);
        }
        assert_eq!(slow.next().await.err(), Some(TooOld { complete_after: 1 }));
        assert_eq!(cache.follow(1).unwrap().next().await.unwrap().len(), BATCH_EVENTS_MAX);
    }

    #[tokio::test]
    async fn what_was_missed_appears_as_one_change_each() {
        let cache = ResourceCache::new("/registry/x/".into(), vec![stored("a", 1), stored("b", 2), stored("c", 3)], 3);
        let mut follower = cache.follow(3).unwrap();
        cache.replace(vec![stored("b", 2), stored("c", 9), stored("d", 7)], 10);
        let changes = follower.next().await.unwrap();
        assert_eq!(seen(&changes), [("d".into(), 7, false), ("c".into(), 9, false), ("a".into(), 10, true)]);
    }
}
