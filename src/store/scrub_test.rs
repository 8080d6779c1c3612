//! Damage that is found before it is needed, and damage that is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::log::Runs;
use crate::open::{Ground, open_on};
use crate::{Config, OpenError, Store, Txn};

async fn open(disk: &FakeDisk) -> Result<(Store, task::Shutdown), OpenError> {
    let ground = Ground {
        disk: Arc::new(disk.clone()),
        database_dir: PathBuf::from("/nonexistent/sled"),
        segment_bytes: 128 << 10,
        relaxed_sync_after: Duration::from_secs(60),
        runs: Runs::Task { pause: Arc::new(|| Duration::from_micros(100)) },
        transport: None,
        seed: None,
        boot_id: "b".to_owned(),
    };
    let shutdown = task::Shutdown::new();
    Ok((open_on(ground, Config::new("/db", "one"), shutdown.clone(), None).await?, shutdown))
}

/// A store with a snapshot and some segments of a log behind it.
async fn filled(disk: &FakeDisk) -> (Store, task::Shutdown) {
    let (store, shutdown) = open(disk).await.unwrap();
    for at in 0..40 {
        store.txn(Txn::put(format!("k{at}"), vec![at; 10_000])).await.unwrap();
    }
    store.inner.raft.trigger().snapshot().await.unwrap();
    while store.inner.snapshots.current().is_none() {
        sleep(Duration::from_millis(10)).await;
    }
    for at in 40..80 {
        store.txn(Txn::put(format!("k{at}"), vec![at; 10_000])).await.unwrap();
    }
    (store, shutdown)
}

fn file(disk: &FakeDisk, dir: &str, suffix: &str) -> PathBuf {
    let names = disk.list(Path::new(dir)).unwrap();
    Path::new(dir).join(names.iter().find(|name| name.ends_with(suffix)).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_or_log_is_found_and_replaced_while_the_store_serves() {
    for (dir, suffix, offset) in [("/db/snapshot", ".snapshot", 200_000), ("/db/log", ".log", 60_000)] {
        let disk = FakeDisk::default();
        let (store, shutdown) = filled(&disk).await;
        store.scrub().await.unwrap();
        assert_eq!(store.status().damage_found, 0);
        let damaged = file(&disk, dir, suffix);
        disk.edit(&damaged, |content| content[offset] ^= 1);
        let found = store.scrub().await.unwrap_err();
        assert!(found.to_string().contains("damaged"), "{found}");
        assert_eq!(store.status().damage_found, 1);
        while disk.list(Path::new(dir)).unwrap().iter().any(|name| damaged.ends_with(name)) {
            sleep(Duration::from_millis(100)).await;
        }
        store.scrub().await.unwrap();
        shutdown.cancel();
        store.closed().await;
        let (store, _shutdown) = open(&disk).await.unwrap();
        assert_eq!(store.status().keys, 80);
    }
}

#[tokio::test(start_paused = true)]
async fn the_disk_is_read_again_once_a_day() {
    let disk = FakeDisk::default();
    let (store, _shutdown) = filled(&disk).await;
    disk.edit(&file(&disk, "/db/snapshot", ".snapshot"), |content| content[100_000] ^= 1);
    sleep(Duration::from_secs(25 * 3_600)).await;
    assert_eq!(store.status().damage_found, 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_damaged_when_it_is_needed_is_refused_with_the_last_good_revision() {
    let disk = FakeDisk::default();
    let (store, shutdown) = filled(&disk).await;
    let last = store.revision();
    shutdown.cancel();
    store.closed().await;
    let segments = disk.list(Path::new("/db/log")).unwrap();
    let needed = segments.iter().filter(|name| name.ends_with(".log")).nth(1).unwrap();
    disk.edit(&Path::new("/db/log").join(needed), |content| content[60_000] ^= 1);
    let Err(refused) = open(&disk).await else { panic!("damage was not noticed") };
    let OpenError::LogDamaged { last_good_revision: Some(good), .. } = refused else { panic!("{refused}") };
    assert!(good > 40 && good < last, "{good} of {last}");
    assert!(refused.to_string().contains(&format!("the last good revision is {good}")), "{refused}");
}
