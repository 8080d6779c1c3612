//! What happens to the members, one episode after the other.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::World;
use super::clients::{Stores, leaders};
use super::history::History;
use crate::{KeyRange, OpenError};

/// The group has so many members at most, and so few at least.
const MEMBERS_MAX: usize = 5;
const MEMBERS_MIN: usize = 3;
/// A crash comes within so many operations of the disk, or after a while.
const CRASH_OPERATIONS: u64 = 40;
/// A change of the group that does not come about in this time is given up.
const CHANGE_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Faults {
    pub(super) world: World,
    pub(super) stores: Stores,
    pub(super) history: History,
    /// Members that were made, for names.
    pub(super) made: usize,
}

impl Faults {
    pub(super) async fn start(&mut self, at: usize) -> Result<(), OpenError> {
        let node = &mut self.world.nodes[at];
        let store = node.start().await?;
        if !node.witness {
            self.stores.add(&node.name, store.clone());
        }
        task::spawn("leaders", leaders(store, self.history.clone()));
        Ok(())
    }

    pub(super) async fn stop(&mut self, at: usize) {
        let node = &mut self.world.nodes[at];
        self.stores.remove(&node.name);
        node.stop().await;
    }

    fn crash(&mut self, at: usize) {
        let node = &mut self.world.nodes[at];
        self.stores.remove(&node.name);
        node.crash();
    }

    fn random(&mut self) -> &mut StdRng {
        &mut self.world.random
    }

    fn pick(&mut self) -> usize {
        let count = self.world.nodes.len();
        self.random().random_range(0..count)
    }

    fn millis(&mut self, max: u64) -> Duration {
        Duration::from_millis(self.random().random_range(0..max))
    }

    /// Does one thing to the group, and undoes it.
    pub(super) async fn episode(&mut self) -> Result<(), OpenError> {
        let calm = self.millis(1_500);
        sleep(calm).await;
        match self.random().random_range(0..12) {
            0..3 => self.power_cuts(false).await?,
            3..5 => self.power_cuts(true).await?,
            5 | 6 => self.partition().await,
            7 => self.weather().await,
            8 => {
                let at = self.pick();
                self.stop(at).await;
                let pause = self.millis(3_000);
                sleep(pause).await;
                self.start(at).await?;
            }
            9 => {
                let (at, time) = (self.pick(), self.millis(4_000));
                self.world.nodes[at].stall(time);
                sleep(time).await;
            }
            10 => {
                let at = self.pick();
                let _ = self.world.nodes[at].store().inner.raft.trigger().snapshot().await;
            }
            _ => self.membership().await?,
        }
        Ok(())
    }

    /// Some members lose their power: at once, or in the middle of something.
    async fn power_cuts(&mut self, within_operations: bool) -> Result<(), OpenError> {
        let count = self.world.nodes.len();
        let many = if self.random().random_bool(0.2) { count } else { 1 + usize::from(self.random().random_bool(0.3)) };
        let first = self.pick();
        let hit: Vec<usize> = (0..many).map(|at| (first + at) % count).collect();
        if within_operations {
            for at in &hit {
                let after = self.random().random_range(1..CRASH_OPERATIONS);
                let disk = &self.world.nodes[*at].disk;
                disk.stop_at(disk.operations() + after);
            }
            let pause = self.millis(1_500);
            sleep(pause).await;
        }
        for at in &hit {
            self.crash(*at);
        }
        for at in hit {
            let pause = self.millis(2_500);
            sleep(pause).await;
            self.start(at).await?;
        }
        Ok(())
    }

    async fn partition(&mut self) {
        let names: Vec<String> = self.world.nodes.iter().map(|node| node.name.clone()).collect();
        let side = self.random().random_range(1..1_u32 << names.len());
        let one_way = self.random().random_bool(0.3);
        for (from, from_name) in names.iter().enumerate() {
            for (to, to_name) in names.iter().enumerate() {
                let (from_side, to_side) = (side >> from & 1, side >> to & 1);
                if from_side > to_side || (from_side < to_side && !one_way) {
                    self.world.network.cut(from_name, to_name);
                }
            }
        }
        let pause = self.millis(5_000);
        sleep(pause).await;
        self.world.network.heal();
    }

    async fn weather(&mut self) {
        let (loss, repeat) = (self.random().random_range(0.0..0.2), self.random().random_range(0.0..0.2));
        let delay = self.millis(100);
        self.world.network.set_weather(loss, repeat, delay);
        let pause = self.millis(5_000);
        sleep(pause).await;
        self.world.network.set_weather(0.0, 0.0, Duration::from_millis(2));
    }

    /// A member comes, goes, or loses its disk.
    async fn membership(&mut self) -> Result<(), OpenError> {
        let count = self.world.nodes.len();
        let at = self.pick();
        let change = self.random().random_range(0..3);
        if change == 0 && count < MEMBERS_MAX {
            let name = format!("n{}", self.made);
            self.made += 1;
            let new = self.world.add(&name);
            self.world.nodes[new].join = vec![self.world.nodes[at].address.clone()];
            self.start(new).await?;
            self.settled(count + 1).await;
        } else if change == 1 && count > MEMBERS_MIN {
            let id = self.world.nodes[at].store().id();
            let asked = self.world.nodes[(at + 1) % count].store().clone();
            if tokio::time::timeout(CHANGE_WITHIN, asked.remove_member(id)).await.is_ok_and(|removed| removed.is_ok()) {
                self.stop(at).await;
                self.world.nodes.remove(at);
            }
        } else if change == 2 && self.settled(count).await {
            // It must not be needed by those who were not caught up with.
            self.crash(at);
            self.world.nodes[at].disk = Default::default();
            self.world.nodes[at].join = vec![self.world.nodes[(at + 1) % count].address.clone()];
            self.start(at).await?;
            self.settled(count).await;
        }
        Ok(())
    }

    /// Waits until the group consists of the members that run, all of which vote and have all there is.
    pub(super) async fn settled(&mut self, count: usize) -> bool {
        let nodes = &self.world.nodes;
        let settled = async {
            loop {
                let mut ids: Vec<u64> = nodes.iter().map(|node| node.store().id()).collect();
                ids.sort_unstable();
                let mut agree = true;
                for node in nodes {
                    let store = node.store();
                    let members = store.members();
                    let voters = members.iter().filter(|member| member.role != crate::MemberRole::Learner);
                    agree &= voters.map(|member| member.id).eq(ids.iter().copied()) && members.len() == count;
                    agree &= node.witness || store.read_index().await.is_ok();
                    agree &= node.witness || store.range(&KeyRange::key("a").into()).is_ok();
                }
                if agree {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(CHANGE_WITHIN, settled).await.is_ok()
    }
}
