//! A snapshot on its way here: its file, as far as it has come.

use std::io;
use std::sync::Arc;

use openraft::{Snapshot, Vote};
use parking_lot::Mutex;

use super::SnapshotPart;
use crate::disk::{self, DiskFile};
use crate::raft::{Id, SnapshotMeta, TypeConfig};
use crate::snapshot::{SnapshotFile, Snapshots};

/// Takes the parts of one snapshot at a time: one that begins ends the one before.
pub(crate) struct Receiver {
    snapshots: Arc<Snapshots>,
    now: Mutex<Option<Receiving>>,
}

struct Receiving {
    vote: Vote<Id>,
    meta: SnapshotMeta,
    target: SnapshotFile,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

/// What came of a part.
pub(crate) enum Received {
    /// So many bytes are here; the next part begins there.
    Bytes(u64),
    Whole(Box<Snapshot<TypeConfig>>),
}

impl Receiver {
    pub(crate) fn new(snapshots: Arc<Snapshots>) -> Receiver {
        Receiver { snapshots, now: Mutex::new(None) }
    }

    /// Takes a part. One that does not follow what is here is left aside; the answer says where to go on.
    pub(crate) async fn take(self: &Arc<Receiver>, part: SnapshotPart) -> io::Result<Received> {
        let (receiver, disk) = (self.clone(), self.snapshots.disk().clone());
        disk::work(disk.as_ref(), move || receiver.take_now(&part)).await.map_err(io::Error::other)?
    }

    fn take_now(&self, part: &SnapshotPart) -> io::Result<Received> {
        let mut now = self.now.lock();
        if part.offset == 0 {
            let target = self.snapshots.receiving();
            let file = target.create()?;
            *now = Some(Receiving { vote: part.vote, meta: part.meta.clone(), target, file, bytes: 0 });
        }
        let Some(receiving) = now.as_mut().filter(|now| now.vote == part.vote && now.meta == part.meta) else {
            return Ok(Received::Bytes(0));
        };
        if receiving.bytes != part.offset {
            return Ok(Received::Bytes(receiving.bytes));
        }
        receiving.file.write_at(part.offset, &part.content)?;
        receiving.bytes += part.content.len() as u64;
        if !part.last {
            return Ok(Received::Bytes(receiving.bytes));
        }
        let Some(whole) = now.take() else { return Ok(Received::Bytes(0)) };
        Ok(Received::Whole(Box::new(Snapshot { meta: whole.meta, snapshot: Box::new(whole.target) })))
    }
}
