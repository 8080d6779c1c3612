//! Which node a pod runs on.
//!
//! One task owns everything that decisions are made from: the nodes with their pods, kept incrementally from informers,
//! and the queue of pods that wait. It decides on one pod at a time ([`cycle`]), assumes that the pod is there from then on,
//! and leaves the binding to a task of its own; if that fails, the assumption is taken back and the pod waits again.
//!
//! Limitations: no preemption, no pod affinity, no topology spread, no volumes; they are plugins to come.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Change, Client, Failure, Informer, Involved, Key, Patch, Recorder, Scope};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use task::Shutdown;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

mod cycle;
mod node;
mod plugins;
mod queue;
mod resources;

use cycle::{Plugins, Unschedulable};
use node::{NodeInfo, PodInfo};
use queue::{Happening, Queue};

/// The name under which pods ask for this scheduler.
pub const SCHEDULER_NAME: &str = "default-scheduler";
/// Bindings on their way at a time.
const BINDINGS_MAX: usize = 64;
/// Pods decided on before the informers are looked at again.
const DECISIONS_IN_A_ROW_MAX: usize = 64;

/// Schedules until `shutdown`.
pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let pods: Arc<Informer<Pod>> = client.informer(Scope::all());
    let nodes: Arc<Informer<Node>> = client.informer(Scope::all());
    nodes.synced().await;
    pods.synced().await;
    let (outcomes, mut bound) = mpsc::unbounded_channel();
    let mut scheduler = Scheduler {
        recorder: Recorder::new(client.clone(), SCHEDULER_NAME, None),
        client,
        plugins: Plugins { filters: plugins::filters(), scores: plugins::scores() },
        nodes: HashMap::new(),
        on_node: HashMap::new(),
        queue: Queue::default(),
        rng: SmallRng::from_rng(&mut rand::rng()),
        bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
        outcomes,
    };
    let mut node_changes = nodes.subscribe();
    let mut pod_changes = pods.subscribe();
    // The nodes first, so that no pod is called unschedulable for nodes that are there.
    while let Some(change) = node_changes.try_next() {
        scheduler.node_changed(change);
    }
    loop {
        while let Some(change) = pod_changes.try_next() {
            scheduler.pod_changed(change);
        }
        let mut decided = 0;
        while decided < DECISIONS_IN_A_ROW_MAX && scheduler.decide_next() {
            decided += 1;
        }
        if decided == DECISIONS_IN_A_ROW_MAX {
            tokio::task::yield_now().await;
            continue;
        }
        let due = scheduler.queue.next_due();
        let wait = async move {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = node_changes.next() => scheduler.node_changed(change),
            change = pod_changes.next() => scheduler.pod_changed(change),
            Some(outcome) = bound.recv() => scheduler.bound(outcome),
            () = wait => {}
        }
    }
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    plugins: Plugins,
    nodes: HashMap<String, NodeInfo>,
    /// The node that each pod is on, by the pod's uid; assumed ones included.
    on_node: HashMap<String, String>,
    queue: Queue,
    rng: SmallRng,
    bindings: Arc<Semaphore>,
    outcomes: mpsc::UnboundedSender<Bound>,
}

/// How a binding went.
struct Bound {
    pod: Arc<PodInfo>,
    outcome: Result<(), Failure>,
}

