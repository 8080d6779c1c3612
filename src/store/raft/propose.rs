//! Proposals: what waits goes into one entry of the log, so that it shares one sync. While that entry is on its way
//! the next ones gather.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::Raft;
use crate::command::{Batch, Command, Reply};
use crate::error::Error;
use crate::log::Log;
use crate::types::ReadOnly;
use crate::watch::Watched;

/// Commands that may wait; more are refused as `Busy`.
pub(crate) const WAITING_MAX: usize = 4_096;
const BATCH_COMMANDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// What a command takes in the log beyond its keys and values, at most per operation.
const OP_BYTES: usize = 96;
/// Relaxed revisions that may be lost in a power cut, and are left out after one. A sync comes before there are more.
pub(crate) const RELAXED_REVISIONS_MAX: u64 = 10_000;

pub(crate) struct Proposal {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<Result<Reply, Error>>,
}

pub(crate) struct Proposer {
    pub(crate) raft: Raft,
    pub(crate) log: Log,
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
        let proposals = self.within_quota(proposals);
        let (needed, ordinary): (Vec<_>, Vec<_>) =
            proposals.into_iter().partition(|proposal| proposal.command.is_needed());
        // What frees room goes first and may use what is held back for it.
        for (proposals, needed) in [(needed, true), (ordinary, false)] {
            if proposals.is_empty() {
                continue;
            }
            let bytes = proposals.iter().map(|proposal| bytes_of(&proposal.command)).sum();
            if !self.log.secure(bytes, needed).await {
                refuse(proposals, &Error::NoSpace(ReadOnly::DiskFull));
                continue;
            }
            self.write(proposals).await;
        }
    }

    async fn write(&mut self, proposals: Vec<Proposal>) {
        let (commands, answers): (Vec<_>, Vec<_>) =
            proposals.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
        let batch = Batch::new(commands);
        if batch.relaxed() {
            self.relaxed += batch.commands.len() as u64;
            if self.relaxed >= RELAXED_REVISIONS_MAX {
                self.log.sync().await;
                self.relaxed = batch.commands.len() as u64;
            }
        } else {
            self.relaxed = 0;
        }
        match self.raft.client_write(batch).await {
            Ok(response) => {
                for (answer, reply) in answers.into_iter().zip(response.data.0) {
                    let _ = answer.send(Ok(reply));
                }
            }
            Err(error) => {
                let error = match error {
                    RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Error::NotLeader,
                    error => {
                        tracing::error!(%error, "a write failed");
                        Error::Closed
                    }
                };
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
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
            if self.log.secure(bytes_of(&command), true).await {
                self.write(vec![Proposal { command, reply: oneshot::channel().0 }]).await;
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
