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
use store::{KeyRange, KeyValue, Range, Store, WatchRequest};
use tokio::sync::watch;

use crate::encryption::{AtRest, EncryptionError};

pub use object::{Attributes, Stored, encode};
pub use resource::{Change, Follower, ResourceCache, TooOld, WINDOW_EVENTS_MAX, frame};

/// How long a consistent read waits for the cache (upstream waits 3 s and then tells the client to try again).
const WAIT_MAX: Duration = Duration::from_secs(3);

pub struct Cache {
    store: Store,
    at_rest: AtRest,
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
    pub async fn fill(
        store: Store,
        at_rest: AtRest,
        prefixes: impl IntoIterator<Item = Bytes>,
    ) -> Result<Arc<Cache>, FillError> {
        let revision = store.revision();
        prepare(&store, &at_rest, revision).await?;
        let mut resources = BTreeMap::new();
        for prefix in prefixes {
            let objects = read(&store, &at_rest, &prefix, revision)?;
            resources.insert(prefix.clone(), ResourceCache::new(prefix, objects, revision));
        }
        Ok(Arc::new(Cache {
            store,
            at_rest,
            resources: RwLock::new(resources),
            progress: watch::Sender::new(revision),
        }))
    }

    /// Adds a resource that appeared; one that is here already stays as it is.
    pub fn add(&self, prefix: Bytes) -> Result<(), store::Error> {
        // While this is held nothing is applied, so that what is read is what the cache has come to.
        let mut resources = self.resources.write();
        if resources.contains_key(&prefix) {
            return Ok(());
        }
        let revision = self.revision();
        let objects = read(&self.store, &self.at_rest, &prefix, revision)?;
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
            self.catch_up().await.map_err(|error| Lost(error.into()))?;
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
            let values = batch.events.iter().filter(|event| !event.deleted).map(|event| &event.kv);
            self.at_rest.prepare(values).await.map_err(|error| Lost(error.into()))?;
            let resources = self.resources.read();
            let mut by_resource: BTreeMap<&Bytes, (&Arc<ResourceCache>, Vec<Applied>)> = BTreeMap::new();
            for event in &batch.events {
                let Some(resource) = of_key(&resources, &event.kv.key) else { continue };
                let object = (!event.deleted)
                    .then(|| opened(&self.at_rest, event.kv.clone(), resource.prefix().len()))
                    .flatten();
                if !event.deleted && object.is_none() {
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
    async fn catch_up(&self) -> Result<(), FillError> {
        let revision = self.store.revision();
        prepare(&self.store, &self.at_rest, revision).await?;
        // While this is held no resource is added, which would be at the revision that is left behind.
        let resources = self.resources.read();
        for (prefix, resource) in resources.iter() {
            resource.replace(read(&self.store, &self.at_rest, prefix, revision)?, revision);
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
                let message = format!("Timeout: Too large resource version: {revision}, current: {}", self.revision());
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

/// A resource's objects cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error("the store refuses")]
    Store(#[from] store::Error),
    #[error("what the store holds cannot be decrypted")]
    Encryption(#[from] EncryptionError),
}

fn range(prefix: &Bytes, revision: u64) -> Range {
    Range { revision: Some(revision), ..Range::all(KeyRange::prefix(prefix.clone())) }
}

/// To be awaited before anything is read: a KMS plugin may have to be asked. What it was once asked is known; changes
/// are prepared as they come, of all resources, so that one that is added later can be read.
async fn prepare(store: &Store, at_rest: &AtRest, revision: u64) -> Result<(), FillError> {
    if at_rest.asks_others() {
        at_rest.prepare(store.range(&range(&Bytes::new(), revision))?.kvs.iter()).await?;
    }
    Ok(())
}

fn read(store: &Store, at_rest: &AtRest, prefix: &Bytes, revision: u64) -> Result<Vec<Stored>, store::Error> {
    let outcome = store.range(&range(prefix, revision))?;
    Ok(outcome.kvs.into_iter().filter_map(|kv| opened(at_rest, kv, prefix.len())).collect())
}

/// What cannot be read is not served; what asks for it by name is told why.
fn opened(at_rest: &AtRest, kv: KeyValue, prefix_bytes: usize) -> Option<Stored> {
    let key = kv.key.clone();
    let stored = at_rest.open(kv, prefix_bytes);
    match &stored {
        Ok(Some(_)) => {}
        Ok(None) => tracing::error!(key = %String::from_utf8_lossy(&key), "not an object; it is not served"),
        Err(error) => tracing::error!(key = %String::from_utf8_lossy(&key), %error, "it is not served"),
    }
    stored.ok().flatten()
}
