//! From a directory to a store that serves, and back.
//!
//! The order: lock the directory; load the snapshot; read the log and replay what was committed; start Raft (`start`),
//! which leads at once if it is alone; leave out the revisions that a power cut may have taken back.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rand::RngExt;
use tokio::sync::{Notify, mpsc, watch};

use crate::command::Command;
use crate::disk::{self, Disk, RealDisk};
use crate::error::OpenError;
use crate::lessor::Lessor;
use crate::log::{self, Log, Options, Runs, SEGMENT_BYTES};
use crate::materialised::{self, Checkpointer, Database};
use crate::members::{self, Group, Inbound, Nowhere, Peers, Pulse, Reads, Steward, Transport, wire};
use crate::raft::propose::{self, Proposer};
use crate::raft::{Applied, Due, Id, Leadership, Machine, Member, Raft};
use crate::scrub::Scrub;
use crate::snapshot::{self, Snapshots};
use crate::start::{self, Kind};
use crate::state::State;
use crate::watch::Watched;
use crate::{Config, Inner, Store, raft, small_file};

/// A relaxed write is synced after so long if no other write has caused a sync.
pub(crate) const RELAXED_SYNC_AFTER: Duration = Duration::from_secs(10);
/// Entries replayed at a time.
const REPLAY_ENTRIES: u64 = 256;
/// A Raft that hangs on a failed disk is left after so long.
const STOP_FAILED_WITHIN: Duration = Duration::from_millis(100);
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
    /// The way to other members, if it is not the one that the configuration says.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    /// What chance is drawn from; `None` is the system's.
    pub(crate) seed: Option<u64>,
    /// Another one than last time means that what was not synced may be lost.
    pub(crate) boot_id: String,
}

