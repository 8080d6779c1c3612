//! Notices nodes that have gone silent, keeps pods away from nodes that are not well, and evicts pods from nodes that
//! are gone for too long.
//!
//! A node lives as long as its Lease in `kube-node-lease` is renewed. Silence is measured with our own clock from the
//! last renewal that we saw, so that clocks that differ do no harm. What is to be done with a node and its pods is
//! decided in [`verdict`] and [`evict_at`]; timers are set for when the answer changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::placement::tolerates;
use client::{Client, DeleteOptions, Failure, Informer, Involved, Key, Patch, Queue, Recorder, Scope};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use task::Shutdown;
use tokio::time::Instant;

use crate::shared::owned::gone_is_fine;
use crate::shared::pods;

/// Silence after which a node counts as lost (upstream's `--node-monitor-grace-period`).
const GRACE: Duration = Duration::from_secs(50);
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions and the taint that each puts on a node when it is `True`.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

struct Lifecycle {
    client: Client,
    nodes: Arc<Informer<Node>>,
    leases: Arc<Informer<Lease>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
    heard: Mutex<HashMap<String, Heard>>,
}

/// The last sign of life of a node.
struct Heard {
    renewed: Option<MicroTime>,
    at: Instant,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(Lifecycle {
        nodes: client.informer(Scope::all()),
        leases: client.informer(Scope { namespace: Some("kube-node-lease".to_owned()), ..Scope::default() }),
        pods: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "node-controller", None),
        heard: Mutex::default(),
        client,
    });
    controller.nodes.synced().await;
    controller.leases.synced().await;
    controller.pods.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("nodelifecycle", queue.clone(), 2, shutdown.clone(), move |name: String| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&name).await }
    });
    let mut nodes = controller.nodes.subscribe();
    let mut leases = controller.leases.subscribe();
    let mut pods = controller.pods.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = nodes.next() => queue.add(change.key.name),
            // A renewal of a node that is well changes nothing; only the first after a silence does.
            change = leases.next() => if controller.is_lost(&change.key.name) {
                queue.add(change.key.name);
            },
            // A pod that comes to a tainted node may have to go again.
            change = pods.next() => {
                let node = change.new.as_deref().and_then(pods::node_name);
                let moved = node != change.old.as_deref().and_then(pods::node_name);
                if let Some(node) = node.filter(|_| moved)
                    && controller.nodes.get("", node).is_some_and(|node| no_execute(&node).next().is_some())
                {
                    queue.add(node.to_owned());
                }
            }
        }
    }
}

impl Lifecycle {
    fn is_lost(&self, name: &str) -> bool {
        self.nodes.get("", name).is_some_and(|node| status_of(&node, "Ready") == "Unknown")
    }

    async fn reconcile(&self, name: &str) -> Result<Option<Duration>, Failure> {
        let Some(node) = self.nodes.get("", name) else {
            self.heard.lock().remove(name);
            return Ok(None);
        };
        let silence = self.silence(name);
        if silence >= GRACE && status_of(&node, "Ready") != "Unknown" {
            self.mark_lost(&node).await?;
            return Ok(Some(Duration::ZERO));
        }
        let taints = verdict(&node, Timestamp::now());
        if node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).cloned().unwrap_or_default() != taints {
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            });
            gone_is_fine(self.client.patch::<Node>("", name, Patch::Merge(patch)).await)?;
        }
        if status_of(&node, "Ready") != "True" {
            self.mark_pods_not_ready(name).await?;
        }
        let next_eviction = self.evict(&node, &taints).await?;
        let next_check = (silence < GRACE).then(|| GRACE - silence);
        Ok(next_eviction.into_iter().chain(next_check).min())
    }

    /// How long nothing was heard of a node.
    fn silence(&self, name: &str) -> Duration {
        let renewed =
            self.leases.get("kube-node-lease", name).and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let mut heard = self.heard.lock();
        let now = Instant::now();
        let last = heard.entry(name.to_owned()).or_insert(Heard { renewed: renewed.clone(), at: now });
        if last.renewed != renewed {
            *last = Heard { renewed, at: now };
        }
        now.duration_since(last.at)
    }

    async fn mark_lost(&self, node: &Node) -> Result<(), Failure> {
        let now = Time(Timestamp::now());
        let mut lost = node.clone();
        for condition in lost.status.get_or_insert_default().conditions.iter_mut().flatten() {
            if condition.status != "Unknown" && condition.type_ != "NetworkUnavailable" {
                *condition = NodeCondition {
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusUnknown".to_owned()),
                    message: Some("Kubelet stopped posting node status.".to_owned()),
                    last_transition_time: Some(now.clone()),
                    ..condition.clone()
                };
            }
        }
        gone_is_fine(self.client.update_status(&lost).await)?;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(node = name, "node is silent; its pods are moved when their tolerations end");
        let message = format!("Node {name} status is now: NodeNotReady");
        self.recorder.normal(Involved::new(node), "NodeNotReady", message);
        Ok(())
    }

    /// Services stop sending traffic to pods that nobody vouches for.
    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), Failure> {
        for pod in self.pods_on(node) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let mut changed = Pod::clone(&pod);
            for condition in changed.status.get_or_insert_default().conditions.iter_mut().flatten() {
                if condition.type_ == "Ready" {
                    condition.status = "False".to_owned();
                    condition.last_transition_time = Some(Time(Timestamp::now()));
                }
            }
            gone_is_fine(self.client.update_status(&changed).await)?;
        }
        Ok(())
    }

    /// Deletes the pods whose time on this node is over; yields when the next one's is.
    async fn evict(&self, node: &Node, taints: &[Taint]) -> Result<Option<Duration>, Failure> {
        let no_execute: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
        if no_execute.is_empty() {
            return Ok(None);
        }
        let now = Timestamp::now();
        let mut next: Option<Duration> = None;
        for pod in self.pods_on(node.metadata.name.as_deref().unwrap_or_default()) {
            if pods::is_deleted(&pod) {
                continue;
            }
            let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
            let Some(at) = evict_at(&no_execute, tolerations, now) else { continue };
            if at > now {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                next = Some(next.map_or(wait, |next| next.min(wait)));
                continue;
            }
            let key = Key::of(&*pod);
            self.recorder.normal(
                Involved::new(&*pod),
                "TaintManagerEviction",
                format!("Marking for deletion Pod {key}"),
            );
            let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
            gone_is_fine(self.client.delete::<Pod>(&key.namespace, &key.name, options).await)?;
        }
        Ok(next)
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list();
        pods.retain(|pod| pods::node_name(pod) == Some(node));
        pods
    }
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().filter(|taint| taint.effect == "NoExecute")
}

