//! What other members ask of this one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use openraft::raft::AppendEntriesResponse;
use openraft::{LogId, ServerState};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::receive::{Received, Receiver};
use super::{Change, Fault, Group, LEADER_SILENT, Request, Response, SnapshotPart};
use crate::codec::{Encode, decode_all};
use crate::command::Command;
use crate::error::Error;
use crate::lessor::Lessor;
use crate::raft::Id;
use crate::raft::propose::Proposal;
use crate::snapshot::Snapshots;
use crate::types::LeaseId;
use crate::watch::Watched;

/// Longest time that a forwarded command may take.
const FORWARDED_WITHIN: Duration = Duration::from_secs(6);

pub(crate) struct Inbound {
    group: Group,
    watched: Arc<Watched>,
    lessor: Arc<Lessor>,
    proposals: mpsc::Sender<Proposal>,
    receiver: Arc<Receiver>,
}

impl Inbound {
    pub(crate) fn new(
        group: Group,
        watched: Arc<Watched>,
        lessor: Arc<Lessor>,
        proposals: mpsc::Sender<Proposal>,
        snapshots: Arc<Snapshots>,
    ) -> Inbound {
        Inbound { group, watched, lessor, proposals, receiver: Arc::new(Receiver::new(snapshots)) }
    }

    /// Answers a request in the form in which it came.
    pub(crate) async fn answer(&self, request: &[u8]) -> Bytes {
        let response = match decode_all(request) {
            Some(request) => self.respond(request).await,
            None => Response::Failed(Fault::Misunderstood),
        };
        let mut encoded = Vec::new();
        response.encode(&mut encoded);
        encoded.into()
    }

    async fn respond(&self, request: Request) -> Response {
        let closed = Response::Failed(Fault::Closed);
        match request {
            Request::Append(append) => match self.group.raft.append_entries(append).await {
                Ok(response) => {
                    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                        self.group.peers.heard();
                    }
                    Response::Append(response)
                }
                Err(_) => closed,
            },
            Request::Vote(vote) => match self.group.raft.vote(vote).await {
                Ok(response) => {
                    if response.vote_granted {
                        self.group.peers.heard();
                    }
                    Response::Vote(response)
                }
                Err(_) => closed,
            },
            Request::Canvass { term, last_log_id } => Response::Canvass { granted: self.would_vote(term, last_log_id) },
            Request::Snapshot(part) => self.snapshot(part).await.unwrap_or(closed),
            Request::Forward { commands } => self.forwarded(commands).await,
            Request::ReadIndex => match self.group.read_index_here().await {
                Ok(index) => Response::ReadIndex { index },
                Err(error) => Response::Failed(Fault::from(&error)),
            },
            Request::KeepAlive { id } => match self.keep_alive(id).await {
                Ok(ttl_seconds) => Response::KeepAlive { ttl_seconds },
                Err(error) => Response::Failed(Fault::from(&error)),
            },
            Request::TimeToLive { id, keys } => {
                let status = self.here().await.and_then(|()| self.lessor.status(id, keys));
                status.map_or_else(|error| Response::Failed(Fault::from(&error)), Response::TimeToLive)
            }
            Request::Elect => {
                if self.group.witness {
                    return Response::Failed(Fault::Misunderstood);
                }
                self.group.peers.heard();
                self.group.raft.trigger().elect().await.map_or(closed, |()| Response::Done)
            }
            Request::Change { change, passed_on } => match self.change(change, passed_on).await {
                Ok(()) => Response::Done,
                Err(error) => Response::Failed(Fault::from(&error)),
            },
        }
    }

    /// No leader is known to live, and the other has everything that this member has.
    fn would_vote(&self, term: u64, last_log_id: Option<LogId<Id>>) -> bool {
        let metrics = self.group.raft.server_metrics();
        let (leads, known) = {
            let metrics = metrics.borrow();
            (metrics.state == ServerState::Leader, metrics.vote.leader_id().term)
        };
        let led =
            if leads { self.group.has_quorum() } else { self.group.peers.heard_at() + LEADER_SILENT > Instant::now() };
        !led && term > known && last_log_id >= self.group.log.bounds().1
    }

    async fn snapshot(&self, part: SnapshotPart) -> Option<Response> {
        self.group.peers.heard();
        let (vote, offset) = (part.vote, part.offset);
        let known = self.group.raft.server_metrics().borrow().vote;
        if known > vote {
            return Some(Response::Snapshot { vote: known, received: offset });
        }
        match self.receiver.take(part).await {
            Ok(Received::Bytes(received)) => Some(Response::Snapshot { vote, received }),
            Ok(Received::Whole(snapshot)) => {
                let installed = self.group.raft.install_full_snapshot(vote, *snapshot).await.ok()?;
                Some(Response::Snapshot { vote: installed.vote, received: u64::MAX })
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot could not be received");
                None
            }
        }
    }

    /// Does the commands of a follower among this member's own.
    async fn forwarded(&self, commands: Vec<Command>) -> Response {
        let waiting = commands.into_iter().map(|command| {
            let (reply, answer) = oneshot::channel();
            let sent = self.proposals.try_send(Proposal { command, reply, local: false });
            async move {
                match sent {
                    Err(mpsc::error::TrySendError::Full(_)) => Err(Fault::Busy),
                    Err(mpsc::error::TrySendError::Closed(_)) => Err(Fault::NotLeader),
                    Ok(()) => match answer.await {
                        Ok(answer) => answer.map_err(|error| Fault::from(&error)),
                        Err(_) => Err(Fault::Unknown),
                    },
                }
            }
        });
        let waiting: Vec<_> = waiting.collect();
        match tokio::time::timeout(FORWARDED_WITHIN, join_all(waiting)).await {
            Ok(answers) => {
                let index = self.watched.applied().log_id.map_or(0, |id| id.index);
                Response::Forwarded { index, answers }
            }
            Err(_) => Response::Failed(Fault::Unknown),
        }
    }

    /// This member leads, and has applied all that was acknowledged before.
    async fn here(&self) -> Result<(), Error> {
        let index = self.group.read_index_here().await?;
        self.group.applied(index).await
    }

    async fn change(&self, change: Change, passed_on: bool) -> Result<(), Error> {
        if passed_on { self.group.change_here(change).await } else { self.group.change_anywhere(change).await }
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<i64, Error> {
        self.here().await?;
        self.lessor.keep_alive(id)
    }
}
