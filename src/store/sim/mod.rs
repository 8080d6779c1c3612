//! A group of members in one process, with time, network and disks pretended and everything drawn from one seed.

mod network;
mod node;

mod group_test;

pub(crate) use network::Network;
pub(crate) use node::Node;

use std::future::Future;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Members with a common network.
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) random: StdRng,
    pub(crate) nodes: Vec<Node>,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World { network: Network::new(seed), random: StdRng::seed_from_u64(seed), nodes: Vec::new() }
    }

    /// Adds a member that has not begun yet.
    pub(crate) fn add(&mut self, name: &str) -> usize {
        let node = Node::new(name, self.network.clone(), &mut self.random);
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// Runs a test in pretended time.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}
