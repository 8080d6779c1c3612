//! Single objects in the store: each write is one transaction that compares the revision it was decided on.

use std::sync::Arc;

use api::Failure;
use bytes::Bytes;
use store::{Compare, Durability, KeyRange, Op, Range, Store, Txn};

use crate::cache::Stored;
use crate::failures;

/// The objects in the store.
#[derive(Clone)]
pub struct Storage {
    store: Store,
}

impl Storage {
    pub fn new(store: Store) -> Storage {
        Storage { store }
    }

    /// The newest state, no older than any write acknowledged before.
    pub async fn read(&self, key: &str, prefix_bytes: usize) -> Result<Option<Arc<Stored>>, Failure> {
        self.store.read_index().await.map_err(|error| failures::of_store(&error))?;
        self.peek(key, prefix_bytes)
    }

    /// The state as it is here, which may be older. A write that is decided on it fails if it was.
    pub fn peek(&self, key: &str, prefix_bytes: usize) -> Result<Option<Arc<Stored>>, Failure> {
        let range = Range::all(KeyRange::key(key.to_owned()));
        let outcome = self.store.range(&range).map_err(|error| failures::of_store(&error))?;
        let Some(kv) = outcome.kvs.into_iter().next() else { return Ok(None) };
        let stored = Stored::new(kv.key, kv.value, kv.mod_revision, prefix_bytes);
        stored.map(Arc::new).map(Some).ok_or_else(|| Failure::internal(format!("{key} holds no object")))
    }

    /// The revision at which the object came to be; `None` if there is one already.
    pub async fn create(&self, key: Bytes, value: Bytes, durability: Durability) -> Result<Option<u64>, Failure> {
        self.write(Compare::CreateRevision(key.clone(), 0), Op::Put { key, value }, durability).await
    }

    /// The new revision; `None` if the object is no longer at revision `from`.
    pub async fn replace(
        &self,
        key: Bytes,
        from: u64,
        value: Bytes,
        durability: Durability,
    ) -> Result<Option<u64>, Failure> {
        self.write(Compare::ModRevision(key.clone(), from), Op::Put { key, value }, durability).await
    }

    /// The revision of the deletion; `None` if the object is no longer at revision `from`.
    pub async fn delete(&self, key: Bytes, from: u64, durability: Durability) -> Result<Option<u64>, Failure> {
        let delete = Op::Delete { range: KeyRange::key(key.clone()) };
        self.write(Compare::ModRevision(key, from), delete, durability).await
    }

    async fn write(&self, compare: Compare, op: Op, durability: Durability) -> Result<Option<u64>, Failure> {
        let txn = Txn { compare: vec![compare], success: vec![op], failure: Vec::new(), durability };
        let outcome = self.store.txn(txn).await.map_err(|error| failures::of_store(&error))?;
        Ok(outcome.succeeded.then_some(outcome.revision))
    }
}
