//! A group of members in one process, with time, network and disks pretended and everything drawn from one seed.

mod clients;
mod faults;
mod history;
mod invariants;
mod network;
mod node;
mod schedule;

mod group_test;
mod simulation_test;

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

/// Runs a test in pretended time. tokio draws by itself which of several tasks that wait for one thing wakes first;
/// built with `--cfg tokio_unstable` it takes the seed, and a schedule is exactly the same again.
pub(crate) fn run<T>(seed: u64, work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let _ = seed;
    builder.build().unwrap().block_on(work)
}
