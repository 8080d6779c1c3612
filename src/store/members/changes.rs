//! Who is in the group, and handing over leadership.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::AppendEntriesRequest;
use openraft::{ChangeMembers, CommittedLeaderId, LogId, Vote};
use tokio::time::Instant;

use super::{Change, Group, Lane, Leader, Request, Response};
use crate::error::Error;
use crate::raft::{Id, Member};

/// Longest time that a change of the membership may take.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for a leader that takes a change.
const LEADER_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Handing over waits so long for another member to have the whole log, and for the others to hear of it.
const CATCH_UP_WITHIN: Duration = Duration::from_millis(100);
const TELL_WITHIN: Duration = Duration::from_millis(20);
const ELECT_WITHIN: Duration = Duration::from_millis(50);
const ELECTED_WITHIN: Duration = Duration::from_millis(200);
const HEARD_WITHIN: Duration = Duration::from_millis(30);
const LOOK_SOON: Duration = Duration::from_millis(2);

impl Group {
    /// Has the leader change the membership, whoever that is.
    pub(crate) async fn change_anywhere(&self, change: Change) -> Result<(), Error> {
        let until = Instant::now() + LEADER_WITHIN;
        loop {
            let changed = match self.leader() {
                Leader::Here => self.change_here(change.clone()).await,
                Leader::There(id, member) => {
                    let request = Request::Change { change: change.clone(), passed_on: true };
                    self.ask_leader(id, &member, &request, CHANGE_WITHIN).await.map(|_| ())
                }
                Leader::Unknown => Err(Error::NotLeader),
            };
            match changed {
                // A change says what is to be, not what is to be done: it may be asked for again.
                Err(Error::NotLeader | Error::Unchangeable | Error::Unknown) if Instant::now() < until => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                changed => return changed,
            }
        }
    }

    /// Changes the membership as the leader.
    pub(crate) async fn change_here(&self, change: Change) -> Result<(), Error> {
        if !matches!(self.leader(), Leader::Here) {
            return Err(Error::NotLeader);
        }
        let metrics = self.raft.server_metrics();
        let membership = metrics.borrow().membership_config.clone();
        let membership = membership.membership();
        match change {
            Change::Join { id, member } => match membership.get_node(&id) {
                Some(known) if *known == member => Ok(()),
                Some(_) => self.change(ChangeMembers::SetNodes([(id, member)].into()), true).await,
                None => {
                    tracing::info!(id, name = member.name, address = member.address, "a member joins");
                    self.change(ChangeMembers::AddNodes([(id, member)].into()), true).await
                }
            },
            Change::Remove { id } => {
                if membership.get_node(&id).is_none() {
                    return Ok(());
                }
                let is_voter = membership.voter_ids().any(|voter| voter == id);
                if !is_voter {
                    return self.change(ChangeMembers::RemoveNodes([id].into()), false).await;
                }
                let mut left = membership.voter_ids().filter(|voter| *voter != id);
                if !left.any(|voter| membership.get_node(&voter).is_some_and(|member| !member.witness)) {
                    return Err(Error::Unchangeable);
                }
                if id == self.peers.id {
                    // Another leader does it.
                    hand_over(self).await;
                    return Err(Error::NotLeader);
                }
                tracing::info!(id, "a member is removed");
                self.change(ChangeMembers::RemoveVoters([id].into()), false).await
            }
        }
    }

    pub(crate) async fn change(&self, change: ChangeMembers<Id, Member>, retain: bool) -> Result<(), Error> {
        match tokio::time::timeout(CHANGE_WITHIN, self.raft.change_membership(change, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(Error::NotLeader),
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_)))) => Err(Error::Unchangeable),
            Ok(Err(RaftError::Fatal(_))) => Err(Error::Closed),
            Err(_) => Err(Error::Unknown),
        }
    }
}

