//! A network that delays, loses, repeats and reorders messages, and falls apart, all by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::members::{ANYONE, CallError, Inbound, Lane, Peer, Transport};
use crate::raft::Id;

/// Messages of Raft have the first numbers.
const RAFT_KINDS: u8 = 4;

#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    random: StdRng,
    ends: BTreeMap<String, End>,
    /// Pairs of names between which nothing goes, in this direction.
    cut: BTreeSet<(String, String)>,
    loss: f64,
    repeat: f64,
    delay: (Duration, Duration),
}

#[derive(Clone)]
struct End {
    name: String,
    id: Id,
    inbound: Arc<Inbound>,
    /// The member has lost its power since.
    dead: Arc<AtomicBool>,
}

/// One member's way into the network.
pub(crate) struct Way {
    network: Network,
    name: String,
    dead: Arc<AtomicBool>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Network {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed ^ 0x6e65_7477),
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0.0,
            repeat: 0.0,
            delay: (Duration::from_micros(200), Duration::from_millis(2)),
        };
        Network { inner: Arc::new(Mutex::new(inner)) }
    }

    /// What share of the messages is lost, what share comes twice, and how long they take at most.
    pub(crate) fn set_weather(&self, loss: f64, repeat: f64, delay_max: Duration) {
        let mut inner = self.inner.lock();
        (inner.loss, inner.repeat) = (loss, repeat);
        inner.delay.1 = delay_max;
    }

    /// Lets nothing through from one member to another.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        self.inner.lock().cut.insert((from.to_owned(), to.to_owned()));
    }

    /// Separates a member from all others.
    pub(crate) fn isolate(&self, name: &str, others: &[&str]) {
        for other in others.iter().filter(|other| **other != name) {
            self.cut(name, other);
            self.cut(other, name);
        }
    }

    pub(crate) fn heal(&self) {
        self.inner.lock().cut.clear();
    }

    pub(crate) fn way(&self, name: &str, dead: Arc<AtomicBool>) -> Arc<Way> {
        Arc::new(Way { network: self.clone(), name: name.to_owned(), dead })
    }

    /// A member listens at an address from now on.
    pub(crate) fn listen(&self, address: &str, name: &str, id: Id, inbound: Arc<Inbound>, dead: Arc<AtomicBool>) {
        self.inner.lock().ends.insert(address.to_owned(), End { name: name.to_owned(), id, inbound, dead });
    }

    pub(crate) fn hang_up(&self, address: &str) {
        self.inner.lock().ends.remove(address);
    }

    fn draw(&self) -> (Duration, bool, bool) {
        let mut inner = self.inner.lock();
        let (min, max) = inner.delay;
        let (loss, repeat) = (inner.loss, inner.repeat);
        let delay = inner.random.random_range(min..=max.max(min));
        (delay, inner.random.random_bool(loss), inner.random.random_bool(repeat))
    }

    fn end(&self, from: &str, peer: &Peer) -> Option<End> {
        let inner = self.inner.lock();
        let end = inner.ends.get(&peer.address)?;
        let reached = (end.id == peer.id || peer.id == ANYONE) && !end.dead.load(Ordering::Relaxed);
        (reached && !inner.cut.contains(&(from.to_owned(), end.name.clone()))).then(|| end.clone())
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.inner.lock().cut.contains(&(from.to_owned(), to.to_owned()))
    }
}

async fn exchange(network: Network, from: String, peer: Peer, request: Bytes) -> Result<Bytes, CallError> {
    let (delay, lost, repeated) = network.draw();
    tokio::time::sleep(delay).await;
    let end = network.end(&from, &peer).ok_or(CallError::Unreachable)?;
    if lost {
        return std::future::pending().await;
    }
    // A stream repeats nothing; Raft would bear it all the same.
    if repeated && request.first().is_some_and(|kind| *kind <= RAFT_KINDS) {
        let (later, ..) = network.draw();
        let (end, request) = (end.clone(), request.clone());
        task::spawn("repeated", async move {
            tokio::time::sleep(later * 10).await;
            end.inbound.answer(&request).await;
        });
    }
    // The member goes on with it when nobody waits any more.
    let (inbound, to) = (end.inbound.clone(), end.name.clone());
    let answer = task::spawn("answer", async move { inbound.answer(&request).await }).await;
    let Ok(Some(answer)) = answer else { return std::future::pending().await };
    let (delay, lost, _) = network.draw();
    tokio::time::sleep(delay).await;
    if lost || network.is_cut(&to, &from) || end.dead.load(Ordering::Relaxed) {
        return std::future::pending().await;
    }
    Ok(answer)
}

impl Transport for Way {
    fn call(
        &self,
        peer: Peer,
        _lane: Lane,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let exchange = exchange(self.network.clone(), self.name.clone(), peer, request);
        let dead = self.dead.clone();
        Box::pin(async move {
            if dead.load(Ordering::Relaxed) {
                return Err(CallError::Unreachable);
            }
            tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(CallError::NoAnswer))
        })
    }
}
