//! A member with its disk, which can lose its power and come back.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::network::Network;
use crate::disk::fake::FakeDisk;
use crate::log::Runs;
use crate::membership::NetworkConfig;
use crate::open::{Ground, open_on};
use crate::{Config, Dial, OpenError, Store, Stream};

const SEGMENT_BYTES: u64 = 128 << 10;

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) disk: FakeDisk,
    pub(crate) store: Option<Store>,
    pub(crate) join: Vec<String>,
    pub(crate) witness: bool,
    pub(crate) reset_to_single: bool,
    shutdown: task::Shutdown,
    dead: Arc<AtomicBool>,
    network: Network,
    random: StdRng,
    /// Until then its disk does nothing.
    stalled: Arc<Mutex<Option<Instant>>>,
}

struct NoDial;

impl Dial for NoDial {
    fn dial(&self, _: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

impl Node {
    pub(crate) fn new(name: &str, network: Network, random: &mut StdRng) -> Node {
        Node {
            name: name.to_owned(),
            address: format!("{name}:2380"),
            disk: FakeDisk::default(),
            store: None,
            join: Vec::new(),
            witness: false,
            reset_to_single: false,
            shutdown: task::Shutdown::new(),
            dead: Arc::default(),
            network,
            random: StdRng::seed_from_u64(random.random()),
            stalled: Arc::default(),
        }
    }

    /// Starts the member on what its disk holds.
    pub(crate) async fn start(&mut self) -> Result<Store, OpenError> {
        self.shutdown = task::Shutdown::new();
        self.dead = Arc::default();
        let slow = Arc::new(Mutex::new(StdRng::seed_from_u64(self.random.random())));
        let stalled = self.stalled.clone();
        let pause = move || {
            let stalled = stalled.lock().map_or(Duration::ZERO, |until| until.duration_since(Instant::now()));
            stalled + Duration::from_micros(slow.lock().random_range(50..2_000))
        };
        let ground = Ground {
            disk: Arc::new(self.disk.clone()),
            segment_bytes: SEGMENT_BYTES,
            relaxed_sync_after: Duration::from_secs(60),
            runs: Runs::Task { pause: Arc::new(pause) },
            database_dir: PathBuf::from("/nonexistent/sled"),
            transport: Some(self.network.way(&self.name, self.dead.clone())),
            seed: Some(self.random.random()),
            boot_id: "boot".to_owned(),
        };
        let dial = Arc::new(NoDial);
        let network = NetworkConfig { address: self.address.clone(), dial, join: self.join.clone() };
        let config = Config {
            network: Some(network),
            witness: self.witness,
            reset_to_single: self.reset_to_single,
            ..Config::new("/db", self.name.clone())
        };
        let store = open_on(ground, config, self.shutdown.clone(), None).await?;
        self.network.listen(&self.address, &self.name, store.id(), store.inner.inbound.clone(), self.dead.clone());
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Stops the member in order.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(store) = self.store.take() {
            store.closed().await;
        }
        self.network.hang_up(&self.address);
    }

    /// The power goes: at once nothing is said any more, and what was not synced is kept, lost or torn.
    pub(crate) fn crash(&mut self) {
        self.dead.store(true, Ordering::Relaxed);
        self.network.hang_up(&self.address);
        self.disk.stop_at(0);
        if let Some(store) = self.store.take() {
            store.inner.log.fail();
        }
        self.disk = self.disk.after_power_cut(self.random.random());
    }

    /// Lets its disk do nothing for a while.
    pub(crate) fn stall(&self, time: Duration) {
        *self.stalled.lock() = Some(Instant::now() + time);
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }
}
