//! Leases: what keys are attached to that are to go when nobody keeps them alive.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A lease's number (etcd: `LeaseID`). 0 is none.
pub type LeaseId = i64;

/// The number of no lease.
pub const NO_LEASE: LeaseId = 0;
/// A shorter time is taken for this one: a lease outlives an election (etcd's `minLeaseTTL` by default).
pub const LEASE_TTL_SECONDS_MIN: i64 = 2;
/// A longer one is refused (etcd: `MaxLeaseTTL`).
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// So many leases exist at most; their list lies in one block of a snapshot.
pub const LEASES_MAX: usize = 32_768;

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub id: LeaseId,
    pub ttl_seconds: i64,
}

/// How a lease is doing (etcd: `LeaseTimeToLiveResponse`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub id: LeaseId,
    /// The time that it was granted, and that each sign of life gives it again.
    pub granted_seconds: i64,
    /// What is left of it, rounded down.
    pub remaining_seconds: i64,
    /// The keys that go with it, if they were asked for.
    pub keys: Vec<Bytes>,
}
