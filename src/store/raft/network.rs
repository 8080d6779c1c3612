//! The way to other members, of which there are none.

use std::future::Future;

use openraft::error::{RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot, Vote};

use super::{Id, Member, TypeConfig};

/// Every other member is unreachable.
pub(crate) struct NoPeers;

fn unreachable() -> Unreachable {
    Unreachable::new(&AnyError::error("this server has no peers"))
}

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = NoPeers;

    async fn new_client(&mut self, _target: Id, _node: &Member) -> NoPeers {
        NoPeers
    }
}

impl RaftNetwork<TypeConfig> for NoPeers {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Id>, RPCError<Id, Member, RaftError<Id>>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<Id>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Id>, RPCError<Id, Member, RaftError<Id>>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote<Id>,
        _snapshot: Snapshot<TypeConfig>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Id>, StreamingError<TypeConfig, openraft::error::Fatal<Id>>> {
        Err(StreamingError::Unreachable(unreachable()))
    }
}
