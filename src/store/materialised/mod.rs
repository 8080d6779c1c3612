//! The applied state on disk a second time, in a sled database: a copy that snapshots and log can do without, and
//! that stands in for a snapshot that turns out damaged.
//!
//! Invariants:
//! - Nothing depends on it: the log is purged behind snapshots only. At any doubt (an error, a panic, a checksum, the
//!   hash) it is thrown away and written anew.
//! - A checkpoint is valid once its last batch is there, with how far the log was applied and the state's hash; it
//!   comes after the log was synced that far. One that was interrupted is void.
//! - It is open only while it is written or loaded: an idle store has no memory, thread or timer for it.
//!
//! Limitations: it lags by [`CHECKPOINT_BYTES`] of changes, or by those of [`CHECKPOINT_PAUSE`]. It is not read when the snapshot is whole: reading
//! a snapshot takes a fraction of the time.

mod database;

#[cfg(test)]
mod database_test;
#[cfg(test)]
mod memory;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::log::Log;
use crate::raft::Applied;
use crate::state::{Changes, LeaseRecord, Record, RecordId, State};
use crate::watch::Watched;

pub(crate) use database::Database;

/// Changes of so many bytes make a checkpoint due.
pub(crate) const CHECKPOINT_BYTES: u64 = 16 << 20;
/// Shortest pause between two checkpoints: under a storm of writes sled would write and hold many times their bytes.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(60);
/// After so many failures in a row it is left alone until the store is opened again.
const FAILURES_MAX: u32 = 3;

/// What the state was at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) applied: Applied,
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    pub(crate) hash: u64,
    #[serde(default)]
    pub(crate) leases: Vec<LeaseRecord>,
}

/// What brings the materialised state from one checkpoint to the next.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) header: Header,
    pub(crate) put: Vec<Record>,
    pub(crate) remove: Vec<RecordId>,
    /// `put` is everything there is; what was there before is void.
    pub(crate) whole: bool,
}

/// A materialised state: one writer, disposable.
pub(crate) trait Materialised: Send + 'static {
    /// The state at the last checkpoint, if there is one and all of it is as it was written.
    fn load(&mut self) -> Result<Option<(Header, State)>, Doubt>;
    /// Reads all of it again; an error says that it is not what was written.
    fn verify(&mut self) -> Result<(), Doubt>;
    /// Durable on return. After an error, or when it is interrupted, the content is void.
    fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), Doubt>;
    /// Throws everything away.
    fn discard(&mut self) -> Result<(), Doubt>;
}

/// Why a materialised state is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Doubt {
    #[error("the database failed")]
    Database(#[from] sled::Error),
    #[error("its files cannot be worked with")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Content(&'static str),
    #[error("the disk has too little room for it")]
    NoRoom,
    #[error("the database panicked")]
    Panic,
}

/// Loads the materialised state; throws it away if it is in doubt.
pub(crate) fn load(materialised: &mut dyn Materialised) -> Option<(Header, State)> {
    let loaded = guarded(|| materialised.load());
    match loaded {
        Ok(loaded) => loaded,
        Err(doubt) => {
            tracing::warn!(error = &doubt as &dyn std::error::Error, "the materialised state is in doubt");
            discard(materialised);
            None
        }
    }
}

/// Makes checkpoints when they are due, until the store stops.
pub(crate) struct Checkpointer<M> {
    pub(crate) materialised: M,
    pub(crate) watched: Arc<Watched>,
    pub(crate) log: Log,
    pub(crate) due: Arc<Notify>,
    /// When to read it again.
    pub(crate) verify: Arc<Notify>,
}

impl<M: Materialised> Checkpointer<M> {
    pub(crate) async fn run(mut self, stopping: task::Shutdown) {
        let mut failures = 0;
        while failures < FAILURES_MAX {
            tokio::select! {
                biased;
                () = self.due.notified() => {}
                () = stopping.cancelled() => return,
                () = self.verify.notified() => {
                    let Some(verified) = self.verified().await else { return };
                    self = verified;
                    continue;
                }
            }
            let checkpoint = self.watched.take_changes(|state, applied, changes| {
                let header = Header {
                    applied: applied.clone(),
                    revision: state.revision(),
                    compacted: state.compacted(),
                    hash: state.hash(),
                    leases: state.leases(),
                };
                match changes {
                    Changes::Some { put, remove, .. } => {
                        let put = put.iter().map(|event| Record::of(event)).collect();
                        Checkpoint { header, put, remove, whole: false }
                    }
                    Changes::Everything => Checkpoint { header, put: state.records(), remove: Vec::new(), whole: true },
                }
            });
            self.log.sync().await;
            let mut materialised = self.materialised;
            let written = tokio::task::spawn_blocking(move || {
                let written = guarded(|| materialised.checkpoint(checkpoint));
                if written.is_err() {
                    discard(&mut materialised);
                }
                (materialised, written)
            });
            let Ok((materialised, written)) = written.await else { return };
            self.materialised = materialised;
            match written {
                Ok(()) => failures = 0,
                Err(doubt) => {
                    let error = &doubt as &dyn std::error::Error;
                    tracing::warn!(error, "the materialised state was not written; it begins anew");
                    self.watched.forget_changes();
                    failures += 1;
                }
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(CHECKPOINT_PAUSE) => {}
                () = stopping.cancelled() => return,
            }
        }
    }
}

impl<M: Materialised> Checkpointer<M> {
    /// Reads the materialised state again; in doubt it begins anew.
    async fn verified(mut self) -> Option<Checkpointer<M>> {
        let mut materialised = self.materialised;
        let verified = tokio::task::spawn_blocking(move || {
            let verified = guarded(|| materialised.verify());
            if verified.is_err() {
                discard(&mut materialised);
            }
            (materialised, verified)
        });
        let (materialised, verified) = verified.await.ok()?;
        self.materialised = materialised;
        if let Err(doubt) = verified {
            tracing::warn!(
                error = &doubt as &dyn std::error::Error,
                "the materialised state is in doubt and begins anew"
            );
            self.watched.forget_changes();
        }
        Some(self)
    }
}

/// sled panics where others return an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, Doubt>) -> Result<T, Doubt> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Doubt::Panic))
}

fn discard(materialised: &mut dyn Materialised) {
    if let Err(doubt) = guarded(|| materialised.discard()) {
        tracing::warn!(error = &doubt as &dyn std::error::Error, "the materialised state cannot be removed");
    }
}