/// If this member leads, has the one that has most of the log lead in its place. Takes some tenths of a second at
/// most, of which nobody leads for a few milliseconds.
///
/// openraft 0.9 has no transfer. What it has is votes: every member refuses to vote for others while it hears of a
/// leader. So the leader tells all of them, itself included, that the next term's candidate is the chosen one: that
/// is a vote which is not committed, and with it nobody waits for the old leader any more. Whether the chosen one
/// wins is still decided by an election, with everyone comparing logs; if it does not, another election follows by
/// time.
pub(crate) async fn hand_over(group: &Group) {
    if most_caught_up(group).is_none() {
        return;
    }
    // What is on its way comes to its end; what comes after goes to the next leader.
    group.paused.store(true, Ordering::Relaxed);
    let until = Instant::now() + CATCH_UP_WITHIN;
    let chosen = loop {
        match most_caught_up(group) {
            Some((_, _, false)) if Instant::now() < until => tokio::time::sleep(LOOK_SOON).await,
            chosen => break chosen,
        }
    };
    if let Some((chosen, member, _)) = chosen {
        tracing::info!(to = chosen, "leadership is handed over");
        step_down(group, chosen, &member).await;
        let until = Instant::now() + ELECTED_WITHIN;
        while !matches!(group.leader(), Leader::There(..)) && Instant::now() < until {
            tokio::time::sleep(LOOK_SOON).await;
        }
        // Those who had asked this member hear that it leads no longer.
        tokio::time::sleep(HEARD_WITHIN).await;
    }
    group.paused.store(false, Ordering::Relaxed);
}

async fn step_down(group: &Group, chosen: Id, member: &Member) {
    let (vote, others) = {
        let metrics = group.raft.server_metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let vote = Vote::new(metrics.vote.leader_id().term + 1, chosen);
        let others = membership.nodes().filter(|(id, _)| **id != group.peers.id && **id != chosen);
        (vote, others.map(|(id, member)| (*id, member.clone())).collect::<Vec<_>>())
    };
    // No log has an entry there, so that the vote is taken and nothing else.
    let nowhere = LogId::new(CommittedLeaderId::default(), u64::MAX - 1);
    let expect = AppendEntriesRequest { vote, prev_log_id: Some(nowhere), entries: Vec::new(), leader_commit: None };
    let request = Request::Append(expect.clone());
    let told = others.iter().map(|(id, member)| group.peers.ask(*id, member, Lane::Urgent, &request, TELL_WITHIN));
    join_all(told).await;
    let _ = tokio::time::timeout(TELL_WITHIN, group.raft.append_entries(expect)).await;
    let stands = group.peers.ask(chosen, member, Lane::Urgent, &Request::Elect, ELECT_WITHIN).await;
    if !matches!(stands, Ok(Response::Done)) {
        tracing::warn!(to = chosen, "the member that is to lead did not answer");
    }
}

/// The voter that has most of the log, and whether that is all of it and done. `None` if this member does not lead.
fn most_caught_up(group: &Group) -> Option<(Id, Member, bool)> {
    let data = group.raft.data_metrics();
    let data = data.borrow();
    let replication = data.replication.as_ref()?;
    let metrics = group.raft.server_metrics();
    let metrics = metrics.borrow();
    let membership = metrics.membership_config.membership();
    let candidates = membership.voter_ids().filter(|id| *id != group.peers.id);
    let candidates = candidates.filter_map(|id| {
        let member = membership.get_node(&id).filter(|member| !member.witness)?;
        Some((id, member.clone(), replication.get(&id).copied().flatten()))
    });
    // Those that do not answer now would not lead either.
    let lives = |id: Id| group.peers.followed_within(id, super::QUORUM_WITHIN);
    let (id, member, matched) = candidates.filter(|(id, ..)| lives(*id)).max_by_key(|(_, _, matched)| *matched)?;
    Some((id, member, matched >= data.last_log && data.last_applied >= data.last_log))
}
