//! Which pods a DaemonSet makes and deletes, and what its status says. Pure, but for the memory of pods that failed,
//! which is handed in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::int_or_string;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use super::nodes::{Suits, is_updated, node_of, suits};
use crate::shared::pods;

/// Pauses before a pod that failed is replaced on the same node: the first, and the longest of the doubled ones.
const FAILED_PAUSE_MIN: Duration = Duration::from_secs(1);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(900);

/// A DaemonSet, its nodes and its pods.
pub struct View<'a> {
    pub set: &'a DaemonSet,
    /// Of the present template.
    pub hash: &'a str,
    pub nodes: &'a [Arc<Node>],
    /// By the node that they are on or meant for, each node's in order: bound ones first, then the oldest.
    pub pods: BTreeMap<String, Vec<Arc<Pod>>>,
    pub now: Timestamp,
}

/// What to do.
#[derive(Default)]
pub struct Plan {
    /// Names of nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Events: whether it is a warning, the reason and the message.
    pub said: Vec<(bool, &'static str, String)>,
    pub again: Option<Duration>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// When a pod last failed on a node, and how long the next one waits. One entry per node and DaemonSet where pods fail.
#[derive(Default)]
pub struct FailedPods {
    of: HashMap<(String, i64, String), (Timestamp, Duration)>,
}

impl FailedPods {
    /// Notes that a pod is replaced now, or says how long it has to wait.
    fn replace(&mut self, set: &DaemonSet, node: &str, now: Timestamp) -> Result<(), Duration> {
        self.of.retain(|_, (last, _)| since(*last, now) < FAILED_PAUSE_MAX * 2);
        let generation = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        let key = (set.metadata.uid.clone().unwrap_or_default(), generation, node.to_owned());
        let pause = match self.of.get(&key) {
            Some((last, pause)) if since(*last, now) < *pause => return Err(*pause - since(*last, now)),
            Some((_, pause)) => (*pause * 2).min(FAILED_PAUSE_MAX),
            None => FAILED_PAUSE_MIN,
        };
        self.of.insert(key, (now, pause));
        Ok(())
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// The pods by node. Those that have ended and are going are left out.
pub fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !(pods::is_finished(pod) && pods::is_deleted(pod))) {
        if let Some(node) = node_of(pod) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (Reverse(pods::node_name(pod).is_some()), created, pod.metadata.name.clone())
        });
    }
    by_node
}

/// First each node gets what it should have; when that is so, the next step of a rolling update.
pub fn plan(view: &View<'_>, failed: &mut FailedPods) -> Plan {
    let mut plan = Plan::default();
    for node in view.nodes {
        on_node(view, node, failed, &mut plan);
    }
    // Pods that wait for a node that is gone will wait for ever.
    for (node, pods) in &view.pods {
        if !view.nodes.iter().any(|one| one.metadata.name.as_ref() == Some(node)) {
            plan.delete.extend(pods.iter().filter(|pod| pods::node_name(pod).is_none()).cloned());
        }
    }
    let strategy = view.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    if plan.is_empty() && rolling {
        roll(view, &mut plan);
    }
    plan
}

fn on_node(view: &View<'_>, node: &Node, failed: &mut FailedPods, plan: &mut Plan) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let pods = view.pods.get(name).map(Vec::as_slice).unwrap_or_default();
    let suits = suits(view.set, node);
    let living = pods.iter().filter(|pod| !pods::is_deleted(pod));
    if suits == Suits::No {
        return plan.delete.extend(living.cloned());
    }
    if pods.is_empty() {
        return plan.create.extend((suits == Suits::Yes).then(|| name.to_owned()));
    }
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in living {
        let which = || {
            let meta = &pod.metadata;
            let (namespace, pod) = (meta.namespace.as_deref(), meta.name.as_deref());
            format!("daemon pod {}/{} on node {name}", namespace.unwrap_or_default(), pod.unwrap_or_default())
        };
        match pods::phase(pod) {
            "Failed" => match failed.replace(view.set, name, view.now) {
                Ok(()) => {
                    plan.said.push((true, "FailedDaemonPod", format!("Found failed {}, will try to kill it", which())));
                    plan.delete.push(pod.clone());
                }
                Err(wait) => plan.again = Some(plan.again.map_or(wait, |known| known.min(wait))),
            },
            "Succeeded" => {
                let message = format!("Found succeeded {}, will try to delete it", which());
                plan.said.push((false, "SucceededDaemonPod", message));
                plan.delete.push(pod.clone());
            }
            _ => running.push(pod),
        }
    }
    if surge(view, 1) == 0 {
        return plan.delete.extend(running.into_iter().skip(1).cloned());
    }
    if running.is_empty() && suits == Suits::Yes {
        return plan.create.push(name.to_owned());
    }
    // With a surge two pods are right: an old one that is ready and a new one that is not yet.
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        running.into_iter().partition(|pod| is_updated(view.set, pod, view.hash));
    plan.delete.extend(
        new.iter().chain(&old).filter(|pod| !is_first(pod, &new) && !is_first(pod, &old)).map(|pod| (*pod).clone()),
    );
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!pods::is_ready(old) || view.is_available(new))
    {
        plan.delete.push((*old).clone());
    }
}

fn is_first(pod: &Arc<Pod>, pods: &[&Arc<Pod>]) -> bool {
    pods.first().is_some_and(|first| Arc::ptr_eq(first, pod))
}

