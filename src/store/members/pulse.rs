//! The group's sense of time: heartbeats of the leader, elections of the others, and what is known of who leads.
//!
//! A member that has not heard of a leader for a while first asks the others whether they would vote for it
//! (`Canvass`; pre-vote elsewhere). Only if a majority would does it begin a new term: who was cut off, or is slow,
//! does not disturb a group that has a leader.
//!
//! Alone, or as a learner, a member waits for nothing but changes.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Group, Lane, Peers, Request, Response};
use crate::log::Log;
use crate::raft::{Id, Leadership, Member, Raft};

/// The leader shows itself so often.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Who has heard of no leader for a time between these stands for election.
const ELECTION_MIN: Duration = Duration::from_millis(1_100);
const ELECTION_MAX: Duration = Duration::from_millis(1_500);
/// Pause after an election that nobody won.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// Longest wait for the answers to a canvass.
const CANVASS_WITHIN: Duration = Duration::from_millis(300);

pub(crate) struct Pulse {
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) log: Log,
    pub(crate) witness: bool,
    pub(crate) random: StdRng,
    pub(crate) says: watch::Sender<Leadership>,
}

/// What there is to do.
enum Role {
    /// Heartbeats.
    Leads {
        alone: bool,
    },
    /// Stand for election when nobody leads.
    Votes(Vec<(Id, Member)>),
    /// This member is the only one that votes, and does not lead yet.
    VotesAlone,
    Follows,
}

impl Pulse {
    /// A source of randomness; `None` draws its seed from the system.
    pub(crate) fn random(seed: Option<u64>) -> StdRng {
        StdRng::seed_from_u64(seed.unwrap_or_else(|| rand::rng().random()))
    }

    pub(crate) async fn run(mut self, group: Group, stopping: task::Shutdown) {
        let mut metrics = self.raft.server_metrics();
        let mut led_since: Option<Instant> = None;
        let mut patience = self.between(ELECTION_MIN, ELECTION_MAX);
        loop {
            metrics.borrow_and_update();
            let role = self.role();
            match (&role, led_since) {
                (Role::Leads { .. }, None) => led_since = Some(Instant::now()),
                (Role::Leads { .. }, Some(_)) => {}
                _ => led_since = None,
            }
            self.say(&group, led_since);
            let wake = match &role {
                Role::Leads { alone: false } => Some(Instant::now() + HEARTBEAT),
                Role::Votes(_) if !self.witness => Some(self.peers.heard_at() + patience),
                Role::VotesAlone => Some(Instant::now()),
                Role::Leads { alone: true } | Role::Votes(_) | Role::Follows => None,
            };
            let due = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
               biased;
                () = stopping.cancelled() => break,
                changed = metrics.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    continue;
                }
                () = due => {}
            }
            let ended = match role {
                Role::Leads { .. } => self.raft.trigger().heartbeat().await,
                Role::Votes(voters) => {
                    if self.peers.heard_at() + patience > Instant::now() {
                        // One was heard of meanwhile.
                        continue;
                    }
                    patience = self.between(ELECTION_MIN, ELECTION_MAX);
                    let stood = if self.canvass(voters).await { self.raft.trigger().elect().await } else { Ok(()) };
                    let pause = self.between(AGAIN_MIN, AGAIN_MAX);
                    tokio::select! {
                        biased;
                        () = stopping.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                    stood
                }
                Role::VotesAlone => {
                    let stood = self.raft.trigger().elect().await;
                    tokio::time::sleep(AGAIN_MIN).await;
                    stood
                }
                Role::Follows => Ok(()),
            };
            if ended.is_err() {
                break;
            }
        }
        self.says.send_replace(Leadership::default());
    }

    fn role(&self) -> Role {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let me = self.peers.id;
        if metrics.state == ServerState::Leader {
            return Role::Leads { alone: membership.nodes().all(|(id, _)| *id == me) };
        }
        if !membership.voter_ids().any(|id| id == me) {
            return Role::Follows;
        }
        let others = membership.voter_ids().filter(|id| *id != me);
        let others: Vec<(Id, Member)> = others.filter_map(|id| Some((id, membership.get_node(&id)?.clone()))).collect();
        if others.is_empty() { Role::VotesAlone } else { Role::Votes(others) }
    }

    /// Who leads. A leader that has lost its majority does not count as one.
    fn say(&self, group: &Group, led_since: Option<Instant>) {
        let metrics = self.raft.server_metrics();
        let (term, leader, leads) = {
            let metrics = metrics.borrow();
            (metrics.vote.leader_id().term, metrics.current_leader, metrics.state == ServerState::Leader)
        };
        let begun = led_since.is_some_and(|since| since.elapsed() < super::QUORUM_WITHIN);
        let here = leads && (begun || group.has_quorum());
        let now = Leadership { term, leader, here };
        self.says.send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    /// A majority would vote for this member now.
    async fn canvass(&self, voters: Vec<(Id, Member)>) -> bool {
        let (configs, term) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow();
            (metrics.membership_config.membership().get_joint_config().clone(), metrics.vote.leader_id().term + 1)
        };
        let request = Request::Canvass { term, last_log_id: self.log.bounds().1 };
        let asked = voters.iter().map(|(id, member)| {
            let request = &request;
            async move {
                let answer = self.peers.ask(*id, member, Lane::Urgent, request, CANVASS_WITHIN).await;
                (*id, matches!(answer, Ok(Response::Canvass { granted: true })))
            }
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut granted = vec![self.peers.id];
        loop {
            let enough = |voters: &std::collections::BTreeSet<Id>| {
                voters.iter().filter(|id| granted.contains(id)).count() * 2 > voters.len()
            };
            if configs.iter().all(enough) {
                return true;
            }
            match answers.next().await {
                Some((id, true)) => granted.push(id),
                Some((_, false)) => {}
                None => return false,
            }
        }
    }

    fn between(&mut self, min: Duration, max: Duration) -> Duration {
        self.random.random_range(min..max)
    }
}
