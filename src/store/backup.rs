//! Copies of the state that are kept elsewhere, and a new store from one of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt;

use crate::command::Command;
use crate::disk::{Disk, RealDisk};
use crate::error::OpenError;
use crate::log::{Log, Options, Runs, SEGMENT_BYTES};
use crate::open::{RELAXED_SYNC_AFTER, failed, identity};
use crate::raft::{Applied, Id, Member};
use crate::snapshot::{self, Contents, Snapshots};
use crate::state::State;
use crate::{Config, Store, start};

/// Revisions left out when a copy is restored: what was written after it was made, and is lost, had some of them. A
/// reader that knows one of those must not take what comes now for what it has seen (etcd: `--bump-revision`, with the
/// number that its documentation asks for).
const REVISIONS_SKIPPED: u64 = 1_000_000_000;

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub revision: u64,
    /// Keys that exist.
    pub keys: u64,
    /// Bytes of these keys and their values.
    pub bytes: u64,
}

impl Saved {
    fn of(state: &State) -> Saved {
        Saved { revision: state.revision(), keys: state.len() as u64, bytes: state.bytes() }
    }
}

impl Store {
    /// Writes a copy of the state as it is now to a file, which is synced and was read back when this returns.
    pub async fn save(&self, path: PathBuf) -> io::Result<Saved> {
        self.has_state().map_err(io::Error::other)?;
        let (saved, contents) =
            self.inner.watched.with(|state, applied| (Saved::of(state), Contents::of(state, applied)));
        let written = tokio::task::spawn_blocking(move || snapshot::save(&RealDisk, &path, &contents)).await;
        written.map_err(io::Error::other)??;
        Ok(saved)
    }
}

/// Makes a store of a copy, in a directory that has none: a group of one, whoever was in the group that it comes from.
/// Its history begins anew, so that whoever followed the old one begins anew, too.
pub async fn restore(copy: PathBuf, config: Config) -> Result<Saved, OpenError> {
    let dir = config.dir.clone();
    let exists = std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
    if exists {
        return Err(OpenError::NotEmpty { path: dir });
    }
    let name = config.name.clone();
    let laid = tokio::task::spawn_blocking(move || lay(&copy, &dir)).await;
    let (saved, log, id, applied) = laid.map_err(|error| OpenError::Raft(Box::new(error)))??;
    if let Some(last) = applied.log_id {
        log.purge(last).await;
    }
    start::reset_to_single(id, Member { name, ..Member::default() }, &log, &applied).await;
    log.close().await;

    let shutdown = task::Shutdown::new();
    let store = Store::open(config, shutdown.clone()).await?;
    let begun = begin_history(&store).await;
    shutdown.cancel();
    store.closed().await;
    begun.map(|()| saved)
}

async fn begin_history(store: &Store) -> Result<(), OpenError> {
    let raft = |error: crate::Error| OpenError::Raft(Box::new(error));
    store.command(Command::Skip { revisions: REVISIONS_SKIPPED }).await.map_err(raft)?;
    store.compact(store.revision()).await.map_err(raft)
}

type Laid = (Saved, Log, Id, Applied);

/// Puts the copy where the store looks for its snapshot.
fn lay(copy: &Path, dir: &Path) -> Result<Laid, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (applied, state) = snapshot::read_file(disk.as_ref(), copy).map_err(failed("read", copy))?;
    disk.make_dir(dir).map_err(failed("make", dir))?;
    let snapshots = Snapshots::open(disk.clone(), dir.join(snapshot::DIR))?;
    snapshots.write(&Contents::of(&state, &applied)).map_err(failed("write a snapshot in", dir))?;
    let id = identity(disk.as_ref(), &dir.join("identity"), rand::rng().random_range(1..=Id::MAX))?;
    let options = Options {
        dir: dir.join("log"),
        segment_bytes: SEGMENT_BYTES,
        relaxed_sync_after: RELAXED_SYNC_AFTER,
        runs: Runs::Thread,
    };
    let log = Log::open(disk, options, task::Shutdown::new())?;
    Ok((Saved::of(&state), log, id, applied))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, KeyRange, Range, Txn, WatchRequest};

    #[tokio::test]
    async fn a_copy_becomes_a_store_with_a_history_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let shutdown = task::Shutdown::new();
        let store = Store::open(Config::new(dir.path().join("a"), "a"), shutdown.clone()).await.unwrap();
        for number in 0..50 {
            store.txn(Txn::put(format!("key-{number}"), format!("value-{number}"))).await.unwrap();
        }
        store.txn(Txn::delete(KeyRange::key("key-7"))).await.unwrap();
        let copy = dir.path().join("copy");
        let saved = store.save(copy.clone()).await.unwrap();
        assert_eq!((saved.revision, saved.keys), (store.revision(), 49));
        store.txn(Txn::put("later", "is lost")).await.unwrap();
        let lost = store.revision();
        shutdown.cancel();
        store.closed().await;

        let config = || Config::new(dir.path().join("b"), "b");
        assert_eq!(restore(copy.clone(), config()).await.unwrap(), saved);
        assert!(matches!(restore(copy.clone(), config()).await, Err(OpenError::NotEmpty { .. })));
        let shutdown = task::Shutdown::new();
        let store = Store::open(config(), shutdown.clone()).await.unwrap();
        let all = store.range(&Range::all(KeyRange::prefix(""))).unwrap();
        assert_eq!((all.kvs.len(), &all.kvs[0].value[..]), (49, &b"value-0"[..]));
        assert!(store.revision() > lost, "no revision that was lost comes again");
        let follow = WatchRequest { keys: KeyRange::prefix(""), from_revision: Some(lost) };
        assert!(matches!(store.watch(follow).err(), Some(Error::Compacted { .. })));
        store.txn(Txn::put("key-7", "again")).await.unwrap();
        shutdown.cancel();
        store.closed().await;

        let mut bytes = std::fs::read(&copy).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&copy, bytes).unwrap();
        let refused = restore(copy, Config::new(dir.path().join("c"), "c")).await;
        assert!(matches!(refused, Err(OpenError::Io { action: "read", .. })), "damage is noticed");
        assert!(!dir.path().join("c").exists(), "and nothing is written");
    }
}
