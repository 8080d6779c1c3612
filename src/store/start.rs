//! Starting Raft: alone, among others, or to be joined to others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, ServerState, SnapshotPolicy, Vote};
use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::log::Log;
use crate::members::{ANYONE, Change, Group, LEADER_SILENT, Peers, Request, Response};
use crate::raft::{Applied, Entry, Id, Leadership, LogStore, Machine, Member, Network, Raft};
use crate::{Config, small_file};

/// openraft is given no clock: heartbeats and elections are `members::Pulse`'s.
const NO_TICKS_MS: u64 = 3_600_000;
const VOTE_WITHIN_MS: u64 = 500;
/// A snapshot may take so long.
const SNAPSHOT_WITHIN_MS: u64 = 3_600_000;
/// Longest wait for a member that is alone to lead itself.
const LEAD_WITHIN: Duration = Duration::from_secs(30);
/// Entries kept in the log behind a snapshot, for members that are a little behind.
const LOG_KEPT_ENTRIES: u64 = 1_000;
/// Pause before members are asked again to take this one.
const JOIN_AGAIN: Duration = Duration::from_millis(500);
const JOIN_WITHIN: Duration = Duration::from_secs(12);

/// How a member begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is the whole group, and leads it.
    Alone,
    /// It has been in a group with others, or is to be taken into one.
    Among,
}

fn raft_error(error: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Raft(Box::new(error))
}

/// Starts Raft; a member that is alone leads and has applied its log on return.
pub(crate) async fn start(
    peers: &Peers,
    log: &Log,
    machine: Machine,
    me: Member,
    config: &Config,
) -> Result<(Raft, Kind), OpenError> {
    let id = peers.id;
    let joins = config.network.as_ref().is_some_and(|network| !network.join.is_empty());
    // Not validated: openraft would have elections by time be longer than heartbeats, and here there are neither.
    let raft_config = Arc::new(openraft::Config {
        cluster_name: "cluster".to_owned(),
        heartbeat_interval: NO_TICKS_MS,
        election_timeout_min: VOTE_WITHIN_MS,
        // It is also how long a vote for somebody else is refused after a leader was heard of.
        election_timeout_max: u64::try_from(LEADER_SILENT.as_millis()).unwrap_or(NO_TICKS_MS),
        install_snapshot_timeout: SNAPSHOT_WITHIN_MS,
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: if config.network.is_some() { LOG_KEPT_ENTRIES } else { 0 },
        purge_batch_size: 1,
        ..openraft::Config::default()
    });
    let (_, last) = log.bounds();
    if config.network.is_some() {
        lead_no_longer(id, log).await;
    }
    let network = Network::new(peers.clone());
    let raft = Raft::new(id, raft_config, network, LogStore::new(log.clone()), machine).await.map_err(raft_error)?;
    if !raft.is_initialized().await.map_err(raft_error)? {
        if joins {
            return Ok((raft, Kind::Among));
        }
        raft.initialize(BTreeMap::from([(id, me)])).await.map_err(raft_error)?;
    } else {
        let members: BTreeSet<Id> = raft
            .with_raft_state(|state| state.membership_state.effective().nodes().map(|(id, _)| *id).collect())
            .await
            .map_err(raft_error)?;
        if members != BTreeSet::from([id]) {
            return Ok((raft, Kind::Among));
        }
        if raft.metrics().borrow().state != ServerState::Leader {
            raft.trigger().elect().await.map_err(raft_error)?;
        }
    }
    let wait = raft.wait(Some(LEAD_WITHIN));
    wait.state(ServerState::Leader, "leads its group of one").await.map_err(raft_error)?;
    wait.applied_index_at_least(last.map(|last| last.index), "has applied its log").await.map_err(raft_error)?;
    Ok((raft, Kind::Alone))
}

/// A leader that comes back is one no longer. openraft would let it go on in its term, and answer reads as far as it
/// remembers that the log is committed, which is not as far as it has told others. To have seen a later term of nobody
/// is harmless.
async fn lead_no_longer(id: Id, log: &Log) {
    if let Some(vote) = log.vote().filter(|vote| vote.committed && vote.leader_id().voted_for() == Some(id)) {
        log.save_vote(Vote::new(vote.leader_id().term + 1, ANYONE)).await;
    }
}

/// What is known of who leads where this member does.
pub(crate) fn leads(raft: &Raft) -> Leadership {
    let metrics = raft.metrics();
    let metrics = metrics.borrow();
    Leadership { term: metrics.current_term, leader: metrics.current_leader, here: true }
}

/// A directory is a witness's or not, for good: one has no state, and the other must have all of it.
pub(crate) fn check_kind(disk: &dyn Disk, config: &Config, fresh: bool) -> Result<(), OpenError> {
    let path = config.dir.join("witness");
    let failed = |source| OpenError::Io { action: "read", path: path.clone(), source };
    let was = small_file::read(disk, &path).map_err(failed)?.is_some();
    match (was, config.witness) {
        (false, true) if fresh => small_file::write(disk, &path, "votes and keeps the log\n").map_err(failed),
        (was, is) if was == is => Ok(()),
        _ => Err(OpenError::OtherKind),
    }
}

/// Writes into the log that this member is the only one. It counts at once, like every membership in a log; what lies
/// before it in the log, committed or not, counts with it.
pub(crate) async fn reset_to_single(id: Id, me: Member, log: &Log, applied: &Applied) {
    let last = log.bounds().1.max(applied.log_id);
    let term = log.vote().map_or(0, |vote| vote.leader_id().term).max(last.map_or(0, |last| last.leader_id.term)) + 1;
    tracing::warn!(id, ?last, "this member becomes the only one of its group");
    log.save_vote(Vote::new(term, id)).await;
    let membership = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, me)]));
    let log_id = LogId::new(CommittedLeaderId::new(term, id), last.map_or(0, |last| last.index + 1));
    let (done, ended) = oneshot::channel();
    let entry = Entry { log_id, payload: EntryPayload::Membership(membership) };
    log.append(vec![entry], Box::new(move |result| drop(done.send(result))));
    let _ = ended.await;
}

/// Has the group take this member in, or know where it is now.
pub(crate) async fn announce(group: Group, me: Member, addresses: Vec<String>) {
    let change = Change::Join { id: group.peers.id, member: me.clone() };
    loop {
        let known = {
            let metrics = group.raft.server_metrics();
            let metrics = metrics.borrow();
            let membership = metrics.membership_config.membership();
            let empty = membership.nodes().next().is_none();
            if empty { None } else { Some(membership.get_node(&group.peers.id).cloned()) }
        };
        let announced = match known {
            Some(Some(known)) if known == me => return,
            // It was removed; to join again is for people to decide.
            Some(None) => return,
            Some(Some(_)) => group.change_anywhere(change.clone()).await.is_ok(),
            None => ask_to_join(&group, &change, &addresses).await,
        };
        if !announced {
            tracing::info!(?addresses, "no member of the group has taken this one in yet");
        }
        tokio::time::sleep(JOIN_AGAIN).await;
    }
}

async fn ask_to_join(group: &Group, change: &Change, addresses: &[String]) -> bool {
    for address in addresses {
        let request = Request::Change { change: change.clone(), passed_on: false };
        match group.peers.ask_at(address, &request, JOIN_WITHIN).await {
            Ok(Response::Done) => return true,
            Ok(answer) => tracing::debug!(address, ?answer, "a member did not take this one in"),
            Err(error) => tracing::debug!(address, %error, "a member did not take this one in"),
        }
    }
    false
}
