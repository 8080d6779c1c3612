//! A revisioned key-value store with etcd v3's semantics: one counter orders every change, transactions compare and
//! then write, reads and watches reach back to the last compaction. It knows nothing of Kubernetes.
//!
//! How a write goes: [`Store::txn`] hands it to the proposer, which puts what waits into one Raft entry
//! (`raft::propose`); the log writes and syncs it (`log`); Raft commits it; the state machine applies it to the
//! state in memory (`state`), which wakes the watchers (`watch`); the caller gets its answer. Snapshots (`snapshot`)
//! bound the log; `materialised` keeps the state a second time, in sled.
//!
//! Invariants: an acknowledged write is on disk, synced (but see [`Durability::Relaxed`]). Everything read from disk
//! is checked. A failure of the disk stops the store ([`Store::closed`]); it never acknowledges what it cannot keep.
//!
//! One server is a Raft group of one; others join as learners, catch up and vote (`members`, `membership`). Followers
//! pass writes on to the leader; [`Store::read_index`] makes a read linearizable on any of them.
//!
//! Limitations: History between two compactions is in memory, bounded by
//! [`Config::history_bytes_max`].

mod backup;
mod check;
mod codec;
mod command;
mod disk;
mod error;
mod leases;
mod lessor;
mod log;
mod materialised;
mod members;
mod membership;
mod open;
mod raft;
mod scrub;
mod small_file;
mod snapshot;
mod start;
mod state;
mod types;
mod watch;

#[cfg(test)]
mod lease_test;
#[cfg(test)]
mod scrub_test;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod store_test;

pub use backup::{Saved, restore};
pub use error::{Error, OpenError, WatchError};
pub use members::wire::{Dial, Stream};
pub use membership::NetworkConfig;
pub use raft::Leadership;
pub use scrub::Damage;
pub use types::*;
pub use watch::{WatchProgress, Watcher};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch::Receiver;
use tokio::sync::{mpsc, oneshot};

use command::{Command, Reply};
use lessor::Lessor;
use log::Log;
use members::{Group, Inbound, ReadRequest};
use raft::propose::Proposal;
use scrub::Scrub;
use snapshot::Snapshots;
use watch::Watched;

/// The quota of keys and values together unless another is set (etcd: `--quota-backend-bytes`).
pub const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
/// History is compacted by the store itself once it weighs more, unless another bound is set.
pub const HISTORY_BYTES_MAX_DEFAULT: u64 = 64 << 20;

/// Where a store lives and what bounds it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Made if missing; one process at a time.
    pub dir: PathBuf,
    /// This server's name in the group.
    pub name: String,
    /// Puts are refused once the keys and values that exist weigh more.
    pub quota_bytes: u64,
    /// History is compacted without being asked once it weighs more.
    pub history_bytes_max: u64,
    /// How this member reaches others; `None` where there are none and never will be while it runs.
    pub network: Option<NetworkConfig>,
    /// Votes and keeps the log, and has no state. What it was made as it stays.
    pub witness: bool,
    /// This member becomes the only one of the group that its directory knows, whoever was in it. For when a majority
    /// is lost for good: what the others had and this one does not is lost, and they must not come back with their
    /// directories.
    pub reset_to_single: bool,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>, name: impl Into<String>) -> Config {
        Config {
            dir: dir.into(),
            name: name.into(),
            quota_bytes: QUOTA_BYTES_DEFAULT,
            history_bytes_max: HISTORY_BYTES_MAX_DEFAULT,
            network: None,
            witness: false,
            reset_to_single: false,
        }
    }
}

/// The store. A cheap handle; clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    watched: Arc<Watched>,
    raft: raft::Raft,
    group: Group,
    inbound: Arc<Inbound>,
    reads: mpsc::Sender<ReadRequest>,
    log: Log,
    snapshots: Arc<Snapshots>,
    proposals: mpsc::Sender<Proposal>,
    over_quota: Arc<AtomicBool>,
    scrub: Scrub,
    lessor: Arc<Lessor>,
    leadership: Receiver<Leadership>,
    stopping: task::Shutdown,
    closed: task::Shutdown,
}