impl Scheduler {
    fn node_changed(&mut self, change: Change<Node>) {
        let info = self.nodes.entry(change.key.name.clone()).or_insert_with(|| NodeInfo::new(&change.key.name));
        let helps = change.new.as_deref().is_some_and(|new| {
            change.old.as_deref().is_none_or(|old| {
                let of = |node: &Node| {
                    (
                        node.spec.clone(),
                        node.metadata.labels.clone(),
                        node.status.as_ref().map(|s| s.allocatable.clone()),
                    )
                };
                of(old) != of(new)
            })
        });
        info.set_node(change.new);
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.remove(&change.key.name);
        }
        if helps {
            self.happened(&Happening::Node);
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        if let Some(old) = &change.old {
            let replaced = change.new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid);
            if replaced {
                self.leave(old.metadata.uid.as_deref().unwrap_or_default());
                self.queue.remove(&change.key);
            }
        }
        let Some(pod) = change.new else { return };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let finished = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
        match spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty()) {
            Some(_) if finished => {
                self.queue.remove(&change.key);
                self.leave(&uid);
            }
            Some(node) => {
                let node = node.to_owned();
                self.queue.remove(&change.key);
                if self.on_node.get(&uid).is_some_and(|known| *known != node) {
                    self.leave(&uid);
                }
                self.arrive(&node, Arc::new(PodInfo::new(pod)));
            }
            None => {
                let ours = spec.is_some_and(|spec| {
                    spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME
                        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
                });
                if !ours || finished || pod.metadata.deletion_timestamp.is_some() {
                    self.queue.remove(&change.key);
                } else if self.needs_a_look(&change.key, &pod) && !self.on_node.contains_key(&uid) {
                    self.queue.put(Arc::new(PodInfo::new(pod)));
                }
            }
        }
    }

    /// Its status, which we write ourselves, is no reason to try again.
    fn needs_a_look(&self, key: &Key, pod: &Pod) -> bool {
        self.queue.get(key).is_none_or(|known| {
            known.pod.spec != pod.spec
                || known.pod.metadata.labels != pod.metadata.labels
                || known.pod.metadata.uid != pod.metadata.uid
        })
    }

    fn arrive(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.on_node.insert(pod.uid().to_owned(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_insert_with(|| NodeInfo::new(node)).add(pod);
    }

    fn leave(&mut self, uid: &str) {
        let Some(node) = self.on_node.remove(uid) else { return };
        let Some(info) = self.nodes.get_mut(&node) else { return };
        let gone = info.pods.get(uid).cloned();
        info.remove(uid);
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.remove(&node);
        }
        if let Some(gone) = gone {
            self.happened(&Happening::PodGone(gone));
        }
    }

    fn happened(&mut self, happening: &Happening) {
        let filters = &self.plugins.filters;
        self.queue.happened(happening, Instant::now(), |name, pod, happening| {
            filters.iter().any(|filter| filter.name() == name && filter.helped_by(pod, happening))
        });
    }

    /// Decides on the next pod; false if none waits.
    fn decide_next(&mut self) -> bool {
        let Some(pod) = self.queue.pop(Instant::now()) else { return false };
        match cycle::decide(&self.plugins, &pod, self.nodes.values(), &mut self.rng) {
            Ok(node) => {
                self.arrive(&node, pod.clone());
                self.bind(pod, node);
            }
            Err(why) => {
                self.queue.unschedulable(&pod.key, why.filters.clone(), Instant::now());
                self.report(pod, why);
            }
        }
        true
    }

    fn bind(&self, pod: Arc<PodInfo>, node: String) {
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        let (bindings, outcomes) = (self.bindings.clone(), self.outcomes.clone());
        task::spawn("bind", async move {
            let _permit = bindings.acquire().await;
            let Key { namespace, name } = &pod.key;
            let body = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {"namespace": namespace, "name": name, "uid": pod.uid()},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let outcome = client.create_subresource::<Pod, Value>(namespace, name, "binding", body).await.map(drop);
            if outcome.is_ok() {
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                recorder.normal(Involved::new(&*pod.pod), "Scheduled", message);
            }
            let _ = outcomes.send(Bound { pod, outcome });
        });
    }

    fn bound(&mut self, bound: Bound) {
        let Err(failure) = bound.outcome else { return };
        self.leave(bound.pod.uid());
        if failure.is_not_found() {
            self.queue.remove(&bound.pod.key);
        } else {
            tracing::info!(pod = %bound.pod.key, %failure, "binding failed; the pod is scheduled again");
            self.queue.retry(&bound.pod.key, Instant::now());
        }
    }

    /// Tells the pod's owner why it waits: an event, and the condition that `kubectl describe` and autoscalers read.
    fn report(&self, pod: Arc<PodInfo>, why: Unschedulable) {
        let message = why.to_string();
        self.recorder.warning(Involved::new(&*pod.pod), "FailedScheduling", message.clone());
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let known = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
        if known.is_some_and(|known| known.status == "False" && known.message.as_deref() == Some(&message)) {
            return;
        }
        let client = self.client.clone();
        task::spawn("unschedulable", async move {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default(),
            });
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]},
            }));
            if let Err(failure) = client.patch_status::<Pod>(&pod.key.namespace, &pod.key.name, patch).await
                && !failure.is_not_found()
            {
                tracing::debug!(pod = %pod.key, %failure, "condition not written");
            }
        });
    }
}