fn status_of<'a>(node: &'a Node, kind: &str) -> &'a str {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == kind))
        .map_or("", |condition| condition.status.as_str())
}

/// The taints that a node should have: somebody else's as they are, ours as its conditions demand.
fn verdict(node: &Node, now: Timestamp) -> Vec<Taint> {
    let known = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match status_of(node, "Ready") {
        "True" => {}
        "Unknown" => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    wanted.extend(
        PRESSURES.iter().filter(|(kind, _)| status_of(node, kind) == "True").map(|(_, key)| (*key, "NoSchedule")),
    );
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = known.iter().filter(|taint| !ours(&taint.key) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: (effect == "NoExecute").then_some(Time(now)),
                value: None,
            });
        }
    }
    taints
}

/// When a pod has to leave a node with these taints; `None` if it may stay for good.
fn evict_at(taints: &[&Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Timestamp> {
    let mut at: Option<Timestamp> = None;
    for taint in taints {
        let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if matching.peek().is_none() {
            return Some(now);
        }
        let Some(seconds) = matching.filter_map(|toleration| toleration.toleration_seconds).min() else { continue };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let end = Timestamp::from_second(since.as_second().saturating_add(seconds.max(0))).unwrap_or(Timestamp::MAX);
        at = Some(at.map_or(end, |at| at.min(end)));
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, over: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": over,
            "status": {"conditions": [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]},
        }))
        .unwrap()
    }

    fn keys(taints: &[Taint]) -> Vec<String> {
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn taints_follow_the_conditions_and_leave_others_alone() {
        let now = Timestamp::UNIX_EPOCH;
        let own = json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}], "unschedulable": true});
        let lost = verdict(&node("Unknown", own), now);
        assert_eq!(
            keys(&lost),
            [
                "gpu:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                "node.kubernetes.io/unschedulable:NoSchedule",
            ]
        );
        let back = verdict(&node("True", json!({"taints": lost})), now);
        assert_eq!(keys(&back), ["gpu:NoSchedule"]);
        let kept = json!({"taints": [{"key": NOT_READY, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]});
        let again = verdict(&node("False", kept), now);
        assert_eq!(again[0].time_added.as_ref().unwrap().0.to_string(), "2026-01-01T00:00:00Z", "the clock runs on");
    }

    #[test]
    fn pods_leave_when_their_tolerations_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let taint =
            Taint { key: NOT_READY.into(), effect: "NoExecute".into(), time_added: Some(Time(at(100))), value: None };
        let tolerate = |seconds: Option<i64>| Toleration {
            key: Some(NOT_READY.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        };
        let everything = Toleration { operator: Some("Exists".into()), ..Toleration::default() };
        assert_eq!(evict_at(&[&taint], &[], at(150)), Some(at(150)));
        assert_eq!(evict_at(&[&taint], &[tolerate(Some(300))], at(150)), Some(at(400)));
        assert_eq!(evict_at(&[&taint], &[tolerate(None)], at(150)), None);
        assert_eq!(evict_at(&[&taint], &[everything], at(150)), None);
    }
}
