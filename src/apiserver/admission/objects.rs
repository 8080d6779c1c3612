//! What plugins know of the cluster's objects: each is read once for each of its revisions, whoever asks how often.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::Value;

use crate::cache::{Cache, ResourceCache, Stored};

/// Readings that are kept; beyond that all are forgotten and read anew when they are asked for.
const READINGS_MAX: usize = 8192;

/// The objects of one resource in the form in which a plugin works with them.
pub struct Objects<T> {
    resource: Option<Arc<ResourceCache>>,
    read: fn(&Value) -> T,
    /// By key, with the revision that was read.
    readings: RwLock<HashMap<Bytes, (u64, Arc<T>)>>,
}

impl<T> Objects<T> {
    /// `prefix` is the resource's, as `/registry/namespaces/`.
    pub fn new(cache: &Cache, prefix: &str, read: fn(&Value) -> T) -> Objects<T> {
        Objects { resource: cache.resource(prefix.as_bytes()), read, readings: RwLock::default() }
    }

    /// There are none in the whole cluster.
    pub fn is_empty(&self) -> bool {
        self.resource.as_ref().is_none_or(|resource| resource.len() == 0)
    }

    /// `path` is `namespace/name`, or the name.
    pub fn get(&self, path: &str) -> Option<Arc<T>> {
        self.of(self.resource.as_ref()?.get(path)?.as_ref())
    }

    /// All objects, or those in a namespace, by name.
    pub fn all(&self, namespace: Option<&str>) -> Vec<Arc<T>> {
        self.stored(namespace).iter().filter_map(|stored| self.of(stored)).collect()
    }

    /// The same, as they are stored.
    pub fn stored(&self, namespace: Option<&str>) -> Vec<Arc<Stored>> {
        match &self.resource {
            Some(resource) if !self.is_empty() => resource.objects(namespace),
            _ => Vec::new(),
        }
    }

    /// The reading of an object, also of one that is newer than the cache's.
    pub fn of(&self, stored: &Stored) -> Option<Arc<T>> {
        if let Some((revision, reading)) = self.readings.read().get(&stored.key)
            && *revision == stored.mod_revision
        {
            return Some(reading.clone());
        }
        let object: Value = serde_json::from_slice(&stored.value).ok()?;
        let reading = Arc::new((self.read)(&object));
        let mut readings = self.readings.write();
        if readings.len() >= READINGS_MAX {
            readings.clear();
        }
        readings.insert(stored.key.clone(), (stored.mod_revision, reading.clone()));
        Some(reading)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use api::Fields;
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    static READ: AtomicUsize = AtomicUsize::new(0);

    fn value(object: &Value) -> String {
        READ.fetch_add(1, Ordering::Relaxed);
        object.part("data").text("v").to_owned()
    }

    #[tokio::test]
    async fn an_object_is_read_once_for_each_revision() {
        let t = Fixture::start().await;
        let objects = Objects::new(t.server.cache(), "/registry/configmaps/", value);
        let map = |v: &str| json!({"metadata": {"name": "a"}, "data": {"v": v}});
        t.create("", "configmaps", map("1")).await.unwrap();
        t.catch_up().await;
        let first = objects.get("default/a").unwrap();
        assert!(Arc::ptr_eq(&first, &objects.all(Some("default"))[0]));
        assert_eq!((first.as_str(), READ.load(Ordering::Relaxed)), ("1", 1));
        t.update("", "configmaps/a", map("2")).await.unwrap();
        t.catch_up().await;
        assert_eq!(objects.get("default/a").unwrap().as_str(), "2");
        assert!(objects.all(Some("other")).is_empty() && !objects.is_empty());
    }
}
