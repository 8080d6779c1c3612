//! Pods that nobody will ever finish: those bound to a node that no longer exists, and deleted ones that never got a
//! node.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Key, Queue, Scope};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use std::collections::HashMap;
use task::Shutdown;
use tokio::time::Instant;

use crate::shared::owned::gone_is_fine;
use crate::shared::pods;

/// A node that is registered anew within this time keeps its pods.
const QUARANTINE: Duration = Duration::from_secs(40);

struct PodCollector {
    client: Client,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    missing_since: Mutex<HashMap<String, Instant>>,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(PodCollector {
        pods: client.informer(Scope::all()),
        nodes: client.informer(Scope::all()),
        missing_since: Mutex::default(),
        client,
    });
    controller.pods.synced().await;
    controller.nodes.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("podgc", queue.clone(), 1, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&key).await }
    });
    let mut pods = controller.pods.subscribe();
    let mut nodes = controller.nodes.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = pods.next() => if let Some(pod) = &change.new && controller.is_stranded(pod) {
                queue.add(change.key);
            },
            change = nodes.next() => if change.new.is_none() {
                for pod in controller.pods.list() {
                    if pods::node_name(&pod) == Some(&change.key.name) {
                        queue.add(Key::of(&*pod));
                    }
                }
            }
        }
    }
}

impl PodCollector {
    fn is_stranded(&self, pod: &Pod) -> bool {
        match pods::node_name(pod) {
            Some(node) => self.nodes.get("", node).is_none(),
            None => pods::is_deleted(pod),
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Failure> {
        let Some(pod) = self.pods.get_key(key) else { return Ok(None) };
        if !self.is_stranded(&pod) {
            return Ok(None);
        }
        if let Some(node) = pods::node_name(&pod) {
            let missing = {
                let mut since = self.missing_since.lock();
                since.retain(|name, _| self.nodes.get("", name).is_none());
                since.entry(node.to_owned()).or_insert_with(Instant::now).elapsed()
            };
            if missing < QUARANTINE {
                return Ok(Some(QUARANTINE - missing));
            }
            // The cache may be behind.
            if self.client.find::<Node>("", node).await?.is_some() {
                return Ok(None);
            }
        }
        let options =
            DeleteOptions { grace_period_seconds: Some(0), uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        gone_is_fine(self.client.delete::<Pod>(&key.namespace, &key.name, options).await)?;
        Ok(None)
    }
}
