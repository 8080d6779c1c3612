//! The store's leases, as callers see them.

use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep};

use crate::command::{Command, Reply};
use crate::error::Error;
use crate::members::{Leader, Request, Response};
use crate::types::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, Lease, LeaseId, LeaseStatus};
use crate::{Store, refused};

/// Numbers drawn before it is given up that one is free.
const DRAWS_MAX: usize = 8;
/// Longest wait for the leader's answer, and for a leader.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const LEADER_WITHIN: Duration = Duration::from_secs(4);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Store {
    /// Grants a lease under the number given, or under one that is drawn (etcd: `LeaseGrant`).
    pub async fn lease_grant(&self, id: Option<LeaseId>, ttl_seconds: i64) -> Result<Lease, Error> {
        if ttl_seconds > LEASE_TTL_SECONDS_MAX {
            return Err(Error::LeaseTooLong { seconds: ttl_seconds, max: LEASE_TTL_SECONDS_MAX });
        }
        let ttl_seconds = ttl_seconds.max(LEASE_TTL_SECONDS_MIN);
        let mut draws = DRAWS_MAX;
        loop {
            let lease = Lease { id: id.unwrap_or_else(|| rand::rng().random_range(1..=LeaseId::MAX)), ttl_seconds };
            match self.command(Command::LeaseGrant(lease)).await? {
                Reply::Done { .. } => return Ok(lease),
                other => match refused(&other) {
                    Error::LeaseExists { .. } if id.is_none() && draws > 0 => draws -= 1,
                    error => return Err(error),
                },
            }
        }
    }

    /// Ends a lease and deletes its keys (etcd: `LeaseRevoke`); returns the revision at which they are gone.
    pub async fn lease_revoke(&self, id: LeaseId) -> Result<u64, Error> {
        match self.command(Command::LeaseRevoke { id }).await? {
            Reply::Done { revision } => Ok(revision),
            other => Err(refused(&other)),
        }
    }

    /// Gives a lease its whole time again (etcd: `LeaseKeepAlive`); returns that, in seconds.
    pub async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, Error> {
        let until = Instant::now() + LEADER_WITHIN;
        loop {
            let kept = match self.inner.group.leader() {
                Leader::Here => match self.read_index().await {
                    Ok(_) => self.inner.lessor.keep_alive(id),
                    Err(error) => Err(error),
                },
                Leader::There(leader, member) => {
                    let request = Request::KeepAlive { id };
                    match self.inner.group.ask_leader(leader, &member, &request, ANSWER_WITHIN).await {
                        Ok(Response::KeepAlive { ttl_seconds }) => Ok(ttl_seconds),
                        Ok(_) => Err(Error::Unknown),
                        Err(error) => Err(error),
                    }
                }
                Leader::Unknown => Err(Error::NotLeader),
            };
            match kept {
                // Keeping a lease alive twice is keeping it alive.
                Err(Error::NotLeader | Error::Unknown) if Instant::now() < until => sleep(LOOK_AGAIN).await,
                kept => return kept,
            }
        }
    }

    /// What is left of a lease, and, if asked for, its keys (etcd: `LeaseTimeToLive`).
    pub async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<LeaseStatus, Error> {
        match self.inner.group.leader() {
            Leader::Here => {
                self.read_index().await?;
                self.inner.lessor.status(id, keys)
            }
            Leader::There(leader, member) => {
                let request = Request::TimeToLive { id, keys };
                match self.inner.group.ask_leader(leader, &member, &request, ANSWER_WITHIN).await? {
                    Response::TimeToLive(status) => Ok(status),
                    _ => Err(Error::Unknown),
                }
            }
            Leader::Unknown => Err(Error::NotLeader),
        }
    }

    /// The leases that there are here, in the order of their numbers (etcd: `LeaseLeases`).
    pub fn leases(&self) -> Vec<Lease> {
        let leases = self.inner.watched.read().leases();
        leases.into_iter().map(|lease| Lease { id: lease.id, ttl_seconds: lease.ttl_seconds }).collect()
    }
}
