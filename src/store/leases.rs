//! The store's leases, as callers see them.

use rand::RngExt;

use crate::command::{Command, Reply};
use crate::error::Error;
use crate::types::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, Lease, LeaseId, LeaseStatus};
use crate::{Store, refused};

/// Numbers drawn before it is given up that one is free.
const DRAWS_MAX: usize = 8;

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
        self.read_index().await?;
        self.inner.lessor.keep_alive(id)
    }

    /// What is left of a lease, and, if asked for, its keys (etcd: `LeaseTimeToLive`).
    pub async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<LeaseStatus, Error> {
        self.read_index().await?;
        let (lease, keys) = {
            let state = self.inner.watched.read();
            let lease = state.lease(id).ok_or(Error::LeaseNotFound { id })?;
            (lease, if keys { state.lease_keys(id).cloned().collect() } else { Vec::new() })
        };
        let remaining_seconds = self.inner.lessor.remaining_seconds(&lease)?;
        Ok(LeaseStatus { id, granted_seconds: lease.ttl_seconds, remaining_seconds, keys })
    }

    /// The leases that there are here, in the order of their numbers (etcd: `LeaseLeases`).
    pub fn leases(&self) -> Vec<Lease> {
        let leases = self.inner.watched.read().leases();
        leases.into_iter().map(|lease| Lease { id: lease.id, ttl_seconds: lease.ttl_seconds }).collect()
    }
}
