//! Single objects in the store: each write is one transaction that compares the revision it was decided on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use api::Failure;
use bytes::Bytes;
use store::{Compare, Durability, KeyRange, Op, Range, Store, Txn};

use crate::cache::Stored;
use crate::encryption::{self, AtRest};
use crate::failures;
use crate::metrics::Metrics;

/// The objects in the store.
#[derive(Clone)]
pub struct Storage {
    store: Store,
    at_rest: AtRest,
    metrics: Arc<Metrics>,
}

impl Storage {
    pub fn new(store: Store, at_rest: AtRest, metrics: Arc<Metrics>) -> Storage {
        Storage { store, at_rest, metrics }
    }

    /// What stands between objects and the store.
    pub fn at_rest(&self) -> &AtRest {
        &self.at_rest
    }

    /// The newest state, no older than any write acknowledged before.
    pub async fn read(&self, key: &str, prefix_bytes: usize) -> Result<Option<Arc<Stored>>, Failure> {
        let work = async {
            self.store.read_index().await.map_err(|error| failures::of_store(&error))?;
            self.peek(key, prefix_bytes).await
        };
        self.timed("get", key.as_bytes(), work).await
    }

    /// The state as it is here, which may be older. A write that is decided on it fails if it was.
    pub async fn peek(&self, key: &str, prefix_bytes: usize) -> Result<Option<Arc<Stored>>, Failure> {
        let range = Range::all(KeyRange::key(key.to_owned()));
        let outcome = self.store.range(&range).map_err(|error| failures::of_store(&error))?;
        self.at_rest.prepare(outcome.kvs.iter()).await.map_err(|error| encryption::failure(&error))?;
        let Some(kv) = outcome.kvs.into_iter().next() else { return Ok(None) };
        let stored = self.at_rest.open(kv, prefix_bytes).map_err(|error| encryption::failure(&error))?;
        stored.map(Arc::new).map(Some).ok_or_else(|| Failure::internal(format!("{key} holds no object")))
    }

    /// The revision at which the object came to be; `None` if there is one already.
    pub async fn create(&self, key: Bytes, value: Bytes, durability: Durability) -> Result<Option<u64>, Failure> {
        let value = self.seal(&key, value)?;
        let compare = Compare::create_revision(key.clone(), 0);
        self.timed("create", &key.clone(), self.write(compare, Op::put(key, value), durability)).await
    }

    /// The new revision; `None` if the object is no longer at revision `from`.
    pub async fn replace(
        &self,
        key: Bytes,
        from: u64,
        value: Bytes,
        durability: Durability,
    ) -> Result<Option<u64>, Failure> {
        let value = self.seal(&key, value)?;
        let compare = Compare::mod_revision(key.clone(), from);
        self.timed("update", &key.clone(), self.write(compare, Op::put(key, value), durability)).await
    }

    /// The revision of the deletion; `None` if the object is no longer at revision `from`.
    pub async fn delete(&self, key: Bytes, from: u64, durability: Durability) -> Result<Option<u64>, Failure> {
        let delete = Op::delete(KeyRange::key(key.clone()));
        self.timed("delete", &key.clone(), self.write(Compare::mod_revision(key, from), delete, durability)).await
    }

    /// Counts the operation under the names that upstream has for etcd's.
    async fn timed<T>(
        &self,
        operation: &str,
        key: &[u8],
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let done = work.await;
        let (group, plural) = resource_of(key).unwrap_or_default();
        let set = self.metrics.storage.get([operation, group, plural]);
        set.figures.duration.observe_duration(began.elapsed());
        if done.is_err() {
            set.figures.errors.inc();
        }
        done
    }

    fn seal(&self, key: &Bytes, value: Bytes) -> Result<Bytes, Failure> {
        self.at_rest.seal(key, value).map_err(|error| encryption::failure(&error))
    }

    async fn write(&self, compare: Compare, op: Op, durability: Durability) -> Result<Option<u64>, Failure> {
        let txn = Txn { compare: vec![compare], success: vec![op], failure: Vec::new(), durability };
        let outcome = self.store.txn(txn).await.map_err(|error| failures::of_store(&error))?;
        Ok(outcome.succeeded.then_some(outcome.revision))
    }
}

/// Group and plural of a storage key: the built-in resource that has the prefix, or, as CustomResourceDefinitions
/// have it, `/registry/<group>/<plural>/…`.
pub fn resource_of(key: &[u8]) -> Option<(&str, &str)> {
    static BUILT_IN: std::sync::OnceLock<HashMap<String, (String, String)>> = std::sync::OnceLock::new();
    let built_in = BUILT_IN.get_or_init(|| {
        let stored = api::rows().iter().filter(|row| row.stored);
        stored
            .map(|row| {
                (row.list_key(None), (row.storage.group.clone().into_owned(), row.storage.plural.clone().into_owned()))
            })
            .collect()
    });
    let text = std::str::from_utf8(key).ok()?;
    let mut parts = text.strip_prefix("/registry/")?.split_inclusive('/');
    let (first, second) = (parts.next()?, parts.next().unwrap_or_default());
    let prefix = |bytes: usize| text.get(..bytes).and_then(|prefix| built_in.get(prefix));
    let one = "/registry/".len() + first.len();
    let found = prefix(one).or_else(|| prefix(one + second.len()));
    match found {
        Some((group, plural)) => Some((group, plural)),
        None => Some((first.strip_suffix('/')?, second.strip_suffix('/')?)),
    }
}
