//! The way to other members, as openraft wants it.

use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot, Vote};

use super::{Id, Member, TypeConfig};
use crate::disk;
use crate::members::{CallError, Lane, Peers, Request, Response, SnapshotPart};

/// A member that does not take entries for so long is tried again after a pause.
const APPEND_WITHIN: Duration = Duration::from_secs(2);
const VOTE_WITHIN: Duration = Duration::from_millis(500);
const SNAPSHOT_PART_WITHIN: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(200);
/// A snapshot goes in parts of this size.
const SNAPSHOT_PART_BYTES: u64 = 512 << 10;

/// Makes the ways to members.
pub(crate) struct Network {
    peers: Peers,
}

/// The way to one member.
pub(crate) struct Way {
    peers: Peers,
    id: Id,
    member: Member,
}

impl Network {
    pub(crate) fn new(peers: Peers) -> Network {
        Network { peers }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: Id, node: &Member) -> Way {
        Way { peers: self.peers.clone(), id: target, member: node.clone() }
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> Unreachable {
    Unreachable::new(&AnyError::new(error))
}

impl Way {
    async fn ask(&self, lane: Lane, request: &Request, within: Duration) -> Result<Response, Unreachable> {
        self.peers.ask(self.id, &self.member, lane, request, within).await.map_err(|error| unreachable(&error))
    }

    /// The member answered something else than what it was asked, or that it cannot.
    fn no_answer() -> Unreachable {
        unreachable(&CallError::NoAnswer)
    }

    async fn send_snapshot(&self, vote: Vote<Id>, snapshot: Snapshot<TypeConfig>) -> Result<Vote<Id>, Unreachable> {
        let file = snapshot.snapshot.open().map_err(|error| unreachable(&error))?;
        let bytes = file.bytes().map_err(|error| unreachable(&error))?;
        let mut offset = 0;
        loop {
            let length = SNAPSHOT_PART_BYTES.min(bytes.saturating_sub(offset));
            let (reading, at) = (file.clone(), offset);
            let read = move || -> io::Result<Vec<u8>> {
                let mut content = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                reading.read_at(at, &mut content)?;
                Ok(content)
            };
            let content = disk::work(snapshot.snapshot.disk(), read).await.map_err(|error| unreachable(&error))?;
            let content = content.map_err(|error| unreachable(&error))?.into();
            let last = offset + length == bytes;
            let part = SnapshotPart { vote, meta: snapshot.meta.clone(), offset, content, last };
            let answer = self.ask(Lane::Bulk, &Request::Snapshot(part), SNAPSHOT_PART_WITHIN).await?;
            let Response::Snapshot { vote: theirs, received } = answer else { return Err(Way::no_answer()) };
            if theirs > vote || (last && received == u64::MAX) {
                return Ok(theirs);
            }
            // What comes out of order begins anew.
            offset = if received == offset + length && !last { received } else { 0 };
            if offset == 0 {
                return Err(Way::no_answer());
            }
            self.peers.followed(self.id);
        }
    }
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Id>, RPCError<Id, Member, RaftError<Id>>> {
        let answer = self.ask(Lane::Urgent, &Request::Append(rpc), APPEND_WITHIN).await;
        match answer.map_err(RPCError::Unreachable)? {
            Response::Append(response) => {
                if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    self.peers.followed(self.id);
                }
                Ok(response)
            }
            _ => Err(RPCError::Unreachable(Way::no_answer())),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Id>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Id>, RPCError<Id, Member, RaftError<Id>>> {
        match self.ask(Lane::Urgent, &Request::Vote(rpc), VOTE_WITHIN).await.map_err(RPCError::Unreachable)? {
            Response::Vote(response) => Ok(response),
            _ => Err(RPCError::Unreachable(Way::no_answer())),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<Id>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Id>, StreamingError<TypeConfig, Fatal<Id>>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(error)),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
