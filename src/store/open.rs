//! From a directory to a store that serves, and back.
//!
//! The order: lock the directory; load the snapshot; read the log and replay what was committed; start Raft, which
//! leads at once since it is alone; leave out the revisions that a power cut may have taken back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use openraft::{ServerState, SnapshotPolicy};
use rand::RngExt;
use tokio::sync::{Notify, mpsc};

use crate::command::Command;
use crate::disk::{self, Disk, RealDisk};
use crate::error::OpenError;
use crate::lessor::Lessor;
use crate::log::{Log, Options, Runs, SEGMENT_BYTES};
use crate::materialised::{self, Checkpointer, Database};
use crate::raft::propose::{self, Proposer};
use crate::raft::{Applied, Due, Id, LogStore, Machine, Member, NoPeers, Raft};
use crate::snapshot::Snapshots;
use crate::state::State;
use crate::watch::Watched;
use crate::{Config, Inner, Store, raft, small_file};

/// A relaxed write is synced after so long if no other write has caused a sync.
const RELAXED_SYNC_AFTER: Duration = Duration::from_secs(10);
/// A group of one needs no heartbeats and no elections by time: nothing ticks.
const NO_TICKS_MS: u64 = 3_600_000;
/// Entries replayed at a time.
const REPLAY_ENTRIES: u64 = 256;
/// Longest wait for the group of one to lead itself.
const LEAD_WITHIN: Duration = Duration::from_secs(30);
/// Entries kept in the log behind a snapshot: nobody is there to ask for them.
const LOG_KEPT_ENTRIES: u64 = 0;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a store stands on; tests put other things here.
pub(crate) struct Ground {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segment_bytes: u64,
    pub(crate) relaxed_sync_after: Duration,
    /// Where the log's writer runs.
    pub(crate) runs: Runs,
    /// Where the materialised state lies, on the operating system's disk.
    pub(crate) database_dir: PathBuf,
    /// Another one than last time means that what was not synced may be lost.
    pub(crate) boot_id: String,
}

pub(crate) async fn open(config: Config, shutdown: task::Shutdown) -> Result<Store, OpenError> {
    let disk = Arc::new(RealDisk);
    disk.make_dir(&config.dir).map_err(failed("make", &config.dir))?;
    let lock = lock(&config.dir)?;
    let boot_id = std::fs::read_to_string(BOOT_ID).map_err(failed("read", Path::new(BOOT_ID)))?;
    let database_dir = config.dir.join("sled");
    let ground = Ground {
        database_dir,
        disk,
        segment_bytes: SEGMENT_BYTES,
        relaxed_sync_after: RELAXED_SYNC_AFTER,
        runs: Runs::Thread,
        boot_id,
    };
    open_on(ground, config, shutdown, Some(lock)).await
}

/// Opens a store on given ground. `lock` is held until the store has ended.
pub(crate) async fn open_on(
    ground: Ground,
    config: Config,
    shutdown: task::Shutdown,
    lock: Option<Flock<File>>,
) -> Result<Store, OpenError> {
    let failed_log = task::Shutdown::new();
    tokio::select! {
        result = open_until_failed(ground, config, shutdown, lock, failed_log.clone()) => result,
        () = failed_log.cancelled() => Err(OpenError::Failed),
    }
}

