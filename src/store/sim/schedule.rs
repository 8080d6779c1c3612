//! One schedule: a group, clients, and what happens to them, all from a seed.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use rand::RngExt;
use tokio::time::sleep;

use super::clients::{Stores, client, recorder, watcher};
use super::faults::Faults;
use super::history::History;
use super::{World, invariants};

const CLIENTS: u64 = 3;
const WATCHERS: u64 = 2;
const EPISODES: usize = 6;
/// The group is whole again so long after the last fault.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);

/// No lease lasts so long after the last client.
const LEASES_OVER: Duration = Duration::from_secs(15);

/// What a schedule came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) operations: usize,
    pub(crate) written: usize,
    /// Of everything that was done and seen: the same seed gives the same.
    pub(crate) trace: u64,
}

/// Runs the schedule of a seed; the error says which invariant did not hold.
pub(crate) fn schedule(seed: u64) -> Result<Summary, String> {
    super::run(seed, run(seed))
}

async fn run(seed: u64) -> Result<Summary, String> {
    let history = History::default();
    let stores = Stores::default();
    let mut faults = Faults { world: World::new(seed), stores: stores.clone(), history: history.clone(), made: 3 };
    for at in 0..3 {
        let node = faults.world.add(&format!("n{at}"));
        if at > 0 {
            faults.world.nodes[node].join = vec!["n0:2380".to_owned()];
        }
        faults.start(node).await.map_err(|error| error.to_string())?;
    }
    if !faults.settled(3).await {
        return Err("the group did not come about".to_owned());
    }
    let stop = task::Shutdown::new();
    let watching = task::Shutdown::new();
    task::spawn("recorder", recorder(stores.clone(), history.clone(), watching.clone()));
    let mut seeds = || faults.world.random.random::<u64>();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| task::spawn("client", client(number, seeds(), stores.clone(), history.clone(), stop.clone())))
        .collect();
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|_| task::spawn("watcher", watcher(seeds(), stores.clone(), history.clone(), watching.clone())))
        .collect();
    for _ in 0..EPISODES {
        faults.episode().await.map_err(|error| format!("durable: a member does not open: {error}"))?;
    }
    stop.cancel();
    for client in clients {
        client.await.map_err(|error| error.to_string())?;
    }
    let count = faults.world.nodes.len();
    let recovered = tokio::time::timeout(RECOVERED_WITHIN, async { while !faults.settled(count).await {} }).await;
    if recovered.is_err() {
        let members: Vec<_> = faults.world.nodes.iter().map(|node| node.store().members()).collect();
        return Err(format!("recovers: the group is not whole again after all faults are over: {members:?}"));
    }
    // Leases end, and watchers come to the end of what there is.
    sleep(LEASES_OVER).await;
    if !faults.settled(count).await {
        return Err("recovers: the group falls apart without faults".to_owned());
    }
    let last = faults.world.nodes[0].store().revision();
    for _ in 0..100 {
        if history.through() >= last {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(1)).await;
    watching.cancel();
    for watcher in watchers {
        watcher.await.map_err(|error| error.to_string())?;
    }
    let members: Vec<_> = faults.world.nodes.iter().map(|node| node.store().clone()).collect();
    history.with(|history| {
        invariants::complete::check(history, last)?;
        invariants::linearizable::check(history)?;
        invariants::watches::check(history)?;
        invariants::leaders::check(history)?;
        invariants::leases::check(history)?;
        invariants::same_state::check(&members, history)
    })?;
    Ok(history.with(|history| {
        let mut trace = DefaultHasher::new();
        trace.write(format!("{:?} {:?} {:?}", history.operations, history.events, history.leaders).as_bytes());
        let written = history.operations.iter().filter(|one| matches!(one.end, super::history::End::Written { .. }));
        Summary { operations: history.operations.len(), written: written.count(), trace: trace.finish() }
    }))
}
