//! The log after power cuts and damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::{CommittedLeaderId, EntryPayload, LogId, Vote};

use super::segment::SEGMENT_HEADER_BYTES;
use super::{Log, Options, Runs};
use crate::command::{Batch, Command};
use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::error::OpenError;
use crate::raft::Entry;
use crate::types::{Durability, Txn};

const SEGMENT_BYTES: u64 = 4 << 10;

fn options() -> Options {
    Options {
        dir: PathBuf::from("/log"),
        segment_bytes: SEGMENT_BYTES,
        relaxed_sync_after: Duration::from_secs(60),
        runs: Runs::default(),
    }
}

fn open(disk: &FakeDisk) -> Result<Log, OpenError> {
    let log = Log::open(Arc::new(disk.clone()), options(), task::Shutdown::new())?;
    log.set_alone(true);
    Ok(log)
}

fn entry(index: u64, value_bytes: usize, durability: Durability) -> Entry {
    let txn = Txn { durability, ..Txn::put("key", Bytes::from(vec![index as u8; value_bytes])) };
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(Batch::new(vec![Command::Txn(txn)])),
    }
}

async fn append(log: &Log, index: u64, value_bytes: usize, durability: Durability) {
    let (done, ended) = tokio::sync::oneshot::channel();
    log.append(vec![entry(index, value_bytes, durability)], Box::new(move |result| drop(done.send(result))));
    ended.await.unwrap().unwrap();
}

async fn indexes(log: &Log) -> Vec<u64> {
    log.entries(0, u64::MAX, usize::MAX).await.iter().map(|entry| entry.log_id.index).collect()
}

fn first_segment() -> &'static Path {
    Path::new("/log/0000000000000001.log")
}

#[tokio::test]
async fn a_log_reads_back_over_segments_with_vote_and_purge() {
    let disk = FakeDisk::default();
    let log = open(&disk).unwrap();
    log.save_vote(Vote::new_committed(3, 7)).await;
    for index in 0..40 {
        append(&log, index, 500, Durability::Synced).await;
    }
    log.save_committed(entry(38, 0, Durability::Synced).log_id);
    log.purge(entry(20, 0, Durability::Synced).log_id).await;
    log.close().await;
    let segments = disk.list(Path::new("/log")).unwrap();
    assert!(!segments.contains(&"0000000000000001.log".to_owned()), "{segments:?}");

    let disk = disk.after_power_cut(1);
    let log = open(&disk).unwrap();
    assert_eq!(log.vote(), Some(Vote::new_committed(3, 7)));
    assert_eq!(log.committed().unwrap().index, 38);
    assert_eq!(indexes(&log).await, (21..40).collect::<Vec<_>>());
    let want: Vec<Entry> = (30..40).map(|index| entry(index, 500, Durability::Synced)).collect();
    assert_eq!(log.entries(30, 40, usize::MAX).await, want);
    log.truncate(35).await;
    append(&log, 35, 10, Durability::Synced).await;
    log.close().await;
    assert_eq!(indexes(&open(&disk).unwrap()).await, (21..36).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off_and_damage_before_it_is_refused() {
    let disk = FakeDisk::default();
    let log = open(&disk).unwrap();
    append(&log, 0, 20, Durability::Synced).await;
    let first_end = log.written_bytes();
    append(&log, 1, 20, Durability::Synced).await;
    let second_end = log.written_bytes();
    append(&log, 2, 20, Durability::Synced).await;
    let end = log.written_bytes();

    for torn_at in second_end..=end {
        let disk = disk.after_power_cut(0);
        let mut torn = false;
        disk.edit(first_segment(), |content| {
            let tail = &mut content[(SEGMENT_HEADER_BYTES + torn_at) as usize..];
            torn = tail.iter().any(|byte| *byte != 0);
            tail.fill(0);
        });
        let log = open(&disk).unwrap();
        let kept = if torn { 2 } else { 3 };
        assert_eq!(indexes(&log).await, (0..kept).collect::<Vec<_>>(), "torn at {torn_at}");
        append(&log, kept, 30, Durability::Synced).await;
        let log = open(&disk.after_power_cut(torn_at)).unwrap();
        assert_eq!(indexes(&log).await, (0..=kept).collect::<Vec<_>>(), "after the repair at {torn_at}");
    }
    for damaged_at in 0..second_end {
        let disk = disk.after_power_cut(0);
        disk.edit(first_segment(), |content| content[(SEGMENT_HEADER_BYTES + damaged_at) as usize] ^= 0x40);
        match open(&disk) {
            Err(OpenError::LogDamaged { last_good_index: 0, offset, .. }) => {
                let record = if damaged_at < first_end { 0 } else { first_end };
                assert_eq!(offset, SEGMENT_HEADER_BYTES + record);
            }
            Err(error) => panic!("damage at {damaged_at}: {error}"),
            Ok(_) => panic!("damage at {damaged_at} was not noticed"),
        }
    }
}

#[tokio::test]
async fn after_a_clean_stop_damage_to_the_last_entry_is_noticed() {
    let disk = FakeDisk::default();
    let log = open(&disk).unwrap();
    append(&log, 0, 20, Durability::Synced).await;
    let end = log.written_bytes();
    log.close().await;
    disk.edit(first_segment(), |content| content[(SEGMENT_HEADER_BYTES + end) as usize - 1] ^= 1);
    assert!(matches!(open(&disk), Err(OpenError::LogDamaged { .. })));
}

#[tokio::test]
async fn relaxed_entries_cause_no_sync_and_share_the_next_one() {
    let disk = FakeDisk::default();
    let log = open(&disk).unwrap();
    append(&log, 0, 20, Durability::Synced).await;
    let before = disk.syncs();
    append(&log, 1, 20, Durability::Relaxed).await;
    append(&log, 2, 20, Durability::Relaxed).await;
    assert_eq!(disk.syncs(), before);
    append(&log, 3, 20, Durability::Synced).await;
    assert_eq!(indexes(&open(&disk.after_power_cut(9)).unwrap()).await, vec![0, 1, 2, 3]);
}
