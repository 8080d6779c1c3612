//! The Raft group: which types it is made of, and its two storages, the log and the state machine.
//!
//! What goes over the network, and what happens by time, is in `crate::members`.

mod leadership;
mod log_store;
mod machine;
mod network;
pub(crate) mod propose;

#[cfg(test)]
mod suite_test;

use openraft::{LogId, StoredMembership};
use serde::{Deserialize, Serialize};

use crate::command::{Batch, Replies};
use crate::snapshot::SnapshotFile;

pub use leadership::Leadership;
pub(crate) use log_store::LogStore;
pub(crate) use machine::{Due, Machine, apply};
pub(crate) use network::Network;

/// A member's number in the group, drawn at random when its directory is made: one that comes back without its
/// directory is another member.
pub(crate) type Id = crate::types::MemberId;

/// A member of the group, as the membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Where others reach it; empty while it is alone.
    pub(crate) address: String,
    /// It votes and keeps the log, and has no state.
    #[serde(default)]
    pub(crate) witness: bool,
}

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Batch,
        R = Replies,
        NodeId = Id,
        Node = Member,
        SnapshotData = SnapshotFile,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<Id>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Id, Member>;

/// How far the log has been applied to a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) log_id: Option<LogId<Id>>,
    pub(crate) membership: StoredMembership<Id, Member>,
}
