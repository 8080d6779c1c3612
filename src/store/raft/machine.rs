//! The state machine as openraft wants it: applies batches, makes snapshots and takes them over.

use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, StoredMembership,
};
use tokio::sync::Notify;

use super::{Applied, Entry, Id, Member, SnapshotMeta, StorageError, TypeConfig};
use crate::command::Replies;
use crate::disk;
use crate::log::Log;
use crate::materialised::CHECKPOINT_BYTES;
use crate::snapshot::{Contents, SnapshotFile, Snapshots};
use crate::watch::Watched;

/// A snapshot is due when the log has grown by so much, or by the size of the state if that is more.
const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;

/// Pauses before a snapshot that could not be written is tried again.
const SNAPSHOT_PAUSE_MIN: Duration = Duration::from_secs(1);
const SNAPSHOT_PAUSE_MAX: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Machine {
    watched: Arc<Watched>,
    snapshots: Arc<Snapshots>,
    log: Log,
    /// Applies nothing.
    witness: bool,
    /// Bytes that the log had written when the last snapshot was asked for.
    snapshot_at: u64,
    /// The same for the last checkpoint of the materialised state.
    checkpoint_at: u64,
    due: Due,
}

/// Told when there is something to do in the background.
#[derive(Clone, Default)]
pub(crate) struct Due {
    pub(crate) snapshot: Arc<Notify>,
    pub(crate) checkpoint: Arc<Notify>,
    /// The materialised state is to be read again.
    pub(crate) verify: Arc<Notify>,
}

/// A snapshot about to be written. It holds the state as it was when it was asked for.
pub(crate) struct Builder {
    contents: Option<Contents>,
    snapshots: Arc<Snapshots>,
    log: Log,
}

impl Machine {
    pub(crate) fn new(watched: Arc<Watched>, snapshots: Arc<Snapshots>, log: Log, due: Due, witness: bool) -> Machine {
        Machine { watched, snapshots, log, witness, snapshot_at: 0, checkpoint_at: 0, due }
    }
}

/// Applies entries to the state; also used to replay the log before Raft runs. To a witness commands are nothing.
pub(crate) fn apply(watched: &Watched, entries: impl IntoIterator<Item = Entry>, witness: bool) -> Vec<Replies> {
    watched.change(|state, applied| {
        let replies = entries.into_iter().map(|entry| {
            applied.log_id = Some(entry.log_id);
            match &entry.payload {
                EntryPayload::Blank => Replies::default(),
                EntryPayload::Normal(_) if witness => Replies::default(),
                EntryPayload::Normal(batch) => {
                    Replies(batch.commands.iter().map(|command| state.apply(command)).collect())
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Replies::default()
                }
            }
        });
        replies.collect()
    })
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<Id>>, StoredMembership<Id, Member>), StorageError> {
        let applied = self.watched.applied();
        Ok((applied.log_id, applied.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let replies = apply(&self.watched, entries, self.witness);
        let written = self.log.written_bytes();
        let (state_bytes, changed_bytes) = self.watched.with(|state, _| (state.bytes(), state.changed_bytes()));
        if written - self.snapshot_at > SNAPSHOT_LOG_BYTES.max(state_bytes) {
            self.snapshot_at = written;
            self.due.snapshot.notify_one();
        }
        if changed_bytes > CHECKPOINT_BYTES && written - self.checkpoint_at > CHECKPOINT_BYTES {
            self.checkpoint_at = written;
            self.due.checkpoint.notify_one();
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let contents = self.watched.with(Contents::of);
        Builder { contents: Some(contents), snapshots: self.snapshots.clone(), log: self.log.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        Ok(Box::new(self.snapshots.receiving()))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<SnapshotFile>) -> Result<(), StorageError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&DisplayOnly(error.to_string())))
        };
        let (snapshots, meta_given, witness) = (self.snapshots.clone(), meta.clone(), self.witness);
        let disk = snapshots.disk().clone();
        let loaded = disk::work(disk.as_ref(), move || snapshots.install(&snapshot, &meta_given, witness)).await;
        let state = loaded.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        self.watched.replace(state, Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.snapshots.current();
        Ok(current.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let failed = |text: String| StorageIOError::write_snapshot(None, AnyError::new(&DisplayOnly(text)));
        let contents = self.contents.take().ok_or_else(|| failed("the snapshot was made already".to_owned()))?;
        // A snapshot must not know more than the log: what is not synced may still be lost.
        self.log.sync().await;
        let meta = contents.meta.clone();
        let contents = Arc::new(contents);
        let mut pause = SNAPSHOT_PAUSE_MIN;
        // To fail would be to stop the store, and the disk may only be full: nothing is lost but time.
        loop {
            let (snapshots, contents) = (self.snapshots.clone(), contents.clone());
            let disk = snapshots.disk().clone();
            let written = disk::work(disk.as_ref(), move || snapshots.write(&contents)).await;
            match written.map_err(|error| failed(error.to_string()))? {
                Ok(file) => return Ok(Snapshot { meta, snapshot: Box::new(file) }),
                Err(error) => tracing::warn!(%error, ?pause, "a snapshot could not be written; it is tried again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SNAPSHOT_PAUSE_MAX);
        }
    }
}

/// An error's text, where openraft wants a type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DisplayOnly(String);
