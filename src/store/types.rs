//! What goes in and out of the store: keys, transactions, ranges, outcomes. etcd v3's terms are used where it has them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A transaction holds at most this many comparisons and operations together (etcd: `max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;
/// Keys and values of a transaction weigh at most this many bytes together (etcd: `max-request-bytes`).
pub const TXN_BYTES_MAX: usize = 1_572_864;

/// A key with its value at one revision (etcd: `mvccpb.KeyValue`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the put that brought the key into being.
    pub create_revision: u64,
    /// Revision of the last put.
    pub mod_revision: u64,
    /// Number of puts since creation; 1 after the first.
    pub version: u64,
}

/// A condition of a transaction: equality with what the key has. A key that does not exist has 0 in every
/// number, and no value is equal to its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    ModRevision(Bytes, u64),
    CreateRevision(Bytes, u64),
    Version(Bytes, u64),
    Value(Bytes, Bytes),
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        range: KeyRange,
    },
    /// Sees the effects of the operations before it.
    Range(Range),
}

/// When a transaction may be acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// After it is synced to disk.
    #[default]
    Synced,
    /// After it is written, before it is synced: it survives the end of the process at once, and a power cut
    /// after a few seconds. For heartbeats. A power cut never brings a lost revision back with another content.
    Relaxed,
}

/// If all of `compare` hold, `success` is done, else `failure`; all at one revision. Writing nothing takes no revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
    pub durability: Durability,
}

impl Txn {
    /// A transaction without conditions that puts one key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        Txn { success: vec![Op::Put { key: key.into(), value: value.into() }], ..Txn::default() }
    }

    /// A transaction without conditions that deletes the keys of a range.
    pub fn delete(range: KeyRange) -> Txn {
        Txn { success: vec![Op::Delete { range }], ..Txn::default() }
    }

    /// Neither branch holds a put or a delete.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        let compares = self.compare.iter().map(|compare| match compare {
            Compare::ModRevision(key, _) | Compare::CreateRevision(key, _) | Compare::Version(key, _) => key.len(),
            Compare::Value(key, value) => key.len() + value.len(),
        });
        let ops = self.success.iter().chain(&self.failure).map(|op| match op {
            Op::Put { key, value } => key.len() + value.len(),
            Op::Delete { range } | Op::Range(Range { keys: range, .. }) => range.bytes(),
        });
        compares.sum::<usize>() + ops.sum::<usize>()
    }
}

/// What a transaction did. `responses` has one item for each operation of the branch taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnOutcome {
    /// The revision of this transaction if it changed something, else the newest one at its time.
    pub revision: u64,
    /// All comparisons held.
    pub succeeded: bool,
    pub responses: Vec<OpOutcome>,
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpOutcome {
    Put {
        prev: Option<KeyValue>,
    },
    /// The keys deleted, as they were, in key order.
    Delete {
        deleted: Vec<KeyValue>,
    },
    Range(RangeOutcome),
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

    fn bytes(&self) -> usize {
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

/// A read of the keys in a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub keys: KeyRange,
    /// `None` reads the newest state.
    pub revision: Option<u64>,
    /// At most this many keys are returned; 0 is all.
    pub limit: usize,
    /// Values are left empty.
    pub keys_only: bool,
    /// No keys are returned, only their number.
    pub count_only: bool,
}

impl Range {
    /// Everything in `keys`, newest state.
    pub fn all(keys: KeyRange) -> Range {
        Range { keys, revision: None, limit: 0, keys_only: false, count_only: false }
    }
}

impl From<KeyRange> for Range {
    fn from(keys: KeyRange) -> Range {
        Range::all(keys)
    }
}

/// What a range read found, in key order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeOutcome {
    /// The store's newest revision at the time of the read, even when an older one was read.
    pub revision: u64,
    pub kvs: Vec<KeyValue>,
    /// The limit left keys out.
    pub more: bool,
    /// Keys in the range regardless of the limit.
    pub count: usize,
}

/// Which changes a watcher wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    pub keys: KeyRange,
    /// The first revision that may be delivered; `None` is the one after the newest. One that lies ahead is waited for.
    pub from_revision: Option<u64>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The key as it is now. After a deletion: no value, version and create revision 0, and the deleting revision.
    pub kv: KeyValue,
    pub deleted: bool,
    /// The key as it was before this revision.
    pub prev: Option<KeyValue>,
}

/// Changes in revision order: everything that concerns the watcher up to and including `revision`, and never a
/// part of a revision. Without events it is a sign of progress only.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    pub revision: u64,
    pub events: Vec<Arc<Event>>,
}

/// How the store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub revision: u64,
    /// Reads and watches before this revision are refused.
    pub compacted: u64,
    /// Keys that exist.
    pub keys: usize,
    /// Bytes of the keys and values that exist.
    pub bytes: u64,
    /// Bytes of past versions kept until compaction.
    pub history_bytes: u64,
    /// Bytes on disk: log, snapshots and materialised state.
    pub disk_bytes: u64,
    /// This server leads the Raft group.
    pub leader: bool,
    /// Why writes are refused, if they are.
    pub read_only: Option<ReadOnly>,
}

/// Why writes are refused while reads go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// The disk has no room for the log. Writes are taken again as soon as it has.
    DiskFull,
    /// Keys and values exceed `Config::quota_bytes`. Deletions and compaction are still taken.
    QuotaExceeded,
}
