//! Who leads, as this member knows it.

use tokio::sync::watch;

use openraft::ServerState;

use super::{Id, Raft};

/// Who leads the group, as this member knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Raft's term. Who leads in a higher one leads after those in lower ones.
    pub term: u64,
    pub leader: Option<Id>,
    /// It is this member.
    pub here: bool,
}

impl Leadership {
    fn of(raft: &Raft) -> Leadership {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow();
        Leadership {
            term: metrics.vote.leader_id().term,
            leader: metrics.current_leader,
            here: metrics.state == ServerState::Leader,
        }
    }
}

/// Says who leads, until Raft stops; then nobody does.
pub(crate) fn follow(raft: &Raft) -> watch::Receiver<Leadership> {
    let (says, leadership) = watch::channel(Leadership::of(raft));
    let raft = raft.clone();
    task::spawn("store-leadership", async move {
        let mut metrics = raft.server_metrics();
        while metrics.changed().await.is_ok() {
            let now = Leadership::of(&raft);
            says.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
        says.send_replace(Leadership::default());
    });
    leadership
}
