//! Reads everything on the disk again, slowly, and checks it: what nobody reads rots unnoticed until it is needed.
//!
//! Log and snapshot are gone through record by record and block by block, the materialised state by its owner
//! (`materialised::Checkpointer`). What is found damaged is told, counted ([`crate::Status::damage_found`]) and
//! replaced: the state in memory is whole, so a new snapshot is written, behind which the log before it can go.
//!
//! Limitations: a damaged part of the log that no snapshot has made needless yet cannot be replaced; opening is
//! refused there, with the last good revision.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::disk;
use crate::log::Log;
use crate::raft::Due;
use crate::snapshot::Snapshots;

/// Everything is read once in so long.
const EVERY: Duration = Duration::from_secs(24 * 3_600);
/// So much is read, and then paused: 1 MiB/s.
const STEP_BYTES: u64 = 256 << 10;
const STEP_PAUSE: Duration = Duration::from_millis(250);

/// Something on the disk is not what was written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} is damaged: {reason}")]
pub struct Damage {
    /// The file, and where in it.
    pub what: String,
    pub reason: String,
}

#[derive(Clone)]
pub(crate) struct Scrub {
    pub(crate) log: Log,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) due: Due,
    pub(crate) found: Arc<AtomicU64>,
}

impl Scrub {
    /// Works until the store stops.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.due.verify.notify_one();
            // It was told already.
            let _ = self.pass().await;
        }
    }

    /// Goes through log and snapshot once; the first damage ends it.
    pub(crate) async fn pass(&self) -> Result<(), Damage> {
        let passed = match self.log().await {
            Ok(()) => self.snapshot().await,
            damaged => damaged,
        };
        if let Err(damage) = &passed {
            tracing::error!(%damage, "the disk has lost something; a new snapshot takes its place");
            self.found.fetch_add(1, Ordering::Relaxed);
            self.due.snapshot.notify_one();
        }
        passed
    }

    async fn log(&self) -> Result<(), Damage> {
        for part in self.log.parts() {
            let mut at = part.begin();
            while at < part.end() {
                let (reading, from) = (part.clone(), at);
                let read = disk::work(self.snapshots.disk().as_ref(), move || reading.check(from, STEP_BYTES)).await;
                match read.map_err(io::Error::other) {
                    Ok(Ok(next)) => at = next,
                    Ok(Err(error)) | Err(error) => {
                        // It may have gone behind a snapshot meanwhile, which is no damage.
                        if !self.log.has(&part) {
                            break;
                        }
                        return Err(Damage { what: part.to_string(), reason: error.to_string() });
                    }
                }
                tokio::time::sleep(STEP_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<(), Damage> {
        let Some((meta, file)) = self.snapshots.current() else { return Ok(()) };
        let damage = |error: io::Error| Damage { what: file.to_string(), reason: error.to_string() };
        let mut check = file.check().map_err(damage)?;
        loop {
            let read = disk::work(self.snapshots.disk().as_ref(), move || {
                let whole = check.step(STEP_BYTES);
                (check, whole)
            });
            let (next, whole) = read.await.map_err(|error| damage(io::Error::other(error)))?;
            check = next;
            match whole {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(_) if self.snapshots.current().is_none_or(|(now, _)| now != meta) => return Ok(()),
                Err(error) => return Err(damage(error)),
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
    }
}
