//! A revisioned key-value store with etcd v3's semantics: one counter orders every change, transactions compare and
//! then write, reads and watches reach back to the last compaction. It knows nothing of Kubernetes.
//!
//! Limitations: so far the state is in memory only; nothing survives the process.

#![expect(dead_code, reason = "the log and the snapshots that use it come next")]

mod check;
mod command;
mod error;
mod state;
mod types;
mod watch;

pub use error::{Error, OpenError, WatchError};
pub use types::*;
pub use watch::{WatchProgress, Watcher};

use std::path::PathBuf;
use std::sync::Arc;

use command::{Command, Reply};
use state::State;
use watch::Watched;

/// The quota of keys, values and history together unless another is set (etcd: `--quota-backend-bytes`).
pub const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;

/// Where a store lives and what bounds it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Made if missing; one process at a time.
    pub dir: PathBuf,
    /// This server's name in the group.
    pub name: String,
    /// Puts are refused once keys, values and history weigh more.
    pub quota_bytes: u64,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>, name: impl Into<String>) -> Config {
        Config { dir: dir.into(), name: name.into(), quota_bytes: QUOTA_BYTES_DEFAULT }
    }
}

/// The store. A cheap handle; clones are the same store.
#[derive(Clone)]
pub struct Store {
    watched: Arc<Watched>,
    shutdown: task::Shutdown,
}

impl Store {
    /// Opens the store. It serves until `shutdown`. Nothing is read from or written to `config.dir` yet.
    #[expect(clippy::unused_async, reason = "opening waits for the group's leader")]
    pub async fn open(_config: Config, shutdown: task::Shutdown) -> Result<Store, OpenError> {
        Ok(Store { watched: Watched::new(State::default()), shutdown })
    }

    /// The revision of the last change that was applied here.
    pub fn revision(&self) -> u64 {
        self.watched.read().revision()
    }

    /// A revision that is applied here and no older than any write acknowledged before the call.
    #[expect(clippy::unused_async, reason = "asks the group")]
    pub async fn read_index(&self) -> Result<u64, Error> {
        Ok(self.revision())
    }

    /// Does a transaction; returns once its changes are applied.
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
        Ok(self.watched.read().range(range)?)
    }

    /// Follows changes from a past, present or future revision on.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, Error> {
        Ok(self.watched.watch(request)?)
    }

    /// Drops the history before `revision`.
    pub async fn compact(&self, revision: u64) -> Result<(), Error> {
        match self.command(Command::Compact { revision }).await? {
            Reply::Done { .. } => Ok(()),
            other => Err(refused(&other)),
        }
    }

    pub fn status(&self) -> Status {
        let state = self.watched.read();
        Status {
            revision: state.revision(),
            compacted: state.compacted(),
            keys: state.len(),
            bytes: state.bytes(),
            history_bytes: state.history_bytes(),
            disk_bytes: 0,
            leader: true,
            read_only: None,
        }
    }

    #[expect(clippy::unused_async, reason = "asks the group")]
    async fn command(&self, command: Command) -> Result<Reply, Error> {
        if self.shutdown.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(self.watched.change(|state| state.apply(&command)))
    }
}

fn refused(reply: &Reply) -> Error {
    match reply {
        Reply::Compacted { requested, compacted } => Error::Compacted { requested: *requested, compacted: *compacted },
        Reply::FutureRevision { requested, revision } => {
            Error::FutureRevision { requested: *requested, revision: *revision }
        }
        Reply::Txn(_) | Reply::Done { .. } => Error::Closed,
    }
}