async fn open_until_failed(
    ground: Ground,
    config: Config,
    shutdown: task::Shutdown,
    lock: Option<Flock<File>>,
    failed_log: task::Shutdown,
) -> Result<Store, OpenError> {
    let database = Database::new(ground.database_dir.clone());
    let loading = (ground.disk.clone(), config.dir.clone(), failed_log.clone());
    let options = Options {
        dir: config.dir.join("log"),
        segment_bytes: ground.segment_bytes,
        relaxed_sync_after: ground.relaxed_sync_after,
        runs: ground.runs.clone(),
    };
    let work = move || {
        let (disk, dir, failed) = loading;
        load(&disk, &dir, database, options, failed)
    };
    let loaded = disk::work(ground.disk.as_ref(), work).await.map_err(|error| OpenError::Raft(Box::new(error)))??;
    replay(&loaded.watched, &loaded.log).await;

    let due = Due::default();
    let machine = Machine::new(loaded.watched.clone(), loaded.snapshots.clone(), loaded.log.clone(), due.clone());
    let group = lead(loaded.id, &config, &loaded.log, machine).await?;

    let (proposals, waiting) = mpsc::channel(propose::WAITING_MAX);
    let over_quota = Arc::new(AtomicBool::new(false));
    let stopping = task::Shutdown::new();
    let closed = task::Shutdown::new();
    let proposer = Proposer {
        raft: group.clone(),
        log: loaded.log.clone(),
        watched: loaded.watched.clone(),
        quota_bytes: config.quota_bytes,
        history_bytes_max: config.history_bytes_max,
        over_quota: over_quota.clone(),
        relaxed: 0,
    };
    let leadership = raft::follow(&group);
    let lessor = Arc::new(Lessor::new(loaded.watched.clone(), proposals.clone()));
    task::spawn("store-leases", lessor.clone().run(leadership.clone(), stopping.clone()));
    let store = Store {
        inner: Arc::new(Inner {
            id: loaded.id,
            watched: loaded.watched.clone(),
            raft: group.clone(),
            log: loaded.log.clone(),
            snapshots: loaded.snapshots,
            proposals,
            over_quota,
            lessor,
            leadership,
            stopping: stopping.clone(),
            closed: closed.clone(),
        }),
    };
    let proposing = stopping.clone();
    task::spawn("store-proposer", async move {
        tokio::select! {
            () = proposer.run(waiting) => {}
            () = proposing.cancelled() => {}
        }
    });
    task::spawn("store-snapshots", snapshots_when_due(group.clone(), due.snapshot, stopping.clone()));
    let checkpointer = Checkpointer {
        materialised: loaded.database,
        watched: loaded.watched.clone(),
        log: loaded.log.clone(),
        due: due.checkpoint,
    };
    task::spawn("store-checkpoints", checkpointer.run(stopping.clone()));
    let ending = Ending { group, log: loaded.log, watched: loaded.watched, stopping, closed, _lock: lock };
    task::spawn("store-end", ending.run(shutdown, failed_log));

    skip_what_may_be_lost(&store, &ground, &config.dir, loaded.fresh).await?;
    Ok(store)
}

struct Loaded {
    id: Id,
    fresh: bool,
    watched: Arc<Watched>,
    snapshots: Arc<Snapshots>,
    log: Log,
    database: Database,
}

fn load(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    mut database: Database,
    options: Options,
    failed_log: task::Shutdown,
) -> Result<Loaded, OpenError> {
    disk.make_dir(dir).map_err(failed("make", dir))?;
    let snapshots = Snapshots::open(disk.clone(), dir.join("snapshot"))?;
    let (applied, state) = match snapshots.load() {
        Ok(None) => (Applied::default(), State::default()),
        Ok(Some((meta, state))) => (Applied { log_id: meta.last_log_id, membership: meta.last_membership }, state),
        Err(damaged) => {
            // The materialised state can stand in, if it goes on where the log begins; that is looked at below.
            let Some((header, state)) = materialised::load(&mut database) else { return Err(damaged) };
            snapshots.set_aside().map_err(failed("set aside a damaged snapshot in", dir))?;
            (header.applied, state)
        }
    };
    let log = Log::open(disk.clone(), options, failed_log)?;
    let (purged, last) = log.bounds();
    if purged > applied.log_id {
        let from = applied.log_id.map_or(0, |id| id.index + 1);
        return Err(OpenError::Gap { from, to: purged.map_or(0, |id| id.index) });
    }
    let id = identity(disk.as_ref(), &dir.join("identity"))?;
    let watched = Watched::new(state, applied);
    Ok(Loaded { id, fresh: last.is_none(), watched, snapshots: Arc::new(snapshots), log, database })
}

/// This server's number, drawn when the directory is made.
fn identity(disk: &dyn Disk, path: &Path) -> Result<Id, OpenError> {
    let text = small_file::read(disk, path).map_err(failed("read", path))?;
    if let Some(text) = text {
        let parsed = text.trim().parse().map_err(io::Error::other);
        return parsed.map_err(failed("understand", path));
    }
    let id = rand::rng().random_range(1..=Id::MAX);
    small_file::write(disk, path, &format!("{id}\n")).map_err(failed("write", path))?;
    Ok(id)
}

