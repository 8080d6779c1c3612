//! The whole store: on a real directory, and on a disk that fills up or loses its power.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use crate::disk::fake::FakeDisk;
use crate::log::Runs;
use crate::materialised::{self, Database, Header};
use crate::open::{Ground, open_on};
use crate::raft::SnapshotMeta;
use crate::snapshot::Contents;
use crate::state::State;
use crate::{
    Compare, Config, Durability, Error, Event, KeyRange, OpOutcome, OpenError, Range, ReadOnly, Store, Target, Txn,
    WatchError, WatchRequest,
};

const SEGMENT_BYTES: u64 = 128 << 10;

fn ground(disk: &FakeDisk, boot_id: &str) -> Ground {
    Ground {
        disk: Arc::new(disk.clone()),
        database_dir: PathBuf::from("/nonexistent/sled"),
        segment_bytes: SEGMENT_BYTES,
        relaxed_sync_after: Duration::from_secs(60),
        runs: Runs::default(),
        transport: None,
        seed: None,
        boot_id: boot_id.to_owned(),
    }
}

async fn open_fake(disk: &FakeDisk, boot_id: &str) -> Result<Store, OpenError> {
    let config = Config::new(PathBuf::from("/db"), "one");
    open_on(ground(disk, boot_id), config, task::Shutdown::new(), None).await
}

async fn open_real(dir: &tempfile::TempDir) -> (Store, task::Shutdown) {
    let shutdown = task::Shutdown::new();
    (Store::open(Config::new(dir.path(), "one"), shutdown.clone()).await.unwrap(), shutdown)
}

async fn close(store: Store, shutdown: &task::Shutdown) {
    shutdown.cancel();
    store.closed().await;
}