pub(crate) async fn open(config: Config, shutdown: task::Shutdown) -> Result<Store, OpenError> {
    let disk = Arc::new(RealDisk);
    disk.make_dir(&config.dir).map_err(failed("make", &config.dir))?;
    let lock = lock(&config.dir)?;
    let boot_id = std::fs::read_to_string(BOOT_ID).map_err(failed("read", Path::new(BOOT_ID)))?;
    let ground = Ground {
        disk,
        segment_bytes: SEGMENT_BYTES,
        relaxed_sync_after: RELAXED_SYNC_AFTER,
        runs: Runs::Thread,
        database_dir: config.dir.join("sled"),
        transport: None,
        seed: None,
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
        biased;
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
    let drawn = Pulse::random(ground.seed).random_range(1..=Id::MAX);
    let loading = (ground.disk.clone(), config.dir.clone(), failed_log.clone());
    let options = Options {
        dir: config.dir.join("log"),
        segment_bytes: ground.segment_bytes,
        relaxed_sync_after: ground.relaxed_sync_after,
        runs: ground.runs.clone(),
    };
    let work = move || {
        let (disk, dir, failed) = loading;
        load(&disk, &dir, database, options, drawn, failed)
    };
    let loaded = disk::work(ground.disk.as_ref(), work).await.map_err(|error| OpenError::Raft(Box::new(error)))??;
    start::check_kind(ground.disk.as_ref(), &config, loaded.fresh)?;
    let me = Member {
        name: config.name.clone(),
        address: config.network.as_ref().map_or_else(String::new, |network| network.address.clone()),
        witness: config.witness,
    };
    if config.reset_to_single && !loaded.fresh {
        start::reset_to_single(loaded.id, me.clone(), &loaded.log, &loaded.watched.applied()).await;
    }
    replay(&loaded.watched, &loaded.log, config.witness).await;

    let transport = match (ground.transport.clone(), &config.network) {
        (Some(transport), _) => transport,
        (None, Some(network)) => wire::Connections::new(loaded.id, network),
        (None, None) => Arc::new(Nowhere),
    };
    let peers = Peers::new(loaded.id, transport);
    let due = Due::default();
    let (watched, snapshots) = (loaded.watched.clone(), loaded.snapshots.clone());
    let machine = Machine::new(watched, snapshots, loaded.log.clone(), due.clone(), config.witness);
    let (raft, kind) = start::start(&peers, &loaded.log, machine, me.clone(), &config).await?;
    loaded.log.set_alone(kind == Kind::Alone);

    let (proposals, waiting) = mpsc::channel(propose::WAITING_MAX);
    let over_quota = Arc::new(AtomicBool::new(false));
    let stopping = task::Shutdown::new();
    let closed = task::Shutdown::new();
    let begins = if kind == Kind::Alone { start::leads(&raft) } else { Leadership::default() };
    let (says, leadership) = watch::channel(begins);
    let group = Group {
        raft: raft.clone(),
        peers: peers.clone(),
        log: loaded.log.clone(),
        leadership: leadership.clone(),
        witness: config.witness,
        paused: Arc::default(),
    };
    let pulse = Pulse {
        raft: raft.clone(),
        peers,
        log: loaded.log.clone(),
        witness: config.witness,
        random: Pulse::random(ground.seed),
        says,
    };
    task::spawn("store-pulse", pulse.run(group.clone(), stopping.clone()));
    let proposer = Proposer {
        group: group.clone(),
        watched: loaded.watched.clone(),
        quota_bytes: config.quota_bytes,
        history_bytes_max: config.history_bytes_max,
        over_quota: over_quota.clone(),
        relaxed: 0,
    };
    let (reads, reading) = mpsc::channel(members::READS_WAITING_MAX);
    task::spawn("store-reads", until(stopping.clone(), Reads { group: group.clone() }.run(reading)));
    let steward = Steward { group: group.clone() };
    task::spawn("store-members", steward.run(leadership.clone(), stopping.clone()));
    let lessor = Arc::new(Lessor::new(loaded.watched.clone(), proposals.clone()));
    task::spawn("store-leases", lessor.clone().run(leadership.clone(), stopping.clone()));
    let inbound = Inbound::new(
        group.clone(),
        loaded.watched.clone(),
        lessor.clone(),
        proposals.clone(),
        loaded.snapshots.clone(),
    );
    if let Some(network) = &config.network {
        let announcing = start::announce(group.clone(), me, network.join.clone());
        task::spawn("store-joins", until(stopping.clone(), announcing));
    }
    let scrub =
        Scrub { log: loaded.log.clone(), snapshots: loaded.snapshots.clone(), due: due.clone(), found: Arc::default() };
    task::spawn("store-scrub", until(stopping.clone(), scrub.clone().run()));
    let store = Store {
        inner: Arc::new(Inner {
            scrub,
            watched: loaded.watched.clone(),
            raft: raft.clone(),
            group: group.clone(),
            inbound: Arc::new(inbound),
            reads,
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
    task::spawn("store-proposer", until(stopping.clone(), proposer.run(waiting)));
    task::spawn("store-snapshots", snapshots_when_due(raft, due.snapshot.clone(), stopping.clone()));
    let checkpointer = Checkpointer {
        materialised: loaded.database,
        watched: loaded.watched.clone(),
        log: loaded.log.clone(),
        due: due.checkpoint.clone(),
        verify: due.verify.clone(),
    };
    task::spawn("store-checkpoints", checkpointer.run(stopping.clone()));
    let ending = Ending { group, log: loaded.log, watched: loaded.watched, stopping, closed, _lock: lock };
    task::spawn("store-end", ending.run(shutdown, failed_log));

    let skip = kind == Kind::Alone && !loaded.fresh && !config.witness;
    skip_what_may_be_lost(&store, &ground, &config.dir, skip).await?;
    Ok(store)
}

/// Works until the store stops.
async fn until(stopping: task::Shutdown, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = work => {}
    }
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
    drawn: Id,
    failed_log: task::Shutdown,
) -> Result<Loaded, OpenError> {
    disk.make_dir(dir).map_err(failed("make", dir))?;
    let snapshots = Snapshots::open(disk.clone(), dir.join(snapshot::DIR))?;
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
    let log = match Log::open(disk.clone(), options.clone(), failed_log) {
        Err(damaged) => return Err(with_last_good_revision(damaged, disk.as_ref(), &options, state, applied)),
        log => log?,
    };
    let (purged, last) = log.bounds();
    if purged > applied.log_id {
        let from = applied.log_id.map_or(0, |id| id.index + 1);
        return Err(OpenError::Gap { from, to: purged.map_or(0, |id| id.index) });
    }
    let id = identity(disk.as_ref(), &dir.join("identity"), drawn)?;
    let watched = Watched::new(state, applied);
    Ok(Loaded { id, fresh: last.is_none(), watched, snapshots: Arc::new(snapshots), log, database })
}

/// Says to which revision snapshot and log can be read, where the log is damaged.
fn with_last_good_revision(
    damaged: OpenError,
    disk: &dyn Disk,
    options: &Options,
    state: State,
    applied: Applied,
) -> OpenError {
    let OpenError::LogDamaged { path, offset, reason, last_good_index, .. } = damaged else { return damaged };
    let next = applied.log_id.map_or(0, |id| id.index + 1);
    let watched = Watched::new(state, applied);
    let entries = log::entries_before_damage(disk, options).into_iter().filter(|entry| entry.log_id.index >= next);
    raft::apply(&watched, entries, false);
    let last_good_revision = Some(watched.read().revision());
    OpenError::LogDamaged { path, offset, reason, last_good_index, last_good_revision }
}

/// This server's number, drawn when the directory is made.
pub(crate) fn identity(disk: &dyn Disk, path: &Path, drawn: Id) -> Result<Id, OpenError> {
    let text = small_file::read(disk, path).map_err(failed("read", path))?;
    if let Some(text) = text {
        let parsed = text.trim().parse().map_err(io::Error::other);
        return parsed.map_err(failed("understand", path));
    }
    small_file::write(disk, path, &format!("{drawn}\n")).map_err(failed("write", path))?;
    Ok(drawn)
}

/// Applies what is known to be committed. Raft applies the rest when it leads.
async fn replay(watched: &Watched, log: &Log, witness: bool) {
    let mut next = watched.applied().log_id.map_or(0, |id| id.index + 1);
    let end = log.committed().map_or(0, |id| id.index + 1);
    while next < end {
        let entries = log.entries(next, end.min(next + REPLAY_ENTRIES), usize::MAX).await;
        let Some(last) = entries.last() else { return };
        next = last.log_id.index + 1;
        raft::apply(watched, entries, witness);
    }
}

/// Leaves out revisions that may have been handed out before a power cut and lost with it, so that no revision
/// ever means two things. With other members there are none: nothing is relaxed then.
async fn skip_what_may_be_lost(store: &Store, ground: &Ground, dir: &Path, skip: bool) -> Result<(), OpenError> {
    let path = dir.join("boot");
    let before = small_file::read(ground.disk.as_ref(), &path).map_err(failed("read", &path))?;
    if before.as_deref() == Some(ground.boot_id.as_str()) {
        return Ok(());
    }
    if skip {
        let skipped = store.command(Command::Skip { revisions: propose::RELAXED_REVISIONS_MAX }).await;
        skipped.map_err(|error| OpenError::Raft(Box::new(error)))?;
    }
    small_file::write(ground.disk.as_ref(), &path, &ground.boot_id).map_err(failed("write", &path))
}

async fn snapshots_when_due(group: Raft, due: Arc<Notify>, stopping: task::Shutdown) {
    loop {
        tokio::select! {
            biased;
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
    group: Group,
    log: Log,
    watched: Arc<Watched>,
    stopping: task::Shutdown,
    closed: task::Shutdown,
    _lock: Option<Flock<File>>,
}

impl Ending {
    async fn run(self, shutdown: task::Shutdown, failed: task::Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = failed.cancelled() => tracing::error!("the store has failed and takes no more requests"),
        }
        if !failed.is_cancelled() {
            members::hand_over(&self.group).await;
        }
        self.stopping.cancel();
        self.watched.close();
        if failed.is_cancelled() {
            let _ = tokio::time::timeout(STOP_FAILED_WITHIN, self.group.raft.shutdown()).await;
        } else {
            if let Err(error) = self.group.raft.shutdown().await {
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

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