/// Applies what is known to be committed. Raft applies the rest when it leads.
async fn replay(watched: &Watched, log: &Log) {
    let mut next = watched.applied().log_id.map_or(0, |id| id.index + 1);
    let end = log.committed().map_or(0, |id| id.index + 1);
    while next < end {
        let entries = log.entries(next, end.min(next + REPLAY_ENTRIES)).await;
        let Some(last) = entries.last() else { return };
        next = last.log_id.index + 1;
        raft::apply(watched, entries);
    }
}

/// Starts Raft and waits until this server leads and has applied what the log held.
async fn lead(id: Id, config: &Config, log: &Log, machine: Machine) -> Result<Raft, OpenError> {
    fn raft_error(error: impl std::error::Error + Send + Sync + 'static) -> OpenError {
        OpenError::Raft(Box::new(error))
    }
    let raft_config = openraft::Config {
        cluster_name: "cluster".to_owned(),
        heartbeat_interval: NO_TICKS_MS,
        election_timeout_min: 2 * NO_TICKS_MS,
        election_timeout_max: 3 * NO_TICKS_MS,
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: LOG_KEPT_ENTRIES,
        purge_batch_size: 1,
        ..openraft::Config::default()
    };
    let raft_config = Arc::new(raft_config.validate().map_err(raft_error)?);
    let (_, last) = log.bounds();
    let group = Raft::new(id, raft_config, NoPeers, LogStore::new(log.clone()), machine).await.map_err(raft_error)?;
    if !group.is_initialized().await.map_err(raft_error)? {
        let member = Member { name: config.name.clone(), address: String::new() };
        group.initialize(BTreeMap::from([(id, member)])).await.map_err(raft_error)?;
    } else if group.metrics().borrow().state != ServerState::Leader {
        group.trigger().elect().await.map_err(raft_error)?;
    }
    let wait = group.wait(Some(LEAD_WITHIN));
    wait.state(ServerState::Leader, "leads its group of one").await.map_err(raft_error)?;
    wait.applied_index_at_least(last.map(|last| last.index), "has applied its log").await.map_err(raft_error)?;
    Ok(group)
}

/// Leaves out revisions that may have been handed out before a power cut and lost with it, so that no revision
/// ever means two things.
async fn skip_what_may_be_lost(store: &Store, ground: &Ground, dir: &Path, fresh: bool) -> Result<(), OpenError> {
    let path = dir.join("boot");
    let before = small_file::read(ground.disk.as_ref(), &path).map_err(failed("read", &path))?;
    if before.as_deref() == Some(ground.boot_id.as_str()) {
        return Ok(());
    }
    if !fresh {
        let skipped = store.command(Command::Skip { revisions: propose::RELAXED_REVISIONS_MAX }).await;
        skipped.map_err(|error| OpenError::Raft(Box::new(error)))?;
    }
    small_file::write(ground.disk.as_ref(), &path, &ground.boot_id).map_err(failed("write", &path))
}

async fn snapshots_when_due(group: Raft, due: Arc<Notify>, stopping: task::Shutdown) {
    loop {
        tokio::select! {
            () = due.notified() => {}
            () = stopping.cancelled() => return,
        }
        if let Err(error) = group.trigger().snapshot().await {
            tracing::warn!(%error, "a snapshot could not be started");
        }
    }
}

/// What is to be done, in order, when the store ends.
struct Ending {
    group: Raft,
    log: Log,
    watched: Arc<Watched>,
    stopping: task::Shutdown,
    closed: task::Shutdown,
    _lock: Option<Flock<File>>,
}

impl Ending {
    async fn run(self, shutdown: task::Shutdown, failed: task::Shutdown) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = failed.cancelled() => tracing::error!("the store has failed and takes no more requests"),
        }
        self.stopping.cancel();
        self.watched.close();
        if !failed.is_cancelled() {
            if let Err(error) = self.group.shutdown().await {
                tracing::warn!(%error, "Raft did not stop in order");
            }
            self.log.close().await;
        }
        drop(self._lock);
        self.closed.cancel();
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, OpenError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(failed("make", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => OpenError::Locked { path: dir.to_owned() },
        error => OpenError::Io { action: "lock", path: path.clone(), source: error.into() },
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
