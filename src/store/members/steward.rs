//! What the leader sees to in the membership: learners that have caught up become voters, those that they stand in
//! for go, and a change that another leader began is finished.

use std::time::Duration;

use openraft::ChangeMembers;
use tokio::sync::watch;

use super::Group;
use crate::raft::{Id, Leadership};

/// A learner has caught up when so few entries are missing.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// How often a learner's progress is looked at, while there is one.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(crate) struct Steward {
    pub(crate) group: Group,
}

impl Steward {
    /// Works until the store stops.
    pub(crate) async fn run(self, mut leadership: watch::Receiver<Leadership>, stopping: task::Shutdown) {
        let mut membership = self.group.raft.server_metrics();
        loop {
            let leads = leadership.borrow_and_update().here;
            membership.borrow_and_update();
            let busy = leads && self.has_work();
            if busy {
                self.work().await;
            }
            let pause =
                async { if busy { tokio::time::sleep(LOOK_EVERY).await } else { std::future::pending().await } };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
                changed = membership.changed() => if changed.is_err() { return },
                () = pause => {}
            }
        }
    }

    fn has_work(&self) -> bool {
        let metrics = self.group.raft.server_metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        membership.get_joint_config().len() > 1 || membership.learner_ids().next().is_some()
    }

    async fn work(&self) {
        // Changes are made one after the other; the next look is soon.
        let Some(next) = self.next() else { return };
        if let Err(error) = self.group.change(next, false).await {
            tracing::debug!(%error, "the membership was not changed; it is tried again");
        }
    }

    fn next(&self) -> Option<ChangeMembers<Id, crate::raft::Member>> {
        let data = self.group.raft.data_metrics();
        let data = data.borrow();
        let metrics = self.group.raft.server_metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        if configs.len() > 1 {
            return configs.last().cloned().map(ChangeMembers::ReplaceAllVoters);
        }
        let last = data.last_log?.index;
        let learner = membership.learner_ids().find(|id| {
            let matched = data.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
            matched.is_some_and(|matched| matched.index + CAUGHT_UP_ENTRIES >= last)
        })?;
        let name = &membership.get_node(&learner)?.name;
        // A member that lost its directory comes back under another id and the same name: the old one is gone.
        let gone = |id: &Id| *id != self.group.peers.id && membership.get_node(id).is_some_and(|one| one.name == *name);
        let mut voters: std::collections::BTreeSet<Id> = membership.voter_ids().filter(|id| !gone(id)).collect();
        voters.insert(learner);
        tracing::info!(id = learner, name, "a member has caught up and votes from now on");
        Some(ChangeMembers::ReplaceAllVoters(voters))
    }
}
