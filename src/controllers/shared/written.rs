//! Whether the cache has caught up with a controller's own writes of an object.
//!
//! A controller that counts in an object's status must not decide by a status that it has since replaced: the update
//! would be refused as a conflict, but what was created on the way would be there.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Key, Object};
use parking_lot::Mutex;

/// The revisions of the last writes, per object. As many as there are objects that were written and still exist.
#[derive(Clone, Default)]
pub struct Written {
    at: Arc<Mutex<HashMap<Key, Write>>>,
}

struct Write {
    uid: Option<String>,
    revision: u64,
}

impl Written {
    /// `object` is as the API server answered to the write.
    pub fn wrote<T: Object>(&self, object: &T) {
        let meta = object.metadata();
        if let Some(revision) = revision(object) {
            self.at.lock().insert(Key::of(object), Write { uid: meta.uid.clone(), revision });
        }
    }

    /// False while `cached` is older than what was last written of the same object. The change that brings the cache up
    /// to date wakes the controller again.
    pub fn is_seen<T: Object>(&self, cached: &T) -> bool {
        let at = self.at.lock();
        let Some(write) = at.get(&Key::of(cached)) else { return true };
        write.uid != cached.metadata().uid || revision(cached).is_none_or(|revision| revision >= write.revision)
    }

    pub fn forget(&self, key: &Key) {
        self.at.lock().remove(key);
    }
}

/// Revisions of one resource are ordered (KEP-5504).
fn revision<T: Object>(object: &T) -> Option<u64> {
    object.metadata().resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn object(uid: &str, revision: &str) -> ConfigMap {
        let meta = json!({"namespace": "n", "name": "a", "uid": uid, "resourceVersion": revision});
        serde_json::from_value(json!({ "metadata": meta })).unwrap()
    }

    #[test]
    fn an_older_state_of_the_same_object_is_not_what_was_written() {
        let written = Written::default();
        assert!(written.is_seen(&object("1", "7")));
        written.wrote(&object("1", "10"));
        assert!(!written.is_seen(&object("1", "9")), "as numbers, not as texts");
        assert!(written.is_seen(&object("1", "10")) && written.is_seen(&object("1", "11")));
        assert!(written.is_seen(&object("2", "9")), "another object under the same name");
        written.forget(&Key::new("n", "a"));
        assert!(written.is_seen(&object("1", "9")));
    }
}