fn value(store: &Store, key: &str) -> Option<Bytes> {
    store.range(&KeyRange::key(key.to_owned()).into()).unwrap().kvs.pop().map(|kv| kv.value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_keeps_its_state_and_history_over_restarts_and_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let (store, shutdown) = open_real(&dir).await;
    assert_eq!(store.revision(), 1);
    assert!(matches!(
        Store::open(Config::new(dir.path(), "two"), shutdown.clone()).await,
        Err(OpenError::Locked { .. })
    ));
    for chunk in (0..10_000).collect::<Vec<u32>>().chunks(1_000) {
        let writes =
            chunk.iter().map(|at| store.txn(Txn::put(format!("/registry/pods/{at:05}"), vec![*at as u8; 200])));
        join_all(writes).await.into_iter().for_each(|outcome| assert!(outcome.unwrap().succeeded));
    }
    let deleted = store.txn(Txn::delete(KeyRange::prefix("/registry/pods/09"))).await.unwrap();
    assert!(matches!(&deleted.responses[0], OpOutcome::Delete { deleted: 1_000, .. }));
    store.compact(5_000).await.unwrap();
    assert!(matches!(store.compact(5_000).await, Err(Error::Compacted { .. })));
    let before = store.status();
    assert_eq!((before.keys, before.revision, before.compacted), (9_000, 10_002, 5_000));
    close(store, &shutdown).await;

    for round in 0..3 {
        let started = std::time::Instant::now();
        let (store, shutdown) = open_real(&dir).await;
        assert!(started.elapsed() < Duration::from_secs(5), "opening took {:?}", started.elapsed());
        let status = store.status();
        assert_eq!((status.keys, status.revision, status.compacted), (9_000, 10_002, 5_000));
        assert_eq!((status.bytes, status.history_bytes), (before.bytes, before.history_bytes));
        let past = Range { revision: Some(10_001), count_only: true, ..Range::all(KeyRange::prefix("/registry/")) };
        assert_eq!(store.range(&past).unwrap().count, 10_000);
        let mut watcher = store
            .watch(WatchRequest { keys: KeyRange::prefix("/registry/pods/09"), from_revision: Some(9_500) })
            .unwrap();
        let mut events = Vec::new();
        while events.len() < 1_000 + 502 {
            events.extend(watcher.next().await.unwrap().events);
        }
        assert!(events.windows(2).all(|pair| pair[0].kv.mod_revision <= pair[1].kv.mod_revision));
        assert!(events.last().unwrap().deleted && events.last().unwrap().prev.is_some());
        if round == 0 {
            store.inner.raft.trigger().snapshot().await.unwrap();
            let wait = store.inner.raft.wait(Some(Duration::from_secs(10)));
            wait.metrics(|metrics| metrics.snapshot.is_some() && metrics.purged.is_some(), "purged").await.unwrap();
            assert!(store.inner.log.entries(0, 5, usize::MAX).await.is_empty());
        }
        close(store, &shutdown).await;
        assert_eq!(watcher.next().await.unwrap_err(), WatchError::Closed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_replaced_by_the_materialised_state_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, shutdown) = open_real(&dir).await;
    // Enough for a checkpoint.
    for at in 0..40 {
        store.txn(Txn::put(format!("large/{at}"), vec![at as u8; 500_000])).await.unwrap();
    }
    let header = dir.path().join("sled/db");
    while !header.exists() || materialised_revision(&dir) < 30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = store.range(&KeyRange::prefix("").into()).unwrap();
    close(store, &shutdown).await;
    let (store, shutdown) = open_real(&dir).await;
    // The snapshot reaches as far as the checkpoint, so that the log may be purged up to there and no further.
    store.inner.snapshots.write(&contents_at_checkpoint(&dir)).unwrap();
    close(store, &shutdown).await;
    let snapshot = std::fs::read_dir(dir.path().join("snapshot")).unwrap().next().unwrap().unwrap().path();
    let mut content = std::fs::read(&snapshot).unwrap();
    content[1_000_000] ^= 1;
    std::fs::write(&snapshot, content).unwrap();

    let (store, shutdown) = open_real(&dir).await;
    assert_eq!(store.range(&KeyRange::prefix("").into()).unwrap(), before);
    assert!(snapshot.with_extension("damaged").exists());
    close(store, &shutdown).await;
    std::fs::rename(snapshot.with_extension("damaged"), &snapshot).unwrap();
    std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let refused = Store::open(Config::new(dir.path(), "one"), task::Shutdown::new()).await;
    assert!(matches!(refused, Err(OpenError::SnapshotDamaged { .. })));
}

fn materialised(dir: &tempfile::TempDir) -> Option<(Header, State)> {
    // A copy: the store may have it open.
    let copy = tempfile::tempdir().unwrap();
    for name in ["db", "conf"] {
        std::fs::copy(dir.path().join("sled").join(name), copy.path().join(name)).ok()?;
    }
    materialised::load(&mut Database::new(copy.path().to_owned()))
}

fn materialised_revision(dir: &tempfile::TempDir) -> u64 {
    materialised(dir).map_or(0, |(header, _)| header.revision)
}

fn contents_at_checkpoint(dir: &tempfile::TempDir) -> Contents {
    let (header, state) = materialised(dir).unwrap();
    let meta = SnapshotMeta {
        last_log_id: header.applied.log_id,
        last_membership: header.applied.membership,
        snapshot_id: "at the checkpoint".to_owned(),
    };
    Contents {
        meta,
        revision: state.revision(),
        compacted: state.compacted(),
        hash: state.hash(),
        leases: state.leases(),
        records: state.records(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let whole = FakeDisk::default();
    let acknowledged = work(&whole).await;
    assert_eq!(acknowledged.len(), 4 * 30);
    let operations = whole.operations();
    assert!(operations > 100, "{operations} operations");
    for stop in 1..=operations {
        let disk = FakeDisk::default();
        disk.stop_at(stop);
        let acknowledged = work(&disk).await;
        for seed in 0..3 {
            let found = disk.after_power_cut(stop * 10 + seed);
            let store = match open_fake(&found, "second").await {
                Ok(store) => store,
                Err(error) => panic!("stopped at {stop}, seed {seed}: {error} {error:?}"),
            };
            for (key, (revision, text)) in &acknowledged {
                let range = store.range(&KeyRange::key(key.clone()).into()).unwrap();
                let Some(kv) = range.kvs.first() else { panic!("stopped at {stop}, seed {seed}: {key} is lost") };
                assert_eq!((kv.mod_revision, &kv.value[..]), (*revision, text.as_bytes()), "stopped at {stop}");
            }
            let next = store.txn(Txn::put("after", "cut")).await.unwrap().revision;
            assert!(acknowledged.values().all(|(revision, _)| *revision < next));
        }
    }
}

/// Writes with four clients until it is done or the disk fails; returns what was acknowledged.
async fn work(disk: &FakeDisk) -> BTreeMap<String, (u64, String)> {
    let Ok(store) = open_fake(disk, "first").await else { return BTreeMap::new() };
    let clients = (0..4).map(|client| {
        let store = store.clone();
        async move {
            let mut acknowledged = BTreeMap::new();
            for at in 0..30 {
                let (key, text) = (format!("{client}/{at}"), format!("{at}").repeat(1_000));
                match store.txn(Txn::put(key.clone(), text.clone())).await {
                    Ok(outcome) => acknowledged.insert(key, (outcome.revision, text)),
                    Err(_) => break,
                };
                if client == 0 && at == 15 {
                    let _ = store.inner.raft.trigger().snapshot().await;
                }
                if client == 1 && at == 20 {
                    let _ = store.compact(store.revision() - 10).await;
                }
            }
            acknowledged
        }
    });
    join_all(clients).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_relaxed_write_never_gives_its_revision_to_another() {
    let disk = FakeDisk::default();
    let store = open_fake(&disk, "first").await.unwrap();
    let kept = store.txn(Txn::put("kept", "1")).await.unwrap().revision;
    let relaxed = Txn { durability: Durability::Relaxed, ..Txn::put("lease", "1") };
    let before = disk.operations();
    let lost = store.txn(relaxed.clone()).await.unwrap().revision;
    assert!(lost > kept && value(&store, "lease").is_some());
    assert_eq!(disk.operations() - before, 1, "one write and no sync");

    let store = open_fake(&disk.after_power_cut(1), "second").await.unwrap();
    assert!(store.revision() > lost);
    assert_eq!(value(&store, "kept").unwrap(), "1");
    // The same boot: the process ended, the machine did not.
    let revision = store.revision();
    let again = FakeDisk::default();
    let first = open_fake(&again, "first").await.unwrap();
    let written = first.txn(relaxed).await.unwrap().revision;
    let second = open_fake(&again, "first").await.unwrap();
    assert_eq!((second.revision(), value(&second, "lease").is_some()), (written, true));
    assert!(revision > written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_keeps_reads_and_recovers() {
    let disk = FakeDisk::default();
    let store = open_fake(&disk, "first").await.unwrap();
    store.txn(Txn::put("first", "1")).await.unwrap();
    disk.set_quota(Some(3 * SEGMENT_BYTES));
    let mut written = Vec::new();
    let refused = loop {
        let key = format!("fill/{}", written.len());
        match store.txn(Txn::put(key.clone(), vec![7; 10_000])).await {
            Ok(_) => written.push(key),
            Err(error) => break error,
        }
        assert!(written.len() < 1_000);
    };
    assert!(matches!(refused, Error::NoSpace(ReadOnly::DiskFull)), "{refused}");
    assert_eq!(store.status().read_only, Some(ReadOnly::DiskFull));
    let revision = store.revision();
    assert!(written.iter().all(|key| value(&store, key).is_some()));
    assert_eq!(store.range(&KeyRange::prefix("fill/").into()).unwrap().count, written.len(), "nothing half applied");
    store.inner.raft.trigger().snapshot().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.compact(revision).await.unwrap();
    assert!(store.txn(Txn::put("fill/more", vec![7; 10_000])).await.is_err());

    disk.set_quota(None);
    let next = store.txn(Txn::put("after", "2")).await.unwrap();
    assert_eq!(next.revision, revision + 1);
    while store.status().read_only.is_some() || store.inner.snapshots.current().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let store = open_fake(&disk.after_power_cut(3), "first").await.unwrap();
    assert_eq!(store.revision(), revision + 1);
    assert!(written.iter().all(|key| value(&store, key).is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_refuses_puts_and_takes_deletions() {
    let disk = FakeDisk::default();
    let config = Config { quota_bytes: 20_000, ..Config::new("/db", "one") };
    let store = open_on(ground(&disk, "b"), config, task::Shutdown::new(), None).await.unwrap();
    let mut refused = None;
    for at in 0..10 {
        if let Err(error) = store.txn(Txn::put(format!("k{at}"), vec![0; 5_000])).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(Error::NoSpace(ReadOnly::QuotaExceeded))));
    store.txn(Txn::delete(KeyRange::prefix("k"))).await.unwrap();
    store.compact(store.revision()).await.unwrap();
    store.txn(Txn::put("k", vec![0; 5_000])).await.unwrap();
    store.txn(Txn::put("l", "1")).await.unwrap();
    assert_eq!(store.status().read_only, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_bounded_without_being_asked() {
    let disk = FakeDisk::default();
    let config = Config { history_bytes_max: 100_000, ..Config::new("/db", "one") };
    let store = open_on(ground(&disk, "b"), config, task::Shutdown::new(), None).await.unwrap();
    let mut slow = store.watch(WatchRequest { keys: KeyRange::key("k"), from_revision: None }).unwrap();
    for _ in 0..100 {
        store.txn(Txn::put("k", vec![0; 5_000])).await.unwrap();
    }
    let status = store.status();
    assert!(status.compacted > 0 && status.history_bytes < 120_000, "{status:?}");
    assert!(matches!(slow.next().await, Err(WatchError::Lagged { .. })));
    let request = WatchRequest { keys: KeyRange::key("k"), from_revision: Some(2) };
    assert!(matches!(store.watch(request), Err(Error::Compacted { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_compare_and_write_and_are_bounded() {
    let disk = FakeDisk::default();
    let store = open_fake(&disk, "b").await.unwrap();
    let create = Txn { compare: vec![Compare::mod_revision("k", 0)], ..Txn::put("k", "1") };
    let created = store.txn(create.clone()).await.unwrap();
    assert!(created.succeeded);
    let again = store.txn(create).await.unwrap();
    assert!(!again.succeeded && again.responses.is_empty() && again.revision == created.revision);
    let large = Txn::put("k", vec![0; crate::TXN_BYTES_MAX]);
    assert!(matches!(store.txn(large).await, Err(Error::TooLarge { .. })));
    let largest = Txn::put("k", vec![0; 100_000]);
    store.txn(largest).await.unwrap();
    let many = Txn { compare: vec![Compare::equal("k", Target::Version(1)); 129], ..Txn::default() };
    assert!(matches!(store.txn(many).await, Err(Error::TooManyOps { .. })));
    assert!(matches!(store.txn(Txn::put("", "1")).await, Err(Error::EmptyKey)));
    let future = Range { revision: Some(99), ..Range::all(KeyRange::key("k")) };
    assert!(matches!(store.range(&future), Err(Error::FutureRevision { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watchers_see_every_change_once_and_in_order_while_clients_write() {
    let disk = FakeDisk::default();
    let store = open_fake(&disk, "b").await.unwrap();
    let keys = [KeyRange::prefix("a/"), KeyRange::prefix(""), KeyRange::key("b/3"), KeyRange::between("a/5", "b/5")];
    let watching: Vec<_> = (0..40)
        .map(|at| {
            let (store, keys) = (store.clone(), keys[at % keys.len()].clone());
            task::spawn("watch", async move {
                // Some begin from the beginning, some from what they have just seen.
                tokio::time::sleep(Duration::from_millis(at as u64)).await;
                let from = if at % 2 == 0 { 2 } else { store.revision() + 1 };
                let mut watcher = store.watch(WatchRequest { keys: keys.clone(), from_revision: Some(from) }).unwrap();
                let progress = watcher.progress();
                let mut events: Vec<Arc<Event>> = Vec::new();
                loop {
                    let batch = watcher.next().await.unwrap();
                    let through = batch.events.last().map_or(0, |event| event.kv.mod_revision);
                    assert!(batch.revision >= through);
                    events.extend(batch.events);
                    if batch.revision >= 2 + 2 * 400 {
                        return (keys, from, events);
                    }
                    if store.revision() == 1 + 2 * 400 + 1 {
                        progress.request();
                    }
                }
            })
        })
        .collect();
    let clients = (0..8).map(|client: u64| {
        let store = store.clone();
        async move {
            for at in 0..100u64 {
                let key =
                    format!("{}/{}", if (client + at).is_multiple_of(2) { "a" } else { "b" }, (at * 7 + client) % 10);
                store.txn(Txn::put(key, format!("{client}-{at}"))).await.unwrap();
            }
        }
    });
    join_all(clients).await;
    let last = store.txn(Txn { success: all_keys(), ..Txn::default() }).await.unwrap().revision;
    assert_eq!(last, 2 + 800);
    let everything = store.watch(WatchRequest { keys: KeyRange::prefix(""), from_revision: Some(2) }).unwrap();
    let all = read_through(everything, last).await;
    assert_eq!(all.iter().filter(|event| event.kv.mod_revision < last).count(), 800);
    for watch in watching {
        let (keys, from, events) = watch.await.unwrap().unwrap();
        let want = all.iter().filter(|event| keys.contains(&event.kv.key) && event.kv.mod_revision >= from);
        assert!(events.iter().eq(want), "{keys:?} from {from}");
    }
}

fn all_keys() -> Vec<crate::Op> {
    let keys = ["a", "b"].into_iter().flat_map(|group| (0..10).map(move |at| format!("{group}/{at}")));
    keys.map(|key| crate::Op::put(key, "last")).collect()
}

async fn read_through(mut watcher: crate::Watcher, revision: u64) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    loop {
        let batch = watcher.next().await.unwrap();
        events.extend(batch.events);
        if batch.revision >= revision {
            return events;
        }
    }
}
