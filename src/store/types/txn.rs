//! Transactions and what they did.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{KeyRange, KeyValue, LeaseId, NO_LEASE, Range, RangeOutcome};

/// A transaction holds at most this many comparisons, or operations in a branch; those within it have what is left
/// (etcd: `max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;
/// Keys and values of a transaction weigh at most this many bytes together (etcd: `max-request-bytes`).
pub const TXN_BYTES_MAX: usize = 1_572_864;
/// Transactions stand within each other at most so deep.
pub const TXN_DEPTH_MAX: usize = 16;

/// A condition of a transaction: what every key of a range must be. A key that does not exist has 0 in every number,
/// and no comparison with its value holds; so it is with a range that holds no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    pub keys: KeyRange,
    /// How what the key has is to stand to the operand.
    pub operator: Operator,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    Version(u64),
    CreateRevision(u64),
    ModRevision(u64),
    Value(Bytes),
    Lease(LeaseId),
}

impl Compare {
    /// The key has what the target says.
    pub fn equal(key: impl Into<Bytes>, target: Target) -> Compare {
        Compare { keys: KeyRange::key(key), operator: Operator::Equal, target }
    }

    /// The key was last put at this revision; 0: it does not exist.
    pub fn mod_revision(key: impl Into<Bytes>, revision: u64) -> Compare {
        Compare::equal(key, Target::ModRevision(revision))
    }

    /// The key came to be at this revision; 0: it does not exist.
    pub fn create_revision(key: impl Into<Bytes>, revision: u64) -> Compare {
        Compare::equal(key, Target::CreateRevision(revision))
    }

    fn bytes(&self) -> usize {
        let operand = if let Target::Value(value) = &self.target { value.len() } else { 0 };
        self.keys.bytes() + operand
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Put(Put),
    Delete(Delete),
    /// Sees the effects of the operations before it.
    Range(Box<Range>),
    /// Its comparisons are made before the outermost transaction changes anything; its durability is the
    /// outermost's.
    Txn(Box<Txn>),
}

/// Puts a value under a key (etcd: `PutRequest`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
    /// The key goes when this lease ends, and no longer when the one that it had before does; 0 is none.
    pub lease: LeaseId,
    /// Keeps the value that the key has. It must have one.
    pub ignore_value: bool,
    /// Keeps the lease that the key has. It must exist.
    pub ignore_lease: bool,
    /// Returns the key as it was before.
    pub prev_kv: bool,
}

/// Deletes the keys of a range (etcd: `DeleteRangeRequest`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    pub range: KeyRange,
    /// Returns the keys as they were.
    pub prev_kv: bool,
}

impl Op {
    /// Puts a value under a key, with no lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
    }

    /// Deletes the keys of a range.
    pub fn delete(range: KeyRange) -> Op {
        Op::Delete(Delete { range, prev_kv: false })
    }

    /// Reads a range.
    pub fn range(range: impl Into<Range>) -> Op {
        Op::Range(Box::new(range.into()))
    }

    fn bytes(&self) -> usize {
        match self {
            Op::Put(put) => put.key.len() + put.value.len(),
            Op::Delete(Delete { range, .. }) => range.bytes(),
            Op::Range(range) => range.keys.bytes(),
            Op::Txn(txn) => txn.bytes(),
        }
    }
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
        Txn { success: vec![Op::put(key, value)], ..Txn::default() }
    }

    /// A transaction without conditions that deletes the keys of a range.
    pub fn delete(range: KeyRange) -> Txn {
        Txn { success: vec![Op::delete(range)], ..Txn::default() }
    }

    /// No branch holds a put or a delete.
    pub fn is_read_only(&self) -> bool {
        self.ops().all(|op| match op {
            Op::Range(_) => true,
            Op::Txn(txn) => txn.is_read_only(),
            Op::Put(_) | Op::Delete(_) => false,
        })
    }

    /// Some branch holds a put.
    pub(crate) fn puts(&self) -> bool {
        self.ops().any(|op| match op {
            Op::Put(_) => true,
            Op::Txn(txn) => txn.puts(),
            Op::Range(_) | Op::Delete(_) => false,
        })
    }

    /// Comparisons and operations, those within included.
    pub(crate) fn parts(&self) -> usize {
        let within = self.ops().map(|op| if let Op::Txn(txn) = op { 1 + txn.parts() } else { 1 });
        self.compare.len() + within.sum::<usize>()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.compare.iter().map(Compare::bytes).sum::<usize>() + self.ops().map(Op::bytes).sum::<usize>()
    }

    pub(crate) fn ops(&self) -> impl Iterator<Item = &Op> {
        self.success.iter().chain(&self.failure)
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
        /// The key as it was before, if that was asked for and it existed.
        prev: Option<KeyValue>,
    },
    Delete {
        deleted: usize,
        /// The keys as they were, in key order, if that was asked for.
        prev: Vec<KeyValue>,
    },
    Range(RangeOutcome),
    Txn(TxnOutcome),
}

impl Put {
    /// The lease named must exist.
    pub(crate) fn has_lease(&self) -> bool {
        self.lease != NO_LEASE
    }
}
