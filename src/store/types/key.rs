//! Keys, ranges of them, and what stands under them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::LeaseId;

/// A key with its value at one revision (etcd: `mvccpb.KeyValue`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the put that brought the key into being.
    pub create_revision: u64,
    /// Revision of the last put.
    pub mod_revision: u64,
    /// Number of puts since creation; 1 after the first.
    pub version: u64,
    /// The key is deleted when this lease ends; 0 is none.
    pub lease: LeaseId,
}

/// The keys from `start` up to but without `end`; `end` = `None` is `start` alone. An empty `end` has no bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> KeyRange {
        KeyRange { start: key.into(), end: None }
    }

    /// All keys that begin with `prefix`; the empty prefix is all keys.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let start = prefix.into();
        let end = prefix_end(&start);
        KeyRange { start, end: Some(end) }
    }

    /// The keys from `start` up to but without `end`; an empty `end` has no bound.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> KeyRange {
        KeyRange { start: start.into(), end: Some(end.into()) }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            None => key == self.start,
            Some(end) => key >= &self.start[..] && (end.is_empty() || key < &end[..]),
        }
    }

    /// The range is all keys with the prefix `start`.
    pub(crate) fn is_prefix(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end == prefix_end(&self.start))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, Bytes::len)
    }
}

/// The smallest key greater than all keys with the prefix; empty where there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    Bytes::from(end)
}
