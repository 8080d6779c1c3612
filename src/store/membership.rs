//! Who is in the group, as callers see and change it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::Store;
use crate::error::Error;
use crate::members::wire::{self, Dial};
use crate::members::{self, Change};
use crate::raft::Member;
use crate::types::{MemberId, MemberRole, MemberStatus};

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a member reaches others and is reached.
#[derive(Clone)]
pub struct NetworkConfig {
    /// Where others reach this member; it may change from start to start.
    pub address: String,
    /// Opens ways to addresses. It sees to encryption and to whom there is at the other end.
    pub dial: Arc<dyn Dial>,
    /// Where members of the group are found that a member with an empty directory joins. Empty: it begins a group of
    /// its own.
    pub join: Vec<String>,
}

impl std::fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkConfig").field("address", &self.address).field("join", &self.join).finish()
    }
}

impl Store {
    /// This member's number.
    pub fn id(&self) -> MemberId {
        self.inner.group.peers.id
    }

    /// Returns once this member is part of its group and has all that was acknowledged before the call. Others must be
    /// able to reach it meanwhile ([`Store::accept`]).
    pub async fn ready(&self) -> Result<(), Error> {
        if self.inner.group.witness {
            return Ok(());
        }
        loop {
            match self.read_index().await {
                Ok(_) => return Ok(()),
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => tracing::debug!(%error, "the member is not ready"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Serves another member that has connected. The caller has made sure that it is one. Returns when the connection
    /// ends, or the store does.
    pub async fn accept(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        tokio::select! {
            biased;
            () = wire::serve(self.inner.inbound.clone(), self.inner.group.peers.clone(), stream) => {}
            () = self.inner.stopping.cancelled() => {}
        }
    }

    /// The members as this one knows them, in the order of their numbers.
    pub fn members(&self) -> Vec<MemberStatus> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let member = |(id, member): (&MemberId, &Member)| {
            let votes = membership.voter_ids().any(|voter| voter == *id);
            let matched = match &metrics.replication {
                Some(_) if *id == self.id() => metrics.last_log_index,
                Some(replication) => replication.get(id).copied().flatten().map(|matched| matched.index),
                None => None,
            };
            MemberStatus {
                id: *id,
                name: member.name.clone(),
                address: member.address.clone(),
                role: match (votes, member.witness) {
                    (false, _) => MemberRole::Learner,
                    (true, true) => MemberRole::Witness,
                    (true, false) => MemberRole::Voter,
                },
                leader: metrics.current_leader == Some(*id),
                matched,
            }
        };
        membership.nodes().map(member).collect()
    }

    /// Adds a member that runs and waits to be added, or says where a known one is. It gets the log at once and votes
    /// as soon as it has caught up; one of the same name that was there before goes then (etcd: `MemberAdd`).
    /// Members that are given [`NetworkConfig::join`] do this by themselves.
    pub async fn add_member(&self, id: MemberId, name: &str, address: &str, witness: bool) -> Result<(), Error> {
        let member = Member { name: name.to_owned(), address: address.to_owned(), witness };
        self.inner.group.change_anywhere(Change::Join { id, member }).await
    }

    /// Removes a member; the last one that can lead cannot go (etcd: `MemberRemove`).
    pub async fn remove_member(&self, id: MemberId) -> Result<(), Error> {
        self.inner.group.change_anywhere(Change::Remove { id }).await
    }

    /// If this member leads, has another one lead (etcd: `MoveLeader`). Ending the store does this as well.
    pub async fn hand_over(&self) {
        members::hand_over(&self.inner.group).await;
    }
}
