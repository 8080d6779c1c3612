//! Proposals: what waits goes into one entry of the log, so that it shares one sync. While that entry is on its way
//! the next ones gather. Who does not lead passes them on to the member that does, all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Id, Member};
use crate::command::{Batch, Command, Reply};
use crate::error::Error;
use crate::members::{Group, Leader, Request, Response};
use crate::types::ReadOnly;
use crate::watch::Watched;

/// Commands that may wait; more are refused as `Busy`.
pub(crate) const WAITING_MAX: usize = 4_096;
const BATCH_COMMANDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Longest wait for a majority to have a batch.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for the answer of the leader to what was passed on to it.
const FORWARD_WITHIN: Duration = Duration::from_secs(7);
/// Longest wait for somebody to lead.
const LEADER_WITHIN: Duration = Duration::from_secs(4);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// What a command takes in the log beyond its keys and values, at most per operation.
const OP_BYTES: usize = 96;
/// Relaxed revisions that may be lost in a power cut, and are left out after one. A sync comes before there are more.
pub(crate) const RELAXED_REVISIONS_MAX: u64 = 10_000;

pub(crate) struct Proposal {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<Result<Reply, Error>>,
    /// It was asked for here, and not passed on by another member: it may go on to another one.
    pub(crate) local: bool,
}

pub(crate) struct Proposer {
    pub(crate) group: Group,
    pub(crate) watched: Arc<Watched>,
    pub(crate) quota_bytes: u64,
    pub(crate) history_bytes_max: u64,
    /// The last put was refused because of the quota.
    pub(crate) over_quota: Arc<AtomicBool>,
    /// Revisions since the last sync that came of a batch, at most.
    pub(crate) relaxed: u64,
}

