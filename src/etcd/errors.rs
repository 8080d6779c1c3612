//! The store's errors with etcd's codes and texts, by which clients know them (etcd: `rpctypes`).

use store::{Error, ReadOnly, WatchError};
use tonic::{Code, Status};

pub const SORT_OPTION: &str = "etcdserver: invalid sort option";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub fn of_store(error: &Error) -> Status {
    let (code, text) = match error {
        Error::Compacted { .. } => (Code::OutOfRange, COMPACTED),
        Error::FutureRevision { .. } => (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        Error::NoSpace(ReadOnly::DiskFull | ReadOnly::QuotaExceeded) => {
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        }
        Error::TooLarge { .. } => (Code::InvalidArgument, "etcdserver: request is too large"),
        Error::TooManyOps { .. } | Error::TooDeep { .. } => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        Error::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        Error::DuplicateKey => (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        Error::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        Error::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        Error::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Error::LeaseNotFound { .. } => (Code::NotFound, "etcdserver: requested lease not found"),
        Error::LeaseExists { .. } => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Error::LeaseTooLong { .. } => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        Error::Busy | Error::TooManyLeases { .. } => (Code::ResourceExhausted, "etcdserver: too many requests"),
        Error::NotLeader | Error::NoQuorum => (Code::Unavailable, "etcdserver: no leader"),
        Error::Unknown => (Code::Unavailable, "etcdserver: request timed out"),
        Error::Unchangeable => {
            (Code::FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members")
        }
        Error::Witness => (Code::FailedPrecondition, "etcdserver: not capable"),
        Error::Closed => (Code::Unavailable, "etcdserver: server stopped"),
    };
    Status::new(code, text)
}

/// Why a watch ended, as its last response says it, and since when there is history if that is why.
pub fn of_watch(error: &WatchError) -> (&'static str, u64) {
    match error {
        WatchError::Compacted { compacted } | WatchError::Lagged { compacted } => (COMPACTED, *compacted),
        WatchError::Closed => ("etcdserver: server stopped", 0),
    }
}
