//! The members of the group and how they reach each other.
//!
//! Purpose: what Raft needs of the network, who leads, when to stand for election, and the requests that a follower
//! passes on to the leader. Raft itself (openraft) decides nothing by time here: heartbeats, elections and their
//! timeouts are this module's (`pulse`), so that a group of one is idle and a pretended clock is enough for tests.
//!
//! Invariants:
//! - What is answered with "nothing was written" is not in any log; everything else that failed is `Unknown`.
//! - A member is known by its id. Its address is where it was last heard of, or what the membership says.
//! - A witness votes and keeps the log; it has no state, and stands for no election.

mod changes;
mod fault;
mod inbound;
mod message;
mod pulse;
mod reads;
mod receive;
mod steward;
mod transport;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::log::Log;
use crate::raft::{Id, Leadership, Member, Raft};

pub(crate) use changes::hand_over;
pub(crate) use fault::Fault;
pub(crate) use inbound::Inbound;
pub(crate) use message::{Change, Request, Response, SnapshotPart};
pub(crate) use pulse::Pulse;
pub(crate) use reads::{ReadRequest, Reads, WAITING_MAX as READS_WAITING_MAX};
pub(crate) use steward::Steward;
pub(crate) use transport::{ANYONE, CallError, Lane, Nowhere, Peer, Transport};

/// A leader that a majority has not answered for so long takes no writes.
const QUORUM_WITHIN: Duration = Duration::from_millis(1_500);
/// Who has not heard of a leader for so long may vote for another one.
pub(crate) const LEADER_SILENT: Duration = Duration::from_millis(1_000);
/// Longest wait for what was written here, or by another member, to be applied here.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);

/// What this member knows of the others. Clones share it.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) id: Id,
    transport: Arc<dyn Transport>,
    known: Arc<Mutex<Known>>,
}

struct Known {
    /// When each member last followed this one.
    followed: BTreeMap<Id, Instant>,
    /// Where members said that they are.
    addresses: BTreeMap<Id, String>,
    /// When a leader was last heard of.
    heard: Instant,
}

impl Peers {
    pub(crate) fn new(id: Id, transport: Arc<dyn Transport>) -> Peers {
        let known = Known { followed: BTreeMap::new(), addresses: BTreeMap::new(), heard: Instant::now() };
        Peers { id, transport, known: Arc::new(Mutex::new(known)) }
    }

    /// Asks a member for something.
    pub(crate) async fn ask(
        &self,
        id: Id,
        member: &Member,
        lane: Lane,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let address = self.known.lock().addresses.get(&id).cloned().unwrap_or_else(|| member.address.clone());
        transport::ask(self.transport.as_ref(), Peer { id, address }, lane, request, timeout).await
    }

    /// Asks whoever is at an address.
    pub(crate) async fn ask_at(
        &self,
        address: &str,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let peer = Peer { id: ANYONE, address: address.to_owned() };
        transport::ask(self.transport.as_ref(), peer, Lane::Urgent, request, timeout).await
    }

    /// A member said where it is.
    pub(crate) fn met(&self, id: Id, address: String) {
        if !address.is_empty() {
            self.known.lock().addresses.insert(id, address);
        }
    }

    /// A member took what this one sent as its leader.
    pub(crate) fn followed(&self, id: Id) {
        self.known.lock().followed.insert(id, Instant::now());
    }

    /// A leader was heard of, or a vote was given that deserves a chance.
    pub(crate) fn heard(&self) {
        self.known.lock().heard = Instant::now();
    }

    pub(crate) fn heard_at(&self) -> Instant {
        self.known.lock().heard
    }

    fn followed_within(&self, id: Id, within: Duration) -> bool {
        self.known.lock().followed.get(&id).is_some_and(|at| at.elapsed() < within)
    }
}

/// The group as this member sees it. Clones share it.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) log: Log,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// This member keeps the log and votes, and no more.
    pub(crate) witness: bool,
    /// Leadership is being handed over: nothing new is written.
    pub(crate) paused: Arc<AtomicBool>,
}

/// Where a request is to go.
pub(crate) enum Leader {
    Here,
    There(Id, Member),
    Unknown,
}

impl Group {
    pub(crate) fn leader(&self) -> Leader {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        match metrics.current_leader {
            Some(id) if id == self.peers.id => Leader::Here,
            Some(id) => match metrics.membership_config.membership().get_node(&id) {
                Some(member) => Leader::There(id, member.clone()),
                None => Leader::Unknown,
            },
            None => Leader::Unknown,
        }
    }

    /// The group has no other members, and this one leads it.
    pub(crate) fn is_alone(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        let mut members = metrics.membership_config.membership().nodes();
        metrics.current_leader == Some(self.peers.id)
            && members.next().map(|(id, _)| *id) == Some(self.peers.id)
            && members.next().is_none()
    }

    /// A majority of each configuration has followed this member within a while.
    pub(crate) fn has_quorum(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let membership = metrics.borrow().membership_config.clone();
        membership.membership().get_joint_config().iter().all(|voters| {
            let follow =
                voters.iter().filter(|id| **id == self.peers.id || self.peers.followed_within(**id, QUORUM_WITHIN));
            follow.count() * 2 > voters.len()
        })
    }

    /// Returns once the log is applied here up to `index`.
    pub(crate) async fn applied(&self, index: u64) -> Result<(), Error> {
        let mut metrics = self.raft.data_metrics();
        let applied = metrics.wait_for(|metrics| metrics.last_applied.is_some_and(|applied| applied.index >= index));
        match tokio::time::timeout(APPLIED_WITHIN, applied).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Unknown),
        }
    }

    /// Asks the leader for something that it does for others. Nothing was done if the error is `NotLeader`.
    pub(crate) async fn ask_leader(
        &self,
        id: Id,
        member: &Member,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response, Error> {
        match self.peers.ask(id, member, Lane::Urgent, request, timeout).await {
            Ok(Response::Failed(Fault::Misunderstood)) | Err(CallError::NoAnswer) => Err(Error::Unknown),
            Ok(Response::Failed(fault)) => Err(fault.into()),
            Ok(response) => Ok(response),
            Err(CallError::Unreachable) => Err(Error::NotLeader),
        }
    }
}
