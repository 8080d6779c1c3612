//! What goes in and out of the store: keys, transactions, ranges, outcomes. etcd v3's terms are used where it has them.

mod key;
mod lease;
mod member;
mod range;
mod status;
mod txn;
mod watch;

pub use key::{KeyRange, KeyValue};
pub use lease::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, LEASES_MAX, Lease, LeaseId, LeaseStatus, NO_LEASE};
pub use member::{MemberId, MemberRole, MemberStatus};
pub use range::{Bounds, Range, RangeOutcome, Sort, SortOrder, SortTarget};
pub use status::{ReadOnly, Status};
pub use txn::{
    Compare, Delete, Durability, Op, OpOutcome, Operator, Put, TXN_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX, Target, Txn,
    TxnOutcome,
};
pub use watch::{Event, WatchBatch, WatchRequest};