impl Store {
    /// Opens the store in `config.dir`, or makes it; it leads its group on return. It serves until `shutdown`.
    pub async fn open(config: Config, shutdown: task::Shutdown) -> Result<Store, OpenError> {
        open::open(config, shutdown).await
    }

    /// The revision of the last change that was applied here.
    pub fn revision(&self) -> u64 {
        self.inner.watched.read().revision()
    }

    /// A revision that is applied here and no older than any write acknowledged before the call.
    pub async fn read_index(&self) -> Result<u64, Error> {
        if self.inner.stopping.is_cancelled() {
            return Err(Error::Closed);
        }
        self.has_state()?;
        if self.inner.group.is_alone() {
            // Nobody else can have acknowledged anything, and here that comes after applying.
            return Ok(self.revision());
        }
        let (request, answer) = oneshot::channel();
        self.inner.reads.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Closed(_) => Error::Closed,
        })?;
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(Error::Closed))?,
            () = self.inner.closed.cancelled() => return Err(Error::Closed),
        }
        Ok(self.revision())
    }

    /// Does a transaction; returns once its changes are durable and applied. Dropping the future does not stop it.
    pub async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        check::check(&txn)?;
        match self.command(Command::Txn(txn)).await? {
            Reply::Txn(outcome) => Ok(outcome),
            other => Err(refused(&other)),
        }
    }

    /// Reads a range as it is here now, or was at a past revision. For a linearizable read, await
    /// [`Store::read_index`] first.
    pub fn range(&self, range: &Range) -> Result<RangeOutcome, Error> {
        self.has_state()?;
        Ok(self.inner.watched.read().range(range)?)
    }

    /// Follows changes from a past, present or future revision on.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, Error> {
        if self.inner.stopping.is_cancelled() {
            return Err(Error::Closed);
        }
        self.has_state()?;
        Ok(self.inner.watched.watch(request)?)
    }

    /// Drops the history before `revision`.
    pub async fn compact(&self, revision: u64) -> Result<(), Error> {
        match self.command(Command::Compact { revision }).await? {
            Reply::Done { .. } => Ok(()),
            other => Err(refused(&other)),
        }
    }

    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let read_only = match (inner.log.is_full(), inner.over_quota.load(Ordering::Relaxed)) {
            (true, _) => Some(ReadOnly::DiskFull),
            (_, true) => Some(ReadOnly::QuotaExceeded),
            _ => None,
        };
        let leader = inner.leadership.borrow().here;
        let state = inner.watched.read();
        Status {
            revision: state.revision(),
            compacted: state.compacted(),
            keys: state.len(),
            bytes: state.bytes(),
            history_bytes: state.history_bytes(),
            disk_bytes: inner.log.disk_bytes() + inner.snapshots.disk_bytes(),
            leader,
            read_only,
            damage_found: inner.scrub.found.load(Ordering::Relaxed),
        }
    }

    /// Reads log and snapshot from the disk and checks them, at 1 MiB/s; this happens once a day by itself as well.
    /// What is damaged is replaced by a new snapshot, as far as that can be.
    pub async fn scrub(&self) -> Result<(), Damage> {
        self.inner.scrub.pass().await
    }

    /// Follows who leads the group. What must run on one member only runs while `here` is set.
    pub fn leading(&self) -> Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Returns once the store has ended, by shutdown or because the disk failed, and its directory is free.
    pub async fn closed(&self) {
        self.inner.closed.cancelled().await;
    }

    /// A witness has nothing to read.
    fn has_state(&self) -> Result<(), Error> {
        if self.inner.group.witness { Err(Error::Witness) } else { Ok(()) }
    }

    async fn command(&self, command: Command) -> Result<Reply, Error> {
        if self.inner.stopping.is_cancelled() {
            return Err(Error::Closed);
        }
        let (reply, answer) = oneshot::channel();
        self.inner.proposals.try_send(Proposal { command, reply, local: true }).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Closed(_) => Error::Closed,
        })?;
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(Error::Closed)),
            () = self.inner.closed.cancelled() => Err(Error::Closed),
        }
    }
}

fn refused(reply: &Reply) -> Error {
    match reply {
        Reply::Refused(refusal) => (*refusal).into(),
        // The state answers a command with the reply of its kind.
        Reply::Txn(_) | Reply::Done { .. } => Error::Closed,
    }
}
