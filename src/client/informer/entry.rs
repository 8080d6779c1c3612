//! An object in an informer: its bytes, what of its metadata is asked for often, and itself while it is at hand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use api::Encoded;
use parking_lot::Mutex;
use serde::Deserialize;

use super::Key;
use crate::Object;

/// Decoded objects are kept until those decoded after them come from this many bytes; then they are decoded again when
/// they are asked for. All of a small cluster's objects fit.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What can be asked of an object without decoding it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    labels: Box<[(Box<str>, Box<str>)]>,
    controller: Option<Box<str>>,
}

pub(super) struct Entry<T> {
    object: Encoded,
    pub(super) resource_version: Box<str>,
    pub(super) meta: Meta,
    decoded: Mutex<Option<Arc<T>>>,
}

/// Which entries hold their object decoded, the oldest first.
pub(super) struct Decoded<T> {
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    entries: VecDeque<Weak<Entry<T>>>,
    /// What the bytes of these entries weigh, each with its own weight, as an entry may be gone.
    weights: VecDeque<usize>,
    bytes: usize,
}

/// `metadata`, as far as an informer looks at it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    namespace: String,
    name: String,
    #[serde(default)]
    resource_version: Box<str>,
    #[serde(default)]
    labels: Option<BTreeMap<Box<str>, Box<str>>>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    controller: Option<bool>,
}

impl Meta {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(one, _)| &**one == key).map(|(_, value)| &**value)
    }

    /// In the order of their keys.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The uid of the owner that controls the object.
    pub fn controller(&self) -> Option<&str> {
        self.controller.as_deref()
    }
}

impl<T: Object> Entry<T> {
    pub(super) fn new(object: Encoded) -> Result<(Key, Arc<Entry<T>>), serde_json::Error> {
        let head: Head = object.metadata()?;
        let owners = head.owner_references.unwrap_or_default();
        let meta = Meta {
            labels: head.labels.into_iter().flatten().collect(),
            controller: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid),
        };
        let resource_version = match object.resource_version {
            Some(version) => version.to_string().into(),
            None => head.resource_version,
        };
        let entry = Entry { object, resource_version, meta, decoded: Mutex::new(None) };
        Ok((Key { namespace: head.namespace, name: head.name }, Arc::new(entry)))
    }

    fn decode(&self) -> Result<T, serde_json::Error> {
        let mut object: T = self.object.decode()?;
        let metadata = object.metadata_mut();
        metadata.managed_fields = None;
        metadata.resource_version = Some(self.resource_version.to_string());
        Ok(object)
    }
}

impl<T> Default for Decoded<T> {
    fn default() -> Decoded<T> {
        Decoded { kept: Mutex::new(Kept { entries: VecDeque::new(), weights: VecDeque::new(), bytes: 0 }) }
    }
}

impl<T: Object> Decoded<T> {
    /// The object; `None`, with a word in the log, if its bytes are not of this type.
    pub(super) fn get(&self, entry: &Arc<Entry<T>>) -> Option<Arc<T>> {
        let mut slot = entry.decoded.lock();
        if let Some(object) = &*slot {
            return Some(object.clone());
        }
        let object = match entry.decode() {
            Ok(object) => Arc::new(object),
            Err(error) => {
                tracing::error!(kind = T::KIND, %error, "the API server sent an object that is none");
                return None;
            }
        };
        *slot = Some(object.clone());
        drop(slot);
        self.keep(entry);
        Some(object)
    }

    fn keep(&self, entry: &Arc<Entry<T>>) {
        let mut let_go = Vec::new();
        let mut kept = self.kept.lock();
        let weight = entry.object.json.len();
        kept.bytes += weight;
        kept.entries.push_back(Arc::downgrade(entry));
        kept.weights.push_back(weight);
        while kept.bytes > KEPT_BYTES_MAX && kept.entries.len() > 1 {
            kept.bytes -= kept.weights.pop_front().unwrap_or_default();
            let_go.extend(kept.entries.pop_front().and_then(|oldest| oldest.upgrade()));
        }
        drop(kept);
        // Freeing takes a while; nobody should wait for it.
        for entry in let_go {
            entry.decoded.lock().take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn entry(name: &str, bytes: usize) -> Arc<Entry<ConfigMap>> {
        let json = format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"namespace":"a","name":"{name}","labels":{{"b":"2","a":"1"}},
            "ownerReferences":[{{"uid":"x"}},{{"uid":"y","controller":true}}]}},"data":{{"k":"{}"}}}}"#,
            "v".repeat(bytes)
        );
        let (key, entry) = Entry::new(Encoded { json: json.into(), resource_version: Some(7) }).unwrap();
        assert_eq!((key.namespace.as_str(), key.name.as_str()), ("a", name));
        entry
    }

    #[test]
    fn metadata_is_known_without_decoding() {
        let entry = entry("one", 1);
        assert_eq!(entry.meta.label("a"), Some("1"));
        assert_eq!(entry.meta.labels().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(entry.meta.controller(), Some("y"));
        assert!(entry.decoded.lock().is_none());
        let object = Decoded::default().get(&entry).unwrap();
        assert_eq!(object.metadata.resource_version.as_deref(), Some("7"), "the version that came beside the bytes");
    }

    #[test]
    fn what_was_decoded_last_is_kept_up_to_a_bound() {
        let decoded = Decoded::default();
        let entries: Vec<_> = ["a", "b", "c"].map(|name| entry(name, KEPT_BYTES_MAX / 2)).into();
        let first = decoded.get(&entries[0]).unwrap();
        assert!(Arc::ptr_eq(&first, &decoded.get(&entries[0]).unwrap()), "decoded once");
        decoded.get(&entries[1]).unwrap();
        assert!(entries[0].decoded.lock().is_none(), "the oldest goes");
        decoded.get(&entries[2]).unwrap();
        assert!(entries[1].decoded.lock().is_none() && entries[2].decoded.lock().is_some());
        let again = decoded.get(&entries[0]).unwrap();
        assert_eq!(first, again);
    }
}