impl Proposer {
    /// Works until nobody can propose any more.
    pub(crate) async fn run(mut self, mut proposals: mpsc::Receiver<Proposal>) {
        let mut ahead: Option<Proposal> = None;
        loop {
            let first = match ahead.take() {
                Some(first) => first,
                None => match proposals.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let mut bytes = bytes_of(&first.command);
            let mut batch = vec![first];
            while batch.len() < BATCH_COMMANDS_MAX
                && let Ok(next) = proposals.try_recv()
            {
                let more = bytes_of(&next.command);
                if bytes + more > BATCH_BYTES_MAX {
                    ahead = Some(next);
                    break;
                }
                bytes += more;
                batch.push(next);
            }
            self.propose(batch).await;
            self.bound_history().await;
        }
    }

    async fn propose(&mut self, proposals: Vec<Proposal>) {
        let until = Instant::now() + LEADER_WITHIN;
        let mut proposals = proposals;
        while !proposals.is_empty() {
            proposals = match self.group.leader() {
                Leader::Here => self.propose_here(proposals).await,
                Leader::There(id, member) => {
                    // What another member passed on is passed back: two that take each other for the leader would
                    // play with it for ever.
                    let (local, passed): (Vec<_>, Vec<_>) = proposals.into_iter().partition(|proposal| proposal.local);
                    refuse(passed, &Error::NotLeader);
                    self.forward(id, &member, local).await
                }
                Leader::Unknown => proposals,
            };
            if proposals.is_empty() {
                return;
            }
            if Instant::now() >= until {
                let leads = matches!(self.group.leader(), Leader::Here);
                refuse(proposals, if leads { &Error::NoQuorum } else { &Error::NotLeader });
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Proposes as the leader; returns what was not written because this member leads no longer.
    async fn propose_here(&mut self, proposals: Vec<Proposal>) -> Vec<Proposal> {
        let proposals = self.within_quota(proposals);
        let (needed, ordinary): (Vec<_>, Vec<_>) =
            proposals.into_iter().partition(|proposal| proposal.command.is_needed());
        // What frees room goes first and may use what is held back for it.
        let mut left = Vec::new();
        for (proposals, needed) in [(needed, true), (ordinary, false)] {
            if proposals.is_empty() {
                continue;
            }
            let bytes = proposals.iter().map(|proposal| bytes_of(&proposal.command)).sum();
            if !self.group.log.secure(bytes, needed).await {
                refuse(proposals, &Error::NoSpace(ReadOnly::DiskFull));
                continue;
            }
            left.extend(self.write(proposals).await);
        }
        left
    }

    async fn write(&mut self, proposals: Vec<Proposal>) -> Vec<Proposal> {
        let alone = self.group.is_alone();
        if !alone && (!self.group.leadership.borrow().here || self.group.paused.load(Ordering::Relaxed)) {
            // Without a majority it would be left to chance what becomes of it in the log.
            return proposals;
        }
        let (commands, answers): (Vec<_>, Vec<_>) =
            proposals.into_iter().map(|proposal| (proposal.command, (proposal.reply, proposal.local))).unzip();
        let batch = Batch::proposed(commands);
        if batch.relaxed() {
            self.relaxed += batch.commands.len() as u64;
            if self.relaxed >= RELAXED_REVISIONS_MAX {
                self.group.log.sync().await;
                self.relaxed = batch.commands.len() as u64;
            }
        } else {
            self.relaxed = 0;
        }
        let written = self.group.raft.client_write(batch.clone());
        // A disk may take its time where nobody else could write in the meantime.
        let written = if alone { Ok(written.await) } else { tokio::time::timeout(COMMIT_WITHIN, written).await };
        let error = match written {
            Ok(Ok(response)) => {
                for ((answer, _), reply) in answers.into_iter().zip(response.data.0) {
                    let _ = answer.send(Ok(reply));
                }
                return Vec::new();
            }
            // What was in the log and was taken out of it again may be in another member's, and be committed from there.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) if batch.is_taken() => Error::Unknown,
            // It is in no log.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                let commands = Arc::try_unwrap(batch.commands).unwrap_or_else(|shared| shared.as_ref().clone());
                let proposals = commands.into_iter().zip(answers);
                return proposals.map(|(command, (reply, local))| Proposal { command, reply, local }).collect();
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a write failed");
                Error::Closed
            }
            Err(_) => Error::Unknown,
        };
        for (answer, _) in answers {
            let _ = answer.send(Err(error.clone()));
        }
        Vec::new()
    }

    /// Has the leader write; returns what certainly was not written.
    async fn forward(&self, id: Id, member: &Member, proposals: Vec<Proposal>) -> Vec<Proposal> {
        if proposals.is_empty() {
            return proposals;
        }
        let commands = proposals.iter().map(|proposal| proposal.command.clone()).collect();
        let asked = self.group.ask_leader(id, member, &Request::Forward { commands }, FORWARD_WITHIN).await;
        let answers = match asked {
            Ok(Response::Forwarded { index, answers }) if answers.len() == proposals.len() => {
                // Who wrote here reads here what was written.
                match self.group.applied(index).await {
                    Ok(()) => answers,
                    Err(error) => {
                        refuse(proposals, &error);
                        return Vec::new();
                    }
                }
            }
            Err(Error::NotLeader) => return proposals,
            Err(error) => {
                refuse(proposals, &error);
                return Vec::new();
            }
            Ok(_) => {
                refuse(proposals, &Error::Unknown);
                return Vec::new();
            }
        };
        let mut left = Vec::new();
        for (proposal, answer) in proposals.into_iter().zip(answers) {
            match answer.map_err(Error::from) {
                Err(Error::NotLeader) => left.push(proposal),
                answer => drop(proposal.reply.send(answer)),
            }
        }
        left
    }

    /// Refuses puts while the state weighs more than the quota; deletions and compaction go on.
    fn within_quota(&self, proposals: Vec<Proposal>) -> Vec<Proposal> {
        let over = self.watched.read().bytes() > self.quota_bytes;
        self.over_quota.store(over, Ordering::Relaxed);
        if !over {
            return proposals;
        }
        let (puts, others) = proposals.into_iter().partition(|proposal| puts(&proposal.command));
        refuse(puts, &Error::NoSpace(ReadOnly::QuotaExceeded));
        others
    }

    /// Compacts when history outgrows its bound, whatever the caller's habit is: it lives in memory.
    async fn bound_history(&mut self) {
        let revision = {
            let state = self.watched.read();
            if state.history_bytes() <= self.history_bytes_max {
                return;
            }
            state.revision_to_free(state.history_bytes() / 2)
        };
        if let Some(revision) = revision {
            tracing::info!(revision, "history outgrew its bound and is compacted");
            let command = Command::Compact { revision };
            if matches!(self.group.leader(), Leader::Here) && self.group.log.secure(bytes_of(&command), true).await {
                self.write(vec![Proposal { command, reply: oneshot::channel().0, local: true }]).await;
            }
        }
    }
}

fn refuse(proposals: Vec<Proposal>, error: &Error) {
    for proposal in proposals {
        let _ = proposal.reply.send(Err(error.clone()));
    }
}

fn puts(command: &Command) -> bool {
    match command {
        Command::Txn(txn) => txn.puts(),
        Command::LeaseGrant(_) => true,
        Command::Compact { .. }
        | Command::Skip { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseCheckpoint { .. } => false,
    }
}

/// Bytes that a command takes in the log, at most.
fn bytes_of(command: &Command) -> usize {
    match command {
        Command::Txn(txn) => txn.bytes() + OP_BYTES * (1 + txn.parts()),
        Command::LeaseCheckpoint { remaining } => OP_BYTES * (1 + remaining.len()),
        Command::Compact { .. } | Command::Skip { .. } | Command::LeaseGrant(_) | Command::LeaseRevoke { .. } => {
            OP_BYTES
        }
    }
}
