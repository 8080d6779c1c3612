//! When leases end. The leader alone decides that, by its own clock, and says so with a command; others only know
//! which leases there are.
//!
//! Invariants:
//! - Deadlines exist only while this member leads. Who begins to lead gives each lease its whole time, or what the
//!   last checkpoint said was left of it: a lease never ends early because the leader changed.
//! - A lease whose end was proposed is not kept alive any more.
//! - Without leases nothing ticks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::command::{Command, Remaining};
use crate::error::Error;
use crate::raft::Leadership;
use crate::raft::propose::Proposal;
use crate::state::{LeaseRecord, Touched};
use crate::types::{LeaseId, LeaseStatus};
use crate::watch::Watched;

/// What is left of long leases is made known so often (etcd: `checkpointInterval`).
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5 * 60);
/// Leases in one checkpoint.
const CHECKPOINT_LEASES_MAX: usize = 1_000;
/// Leases ended at once; the next ones come after the pause.
const REVOKES_MAX: usize = 256;
const REVOKE_PAUSE: Duration = Duration::from_millis(500);
/// The end of a lease that was not heard of is proposed again.
const REVOKE_AGAIN: Duration = Duration::from_secs(5);
/// No lease is longer for the clock.
const SECONDS_MAX: u64 = 9_000_000_000;

/// The deadlines of leases.
pub(crate) struct Lessor {
    watched: Arc<Watched>,
    proposals: mpsc::Sender<Proposal>,
    /// `None` while this member does not lead.
    deadlines: Mutex<Option<Deadlines>>,
}

#[derive(Default)]
struct Deadlines {
    of: BTreeMap<LeaseId, Deadline>,
    next: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    /// It is over; its end was proposed.
    over: bool,
}

impl Lessor {
    pub(crate) fn new(watched: Arc<Watched>, proposals: mpsc::Sender<Proposal>) -> Lessor {
        Lessor { watched, proposals, deadlines: Mutex::new(None) }
    }

    /// Gives a lease its whole time again; returns that, in seconds. The caller has seen to it that this member leads
    /// and has applied what was acknowledged before.
    pub(crate) fn keep_alive(&self, id: LeaseId) -> Result<i64, Error> {
        let lease = self.watched.read().lease(id).ok_or(Error::LeaseNotFound { id })?;
        self.begin();
        {
            let mut deadlines = self.deadlines.lock();
            let deadlines = deadlines.as_mut().ok_or(Error::NotLeader)?;
            if deadlines.of.get(&id).is_some_and(|deadline| deadline.over) {
                return Err(Error::LeaseNotFound { id });
            }
            deadlines.set(id, Instant::now() + seconds(lease.ttl_seconds));
        }
        if lease.remaining_seconds != 0 {
            self.propose(Command::LeaseCheckpoint { remaining: vec![Remaining { id, seconds: 0 }] });
        }
        Ok(lease.ttl_seconds)
    }

    /// How a lease is doing, and, if asked for, its keys. The caller has seen to the same as with
    /// [`Lessor::keep_alive`].
    pub(crate) fn status(&self, id: LeaseId, keys: bool) -> Result<LeaseStatus, Error> {
        let (lease, keys) = {
            let state = self.watched.read();
            let lease = state.lease(id).ok_or(Error::LeaseNotFound { id })?;
            (lease, if keys { state.lease_keys(id).cloned().collect() } else { Vec::new() })
        };
        let remaining_seconds = self.remaining_seconds(&lease)?;
        Ok(LeaseStatus { id, granted_seconds: lease.ttl_seconds, remaining_seconds, keys })
    }

    fn remaining_seconds(&self, lease: &LeaseRecord) -> Result<i64, Error> {
        self.begin();
        let deadlines = self.deadlines.lock();
        let deadlines = deadlines.as_ref().ok_or(Error::NotLeader)?;
        let Some(deadline) = deadlines.of.get(&lease.id) else { return Ok(lease.ttl_seconds) };
        Ok(whole_seconds(deadline.at.saturating_duration_since(Instant::now())))
    }

