//! Linearizable reads: how far the log must be applied here before a read sees everything acknowledged before it.
//!
//! One round asks for all who wait: the leader makes sure that it still leads, a follower asks the leader. Who comes
//! while a round is on its way waits for the next one, since the answer of this one may be older.

use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::{Group, Leader, Request, Response};
use crate::error::Error;

/// Reads that may wait; more are refused as `Busy`.
pub(crate) const WAITING_MAX: usize = 65_536;
/// A round ends after so long.
const ROUND_WITHIN: Duration = Duration::from_secs(3);
/// Pause before another leader is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) type ReadRequest = oneshot::Sender<Result<(), Error>>;

pub(crate) struct Reads {
    pub(crate) group: Group,
}

impl Reads {
    /// Works until nobody can ask any more.
    pub(crate) async fn run(self, mut waiting: mpsc::Receiver<ReadRequest>) {
        while let Some(first) = waiting.recv().await {
            let mut round = vec![first];
            while let Ok(next) = waiting.try_recv() {
                round.push(next);
            }
            let result = tokio::time::timeout(ROUND_WITHIN, self.round()).await.unwrap_or(Err(Error::NoQuorum));
            for answer in round {
                let _ = answer.send(result.clone());
            }
        }
    }

    async fn round(&self) -> Result<(), Error> {
        loop {
            let index = match self.group.leader() {
                Leader::Here => self.group.read_index_here().await,
                Leader::There(id, member) => {
                    let asked = self.group.ask_leader(id, &member, &Request::ReadIndex, ROUND_WITHIN).await;
                    match asked {
                        Ok(Response::ReadIndex { index }) => Ok(index),
                        Ok(_) | Err(Error::Unknown) => Err(Error::NotLeader),
                        Err(error) => Err(error),
                    }
                }
                Leader::Unknown => Err(Error::NotLeader),
            };
            match index {
                Ok(index) => return self.group.applied(index).await,
                Err(Error::NotLeader) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Group {
    /// The same as the leader: it asks a majority whether it still is.
    pub(crate) async fn read_index_here(&self) -> Result<u64, Error> {
        match self.raft.get_read_log_id().await {
            Ok((read, _)) => Ok(read.map_or(0, |id| id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => Err(Error::NotLeader),
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(Error::NoQuorum),
            Err(RaftError::Fatal(_)) => Err(Error::Closed),
        }
    }
}