impl View<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        self.available_in(pod).is_some_and(|wait| wait.is_zero())
    }

    /// How long until a ready pod counts as available.
    fn available_in(&self, pod: &Pod) -> Option<Duration> {
        pods::available_in(pod, self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0), self.now)
    }

    fn suits(&self, node: &str) -> Suits {
        let node = self.nodes.iter().find(|one| one.metadata.name.as_deref() == Some(node));
        node.map_or(Suits::No, |node| suits(self.set, node))
    }

    fn pair(&self, pods: &[Arc<Pod>]) -> Option<Pair> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|pod| !pods::is_deleted(pod)) {
            let place = if is_updated(self.set, pod, self.hash) { &mut new } else { &mut old };
            if place.replace(pod.clone()).is_some() {
                return None;
            }
        }
        Some((new, old))
    }
}

/// The new and the old pod on a node; with more than one of either there is none.
type Pair = (Option<Arc<Pod>>, Option<Arc<Pod>>);

fn limit(view: &View<'_>, total: usize, of: impl Fn(&DaemonSet) -> Option<&IntOrString>) -> usize {
    let total = i64::try_from(total).unwrap_or(i64::MAX);
    let scaled = of(view.set).and_then(|value| int_or_string::scaled_of(value, total, true).ok());
    scaled.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

fn surge(view: &View<'_>, total: usize) -> usize {
    limit(view, total, |set| set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()?.max_surge.as_ref())
}

fn unavailable(view: &View<'_>, total: usize) -> usize {
    limit(view, total, |set| {
        set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()?.max_unavailable.as_ref()
    })
}

/// The next step of a rolling update.
fn roll(view: &View<'_>, plan: &mut Plan) {
    let wanted: Vec<&str> = view
        .nodes
        .iter()
        .filter(|node| suits(view.set, node) == Suits::Yes)
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    let mut pods: BTreeMap<&str, &[Arc<Pod>]> = wanted.iter().map(|node| (*node, &[][..])).collect();
    pods.extend(view.pods.iter().map(|(node, pods)| (node.as_str(), pods.as_slice())));
    match surge(view, wanted.len()) {
        0 => roll_in_place(view, &pods, unavailable(view, wanted.len()).max(usize::from(!wanted.is_empty())), plan),
        surge => roll_beside(view, &pods, surge, wanted.len(), plan),
    }
}

/// Old pods go, as many as may be missing; those that are not available go at once, as nothing is lost with them.
fn roll_in_place(view: &View<'_>, pods: &BTreeMap<&str, &[Arc<Pod>]>, may_miss: usize, plan: &mut Plan) {
    let (mut missing, mut candidates) = (0, Vec::new());
    for pods in pods.values() {
        match view.pair(pods) {
            Some((None, Some(old))) if view.is_available(&old) => candidates.push(old),
            Some((None, Some(old))) => {
                missing += 1;
                plan.delete.push(old);
            }
            Some((Some(new), None)) if view.is_available(&new) => {}
            _ => missing += 1,
        }
    }
    plan.delete.extend(candidates.into_iter().take(may_miss.saturating_sub(missing)));
}

/// New pods come beside the old ones, as many as there may be more; old ones go when the new one is available.
fn roll_beside(view: &View<'_>, pods: &BTreeMap<&str, &[Arc<Pod>]>, may_surge: usize, wanted: usize, plan: &mut Plan) {
    let (mut surging, mut available) = (0, 0);
    let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
    for (node, pods) in pods {
        let Some((new, old)) = view.pair(pods) else {
            surging += 1;
            continue;
        };
        let oldest = old.as_ref().or(new.as_ref());
        available += usize::from(oldest.is_some_and(|pod| view.is_available(pod)));
        match (new, old) {
            (_, None) => {}
            (Some(new), Some(_)) if !view.is_available(&new) => surging += 1,
            (Some(_), Some(old)) => plan.delete.push(old),
            (None, Some(old)) => match (view.is_available(&old), view.suits(node)) {
                (false, Suits::Yes) => plan.create.push((*node).to_owned()),
                (true, Suits::Yes) => candidates.push((*node).to_owned()),
                (false, _) => plan.delete.push(old),
                (true, _) => misplaced.push(old),
            },
        }
    }
    plan.delete.extend(misplaced.into_iter().take(available.saturating_sub(wanted)));
    plan.create.extend(candidates.into_iter().take(may_surge.saturating_sub(surging)));
}

/// The status, and when it will change by time alone. `observed` is whether everything that was decided is done.
pub fn status(view: &View<'_>, observed: bool) -> (DaemonSetStatus, Option<Duration>) {
    let before = view.set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misplaced, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0, 0);
    let mut again: Option<Duration> = None;
    for node in view.nodes {
        let pods = node.metadata.name.as_ref().and_then(|name| view.pods.get(name));
        let first = pods.and_then(|pods| pods.first());
        if suits(view.set, node) != Suits::Yes {
            misplaced += i32::from(first.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = first else { continue };
        current += 1;
        updated += i32::from(is_updated(view.set, pod, view.hash));
        if let Some(wait) = view.available_in(pod) {
            ready += 1;
            available += i32::from(wait.is_zero());
            again = again.into_iter().chain((!wait.is_zero()).then_some(wait)).min();
        }
    }
    let some = |number: i32| (number != 0).then_some(number);
    let status = DaemonSetStatus {
        collision_count: before.collision_count,
        conditions: before.conditions,
        observed_generation: if observed { view.set.metadata.generation } else { before.observed_generation },
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misplaced,
        number_ready: ready,
        updated_number_scheduled: some(updated),
        number_available: some(available),
        number_unavailable: some(desired - available),
    };
    (status, again)
}

#[cfg(test)]
mod tests;