    /// Keeps the deadlines and ends leases, until the store stops.
    pub(crate) async fn run(self: Arc<Lessor>, mut leadership: watch::Receiver<Leadership>, stopping: task::Shutdown) {
        let mut checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
        loop {
            self.follow(leadership.borrow_and_update().here);
            let next = self.next(checkpoint_at);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
               biased;
                () = stopping.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
                () = self.watched.leases_touched() => {}
                () = due => {}
            }
            if self.end_what_is_over() {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(REVOKE_PAUSE) => {}
                }
            }
            if checkpoint_at <= Instant::now() {
                self.checkpoint();
                checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
            }
        }
    }

    /// This member is known to lead; that news may not have come here yet.
    fn begin(&self) {
        if self.deadlines.lock().is_none() {
            self.follow(true);
        }
    }

    /// Brings the deadlines in line with who leads and which leases there are.
    fn follow(&self, leads: bool) {
        let mut deadlines = self.deadlines.lock();
        let touched = self.watched.take_touched_leases();
        if !leads {
            *deadlines = None;
            return;
        }
        let all = deadlines.is_none() || touched == Touched::All;
        let deadlines = deadlines.get_or_insert_default();
        let state = self.watched.read();
        let leases = match touched {
            Touched::Some(ids) if !all => {
                ids.iter().for_each(|id| deadlines.remove(*id));
                ids.into_iter().filter_map(|id| state.lease(id)).collect()
            }
            _ => {
                *deadlines = Deadlines::default();
                state.leases()
            }
        };
        let now = Instant::now();
        for lease in leases {
            let left = if lease.remaining_seconds == 0 { lease.ttl_seconds } else { lease.remaining_seconds };
            deadlines.set(lease.id, now + seconds(left));
        }
    }

    /// When there is something to do.
    fn next(&self, checkpoint_at: Instant) -> Option<Instant> {
        let deadlines = self.deadlines.lock();
        let (at, _) = deadlines.as_ref()?.next.first()?;
        Some((*at).min(checkpoint_at))
    }

    /// Proposes the end of leases that are over; `true` if there are more of them.
    fn end_what_is_over(&self) -> bool {
        let (over, more) = {
            let mut deadlines = self.deadlines.lock();
            let Some(deadlines) = deadlines.as_mut() else { return false };
            let now = Instant::now();
            let over: Vec<LeaseId> =
                deadlines.next.iter().take_while(|(at, _)| *at <= now).take(REVOKES_MAX).map(|(_, id)| *id).collect();
            for id in &over {
                deadlines.end(*id, now + REVOKE_AGAIN);
            }
            (over, deadlines.next.first().is_some_and(|(at, _)| *at <= now))
        };
        for id in over {
            tracing::debug!(id, "a lease is over");
            self.propose(Command::LeaseRevoke { id });
        }
        more
    }

    /// Makes known what is left of the leases that are too long to begin anew with each leader.
    fn checkpoint(&self) {
        let long: Vec<LeaseRecord> = {
            let state = self.watched.read();
            let lasts = |lease: &LeaseRecord| seconds(lease.ttl_seconds) > CHECKPOINT_EVERY;
            state.leases().into_iter().filter(lasts).collect()
        };
        let remaining: Vec<Remaining> = {
            let deadlines = self.deadlines.lock();
            let Some(deadlines) = deadlines.as_ref() else { return };
            let now = Instant::now();
            let left = long.iter().filter_map(|lease| {
                let deadline = deadlines.of.get(&lease.id).filter(|deadline| !deadline.over)?;
                let left = whole_seconds(deadline.at.saturating_duration_since(now)).max(1);
                (left < lease.ttl_seconds).then_some(Remaining { id: lease.id, seconds: left })
            });
            left.collect()
        };
        for part in remaining.chunks(CHECKPOINT_LEASES_MAX) {
            self.propose(Command::LeaseCheckpoint { remaining: part.to_vec() });
        }
    }

    /// Nobody waits for the answer: what comes of it is seen in the state.
    fn propose(&self, command: Command) {
        let _ = self.proposals.try_send(Proposal { command, reply: oneshot::channel().0, local: false });
    }
}

impl Deadlines {
    fn set(&mut self, id: LeaseId, at: Instant) {
        self.remove(id);
        self.of.insert(id, Deadline { at, over: false });
        self.next.insert((at, id));
    }

    /// It is over, whatever becomes of the command that says so; that is sent again at `again`.
    fn end(&mut self, id: LeaseId, again: Instant) {
        self.remove(id);
        self.of.insert(id, Deadline { at: again, over: true });
        self.next.insert((again, id));
    }

    fn remove(&mut self, id: LeaseId) {
        if let Some(deadline) = self.of.remove(&id) {
            self.next.remove(&(deadline.at, id));
        }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(SECONDS_MAX))
}

fn whole_seconds(left: Duration) -> i64 {
    i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
}
