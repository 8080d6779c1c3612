//! Leases of a whole store, with the clock pretended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::disk::fake::FakeDisk;
use crate::log::Runs;
use crate::open::{Ground, open_on};
use crate::{Config, Error, KeyRange, Op, Put, Store, Txn};

async fn open(disk: &FakeDisk) -> (Store, task::Shutdown) {
    let ground = Ground {
        disk: Arc::new(disk.clone()),
        database_dir: PathBuf::from("/nonexistent/sled"),
        segment_bytes: 128 << 10,
        relaxed_sync_after: Duration::from_secs(60),
        runs: Runs::Task { pause: Arc::new(|| Duration::from_millis(1)) },
        transport: None,
        seed: None,
        boot_id: "b".to_owned(),
    };
    let shutdown = task::Shutdown::new();
    (open_on(ground, Config::new("/db", "one"), shutdown.clone(), None).await.unwrap(), shutdown)
}

fn put_with(key: &str, lease: i64) -> Txn {
    let put = Put { key: key.to_owned().into(), value: "1".into(), lease, ..Put::default() };
    Txn { success: vec![Op::Put(put)], ..Txn::default() }
}

fn count(store: &Store) -> usize {
    store.range(&KeyRange::prefix("").into()).unwrap().count
}

#[tokio::test(start_paused = true)]
async fn keys_go_with_their_lease_unless_it_is_kept_alive() {
    let (store, _shutdown) = open(&FakeDisk::default()).await;
    let lease = store.lease_grant(None, 10).await.unwrap();
    assert_eq!(store.lease_grant(Some(7), 1).await.unwrap().ttl_seconds, crate::LEASE_TTL_SECONDS_MIN);
    assert!(matches!(store.lease_grant(Some(7), 10).await, Err(Error::LeaseExists { id: 7 })));
    assert!(matches!(store.lease_grant(Some(8), i64::MAX).await, Err(Error::LeaseTooLong { .. })));
    for key in ["a", "b", "c"] {
        store.txn(put_with(key, lease.id)).await.unwrap();
    }
    store.txn(put_with("short", 7)).await.unwrap();
    // Put again without it, a key stays.
    store.txn(Txn::put("c", "2")).await.unwrap();
    assert!(matches!(store.txn(put_with("d", 99)).await, Err(Error::LeaseNotFound { id: 99 })));

    for _ in 0..5 {
        sleep(Duration::from_secs(8)).await;
        assert_eq!(store.lease_keep_alive(lease.id).await.unwrap(), 10);
    }
    assert!(matches!(store.lease_keep_alive(7).await, Err(Error::LeaseNotFound { id: 7 })));
    assert_eq!(count(&store), 3);
    sleep(Duration::from_secs(6)).await;
    let status = store.lease_time_to_live(lease.id, true).await.unwrap();
    assert_eq!((status.granted_seconds, status.keys), (10, vec!["a".into(), "b".into()]));
    assert!((3..=4).contains(&status.remaining_seconds));

    let before = store.revision();
    sleep(Duration::from_secs(5)).await;
    assert_eq!((count(&store), store.revision()), (1, before + 1));
    assert!(store.leases().is_empty());
    assert!(matches!(store.lease_time_to_live(lease.id, false).await, Err(Error::LeaseNotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_revoked_ends_at_once_with_all_its_keys() {
    let (store, _shutdown) = open(&FakeDisk::default()).await;
    store.lease_grant(Some(5), 60).await.unwrap();
    for key in ["a", "b"] {
        store.txn(put_with(key, 5)).await.unwrap();
    }
    let before = store.revision();
    assert_eq!(store.lease_revoke(5).await.unwrap(), before + 1);
    assert_eq!(count(&store), 0);
    assert!(matches!(store.lease_revoke(5).await, Err(Error::LeaseNotFound { id: 5 })));
    // The number is free again, and its new lease has its own time.
    store.lease_grant(Some(5), 60).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(store.leases().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_begins_anew_after_a_restart_or_where_its_checkpoint_says() {
    let disk = FakeDisk::default();
    let (store, shutdown) = open(&disk).await;
    store.lease_grant(Some(1), 60).await.unwrap();
    store.lease_grant(Some(2), 3_600).await.unwrap();
    store.txn(put_with("short", 1)).await.unwrap();
    store.txn(put_with("long", 2)).await.unwrap();
    for _ in 0..40 {
        sleep(Duration::from_secs(50)).await;
        store.lease_keep_alive(1).await.unwrap();
    }
    store.inner.raft.trigger().snapshot().await.unwrap();
    sleep(Duration::from_secs(30)).await;
    shutdown.cancel();
    store.closed().await;

    let (store, _shutdown) = open(&disk).await;
    assert_eq!(store.leases().len(), 2);
    let began = Instant::now();
    let long = store.lease_time_to_live(2, true).await.unwrap();
    assert!((1_500..=1_900).contains(&long.remaining_seconds), "{long:?}");
    assert_eq!(long.keys, ["long"]);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(count(&store), 2);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(count(&store), 1, "{:?} after the restart", began.elapsed());
    assert_eq!(store.lease_keep_alive(2).await.unwrap(), 3_600);
    sleep(Duration::from_secs(3_000)).await;
    assert_eq!(count(&store), 1);
    sleep(Duration::from_secs(700)).await;
    assert_eq!(count(&store), 0);
}
