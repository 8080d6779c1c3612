//! What can go wrong, by the door through which the caller sees it.

use std::io;
use std::path::PathBuf;

use crate::types::{LeaseId, ReadOnly};

/// A request was refused or its end is unknown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// etcd: `ErrCompacted`.
    #[error("revision {requested} is compacted: history begins at {compacted}")]
    Compacted { requested: u64, compacted: u64 },
    /// etcd: `ErrFutureRev`.
    #[error("revision {requested} lies ahead of the newest, {revision}")]
    FutureRevision { requested: u64, revision: u64 },
    /// Nothing of the request was written (etcd: `ErrNoSpace`).
    #[error("the store takes no writes: {}", match .0 { ReadOnly::DiskFull => "the disk is full", ReadOnly::QuotaExceeded => "its quota is used up" })]
    NoSpace(ReadOnly),
    /// etcd: `ErrRequestTooLarge`.
    #[error("the transaction has {bytes} bytes, more than {max}")]
    TooLarge { bytes: usize, max: usize },
    /// etcd: `ErrTooManyOps`.
    #[error("the transaction has {ops} comparisons and operations, more than {max}")]
    TooManyOps { ops: usize, max: usize },
    #[error("transactions stand within each other more than {max} deep")]
    TooDeep { max: usize },
    /// etcd: `ErrEmptyKey`.
    #[error("a key is empty")]
    EmptyKey,
    /// etcd: `ErrDuplicateKey`.
    #[error("the transaction writes a key twice")]
    DuplicateKey,
    /// A put is to keep the value and brings one (etcd: `ErrValueProvided`).
    #[error("a value is given where the key is to keep its own")]
    ValueProvided,
    /// A put is to keep the lease and brings one (etcd: `ErrLeaseProvided`).
    #[error("a lease is given where the key is to keep its own")]
    LeaseProvided,
    /// A put is to keep what the key has, and there is no such key (etcd: `ErrKeyNotFound`).
    #[error("there is no such key")]
    KeyNotFound,
    /// etcd: `ErrLeaseNotFound`.
    #[error("there is no lease {id}")]
    LeaseNotFound { id: LeaseId },
    /// etcd: `ErrLeaseExist`.
    #[error("there is a lease {id} already")]
    LeaseExists { id: LeaseId },
    /// etcd: `ErrLeaseTTLTooLarge`.
    #[error("a lease of {seconds} s is longer than {max} s")]
    LeaseTooLong { seconds: i64, max: i64 },
    #[error("there are {max} leases already")]
    TooManyLeases { max: usize },
    /// More writes wait than the store lets wait; try again later.
    #[error("too many writes are waiting")]
    Busy,
    /// This server does not lead the group, and no other one is known to; nothing was written (etcd: `ErrNoLeader`).
    #[error("the group has no leader")]
    NotLeader,
    /// Too few members can be reached; nothing was written.
    #[error("too few members of the group can be reached")]
    NoQuorum,
    /// The request may or may not have taken place (etcd: `ErrTimeout`).
    #[error("the request got no answer in time; it may or may not have taken place")]
    Unknown,
    /// The group is being changed already, has no such member, or would be left without one that votes.
    #[error("the group cannot be changed so now")]
    Unchangeable,
    /// This member is a witness.
    #[error("this member has no state")]
    Witness,
    /// The store stopped, or failed in a way that only a restart mends. A write in progress may or may not have
    /// taken place.
    #[error("the store is closed")]
    Closed,
}

/// A watcher ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Changes before `compacted` were dropped before the watcher had read the past that it asked for.
    #[error("history begins at {compacted}")]
    Compacted { compacted: u64 },
    /// The watcher was so slow that changes it had not read were dropped.
    #[error("the watcher fell behind: history begins at {compacted}")]
    Lagged { compacted: u64 },
    #[error("the store is closed")]
    Closed,
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("another process has {} open", path.display())]
    Locked { path: PathBuf },
    /// The log is damaged at a place that had been durable: this is not the trace of a power cut.
    #[error(
        "the log is damaged: {} at byte {offset}: {reason}; the last good entry has index {last_good_index}{}",
        path.display(),
        last_good_revision.map_or_else(String::new, |revision| format!(", the last good revision is {revision}"))
    )]
    LogDamaged {
        path: PathBuf,
        offset: u64,
        reason: &'static str,
        last_good_index: u64,
        /// What the snapshot and the good entries come to.
        last_good_revision: Option<u64>,
    },
    /// Entries between the newest usable snapshot and the first of the log are missing.
    #[error("entries {from} to {to} are missing between the snapshot and the log")]
    Gap { from: u64, to: u64 },
    #[error("snapshot {} is damaged: {reason}", path.display())]
    SnapshotDamaged { path: PathBuf, reason: &'static str },
    #[error(
        "this member votes and keeps the log only; it was made so and cannot be anything else, and the other way round"
    )]
    OtherKind,
    #[error("{} is not empty: a store is restored where there is none", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the disk failed while the store was opened")]
    Failed,
    #[error("Raft cannot start")]
    Raft(#[source] Box<dyn std::error::Error + Send + Sync>),
}
