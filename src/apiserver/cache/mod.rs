//! The watch cache: what the store holds, by resource, in the store's own bytes.
//!
//! One task follows the store and hands each change to its resource. [`Cache::revision`] says how far it has come; a
//! consistent read asks the store for its read index and waits until the cache has reached it.

mod object;
mod resource;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use api::{Failure, Reason};
use bytes::Bytes;
use parking_lot::RwLock;
use store::{KeyRange, Range, Store, WatchRequest};
use tokio::sync::watch;

pub use object::{Attributes, Stored, encode};
pub use resource::{Change, Follower, ResourceCache, TooOld, frame};

/// How long a consistent read waits for the cache (upstream waits 3 s and then tells the client to try again).
const WAIT_MAX: Duration = Duration::from_secs(3);

pub struct Cache {
    store: Store,
    resources: RwLock<BTreeMap<Bytes, Arc<ResourceCache>>>,
    progress: watch::Sender<u64>,
}

/// A key, the revision of its change, and the object unless it is gone.
type Applied = (Bytes, u64, Option<Stored>);

/// The cache lost the store's watch and must be filled anew.
#[derive(Debug, thiserror::Error)]
#[error("the store's changes are not to be had")]
pub struct Lost(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Cache {
    /// Fills a cache for resources whose keys have these prefixes.
    pub fn fill(store: Store, prefixes: impl IntoIterator<Item = Bytes>) -> Result<Arc<Cache>, store::Error> {
        let revision = store.revision();
        let mut resources = BTreeMap::new();
        for prefix in prefixes {
            let objects = read(&store, &prefix, revision)?;
            resources.insert(prefix.clone(), ResourceCache::new(prefix, objects, revision));
        }
        Ok(Arc::new(Cache { store, resources: RwLock::new(resources), progress: watch::Sender::new(revision) }))
    }

    /// Adds a resource that appeared; one that is here already stays as it is.
    pub fn add(&self, prefix: Bytes) -> Result<(), store::Error> {
        // While this is held nothing is applied, so that what is read is what the cache has come to.
        let mut resources = self.resources.write();
        if resources.contains_key(&prefix) {
            return Ok(());
        }
        let revision = self.revision();
        let objects = read(&self.store, &prefix, revision)?;
        resources.insert(prefix.clone(), ResourceCache::new(prefix, objects, revision));
        Ok(())
    }

    /// Forgets a resource that is no more.
    pub fn remove(&self, prefix: &[u8]) {
        self.resources.write().remove(prefix);
    }

    /// Follows the store until it closes.
    pub async fn run(&self) -> Result<(), Lost> {
        if self.store.status().compacted > self.revision() {
            self.catch_up().map_err(|error| Lost(error.into()))?;
        }
        let from_revision = Some(self.revision() + 1);
        let request = WatchRequest { keys: KeyRange::prefix(Bytes::new()), from_revision };
        let mut watcher = self.store.watch(request).map_err(|error| Lost(error.into()))?;
        loop {
            let batch = match watcher.next().await {
                Ok(batch) => batch,
                Err(store::WatchError::Closed) => return Ok(()),
                Err(error) => return Err(Lost(error.into())),
            };
            let resources = self.resources.read();
            let mut by_resource: BTreeMap<&Bytes, (&Arc<ResourceCache>, Vec<Applied>)> = BTreeMap::new();
            for event in &batch.events {
                let Some(resource) = of_key(&resources, &event.kv.key) else { continue };
                let object = (!event.deleted)
                    .then(|| {
                        let kv = &event.kv;
                        Stored::new(kv.key.clone(), kv.value.clone(), kv.mod_revision, resource.prefix().len())
                    })
                    .flatten();
                if !event.deleted && object.is_none() {
                    tracing::error!(key = %String::from_utf8_lossy(&event.kv.key), "not an object; it is not served");
                    continue;
                }
                let changes = &mut by_resource.entry(resource.prefix()).or_insert_with(|| (resource, Vec::new())).1;
                changes.push((event.kv.key.clone(), event.kv.mod_revision, object));
            }
            for (resource, changes) in by_resource.into_values() {
                resource.apply(changes);
            }
            self.progress.send_replace(batch.revision);
        }
    }

    /// Takes over what the store holds when the history in between is gone: what changed appears as one change each.
    fn catch_up(&self) -> Result<(), store::Error> {
        let revision = self.store.revision();
        for (prefix, resource) in self.resources.read().iter() {
            resource.replace(read(&self.store, prefix, revision)?, revision);
        }
        tracing::warn!(revision, "the watch cache fell behind the store's history and was filled anew");
        self.progress.send_replace(revision);
        Ok(())
    }

    /// How far the cache has come.
    pub fn revision(&self) -> u64 {
        *self.progress.borrow()
    }

    /// The cache of the resource whose keys begin with `prefix`.
    pub fn resource(&self, prefix: &[u8]) -> Option<Arc<ResourceCache>> {
        self.resources.read().get(prefix).cloned()
    }

    /// Waits until everything up to `revision` is in the cache.
    pub async fn reach(&self, revision: u64) -> Result<(), Failure> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let reached = tokio::time::timeout(WAIT_MAX, progress.wait_for(|reached| *reached >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failure::new(Reason::ServiceUnavailable, "the server is stopping")),
            Err(_) => {
                let message = format!("Too large resource version: {revision}, current: {}", self.revision());
                let mut failure = Failure::new(Reason::Timeout, message);
                failure.details_mut().retry_after_seconds = 1;
                failure.details_mut().causes.push(api::Cause {
                    reason: "ResourceVersionTooLarge".to_owned(),
                    message: "Too large resource version".to_owned(),
                    field: String::new(),
                });
                Err(failure)
            }
        }
    }
}

fn of_key<'a>(resources: &'a BTreeMap<Bytes, Arc<ResourceCache>>, key: &[u8]) -> Option<&'a Arc<ResourceCache>> {
    let (prefix, resource) = resources.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
    key.starts_with(prefix).then_some(resource)
}

fn read(store: &Store, prefix: &Bytes, revision: u64) -> Result<Vec<Stored>, store::Error> {
    let range = Range { revision: Some(revision), ..Range::all(KeyRange::prefix(prefix.clone())) };
    let outcome = store.range(&range)?;
    let objects = outcome.kvs.into_iter().filter_map(|kv| {
        let stored = Stored::new(kv.key.clone(), kv.value, kv.mod_revision, prefix.len());
        if stored.is_none() {
            tracing::error!(key = %String::from_utf8_lossy(&kv.key), "not an object; it is not served");
        }
        stored
    });
    Ok(objects.collect())
}
