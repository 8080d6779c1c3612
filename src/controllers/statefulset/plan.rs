//! The next steps of a StatefulSet, and what its status says. Pure.
//!
//! With `OrderedReady` one step is taken at a time, and none while the pod before it is not available. With `Parallel`
//! only updates wait.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;

use super::claims::{Owners, claims_at, is_stale, owners};
use super::identity::{is_right, ordinal, ordinals, pod_at, replicas, revision, template_of};
use crate::shared::owned::controller_reference;
use crate::shared::pods;

/// A StatefulSet, its pods and their claims.
pub struct View<'a> {
    pub set: &'a StatefulSet,
    /// What most pods are of until an update is complete.
    pub current: &'a ControllerRevision,
    /// What pods are to become.
    pub update: &'a ControllerRevision,
    pub pods: &'a [Arc<Pod>],
    /// The claims of the namespace that the set's pods have, by name.
    pub claims: &'a HashMap<String, Arc<PersistentVolumeClaim>>,
    pub collisions: i32,
    pub now: Timestamp,
}

/// One thing to do. Its claims are seen to with the pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Makes a pod, its claims before it.
    Create(Box<Pod>, i32),
    /// Makes claims that a pod waits for, and sees to their owners.
    Claims(Arc<Pod>, i32),
    /// Gives a pod the labels of its ordinal, and sees to its claims.
    PutRight(Arc<Pod>, i32),
    Delete(Arc<Pod>),
}

impl View<'_> {
    fn parallel(&self) -> bool {
        self.set.spec.as_ref().and_then(|spec| spec.pod_management_policy.as_deref()) == Some("Parallel")
    }

    fn available_in(&self, pod: &Pod) -> Option<Duration> {
        pods::available_in(pod, self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0), self.now)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.available_in(pod).is_some_and(|wait| wait.is_zero())
    }

    fn is_in_use(&self, pod: &Pod) -> bool {
        self.is_available(pod) && !pods::is_deleted(pod)
    }

    fn partition(&self) -> Option<i32> {
        let strategy = self.set.spec.as_ref()?.update_strategy.as_ref()?;
        Some(strategy.rolling_update.as_ref()?.partition.unwrap_or(0))
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }

    /// The pods that should be there, each with its ordinal and `None` where it is not; and those that should not, the
    /// highest ordinal first.
    #[expect(clippy::type_complexity, reason = "two lists of the same")]
    fn sorted(&self) -> (Vec<(i32, Option<&Arc<Pod>>)>, Vec<(i32, &Arc<Pod>)>) {
        let wanted = ordinals(self.set);
        let mut known: HashMap<i32, &Arc<Pod>> = HashMap::new();
        let mut condemned = Vec::new();
        for pod in self.pods {
            match ordinal(self.set, pod) {
                Some(ordinal) if wanted.contains(&ordinal) => drop(known.insert(ordinal, pod)),
                Some(ordinal) => condemned.push((ordinal, pod)),
                None => {}
            }
        }
        condemned.sort_by_key(|(ordinal, _)| Reverse(*ordinal));
        (wanted.map(|ordinal| (ordinal, known.get(&ordinal).copied())).collect(), condemned)
    }

    /// A pod for an ordinal that has none: below the partition it is as it was.
    fn new_pod(&self, ordinal: i32) -> Option<Pod> {
        let start = ordinals(self.set).start;
        let current_replicas = self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
        let stays = match self.partition() {
            Some(partition) => partition,
            None if self.is_on_delete() => 0,
            None => current_replicas,
        };
        let revision = if ordinal < start.saturating_add(stays) { self.current } else { self.update };
        Some(pod_at(self.set, &template_of(revision)?, revision.metadata.name.as_deref()?, ordinal))
    }

    /// Whether a pod that is not there yet has to wait until what it would claim is gone.
    fn waits_for_claims(&self, pod: &Pod, ordinal: i32) -> bool {
        let policy = self.set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
        let scaled = policy.and_then(|policy| policy.when_scaled.as_deref());
        // Whichever pod owned the claim, it is not this one.
        scaled == Some("Delete") && self.known_claims(ordinal).any(|claim| is_stale(claim, &controller_reference(pod)))
    }

    fn known_claims(&self, ordinal: i32) -> impl Iterator<Item = &Arc<PersistentVolumeClaim>> {
        let names = claims_at(self.set, ordinal).into_iter().filter_map(|claim| claim.metadata.name);
        names.filter_map(|name| self.claims.get(&name))
    }

    fn owners_are_right(&self, pod: &Pod, ordinal: i32, condemned: bool) -> bool {
        self.known_claims(ordinal).all(|claim| owners(claim, self.set, pod, condemned) == Owners::AreRight)
    }

    fn has_all_claims(&self, ordinal: i32) -> bool {
        self.known_claims(ordinal).count() == claims_at(self.set, ordinal).len()
    }
}

/// What to do now, in this order.
pub fn plan(view: &View<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if view.set.metadata.deletion_timestamp.is_some() {
        return steps;
    }
    let (wanted, condemned) = view.sorted();
    for (ordinal, pod) in &wanted {
        let goes_on = replica(view, *ordinal, *pod, &mut steps);
        if !goes_on && !view.parallel() {
            return steps;
        }
    }
    for (ordinal, pod) in &condemned {
        if !view.owners_are_right(pod, *ordinal, true) {
            steps.push(Step::Claims((*pod).clone(), *ordinal));
        }
    }
    let first_unused = first_unused(view, &wanted, &condemned);
    for (_, pod) in &condemned {
        let goes_on = shrink(view, pod, first_unused, &mut steps);
        if !goes_on && !view.parallel() {
            return steps;
        }
    }
    if !view.is_on_delete() {
        steps.extend(next_to_update(view, &wanted));
    }
    steps
}

/// The pod with the lowest ordinal that is not in use, of those that stay or else of those that go.
fn first_unused<'a>(
    view: &View<'_>,
    wanted: &[(i32, Option<&'a Arc<Pod>>)],
    condemned: &[(i32, &'a Arc<Pod>)],
) -> Option<&'a Arc<Pod>> {
    let staying = wanted.iter().map(|(_, pod)| *pod);
    let going = condemned.iter().rev().map(|(_, pod)| Some(*pod));
    staying.chain(going).find(|pod| pod.is_none_or(|pod| !view.is_in_use(pod))).flatten()
}

/// Sees to one pod that should be there; true if the next one may be seen to.
fn replica(view: &View<'_>, ordinal: i32, pod: Option<&Arc<Pod>>, steps: &mut Vec<Step>) -> bool {
    let Some(pod) = pod else {
        if let Some(new) = view.new_pod(ordinal)
            && !view.waits_for_claims(&new, ordinal)
        {
            steps.push(Step::Create(Box::new(new), ordinal));
        }
        return false;
    };
    if pods::is_finished(pod) {
        steps.extend((!pods::is_deleted(pod)).then(|| Step::Delete(pod.clone())));
        return false;
    }
    let claims = view.has_all_claims(ordinal) && view.owners_are_right(pod, ordinal, false);
    if pods::phase(pod) == "Pending" && !claims {
        steps.push(Step::Claims(pod.clone(), ordinal));
    }
    let serves = pods::phase(pod) == "Running" && view.is_in_use(pod);
    if !serves && !view.parallel() {
        return false;
    }
    if !is_right(view.set, pod, ordinal) || !view.owners_are_right(pod, ordinal, false) {
        steps.push(Step::PutRight(pod.clone(), ordinal));
    }
    true
}

/// Takes one pod away that should not be there; true if the next one may be seen to.
fn shrink(view: &View<'_>, pod: &Arc<Pod>, first_unused: Option<&Arc<Pod>>, steps: &mut Vec<Step>) -> bool {
    if pods::is_deleted(pod) {
        return false;
    }
    // One that is not well is waited for, unless it is itself what everybody waits for.
    let waited_for = first_unused.is_some_and(|first| Arc::ptr_eq(first, pod));
    let well = pods::phase(pod) == "Running" && view.is_available(pod);
    if view.parallel() || well || waited_for {
        steps.push(Step::Delete(pod.clone()));
    }
    false
}

/// The pod with the highest ordinal that is not of the update, if all above it are in use.
fn next_to_update(view: &View<'_>, wanted: &[(i32, Option<&Arc<Pod>>)]) -> Option<Step> {
    let partition = usize::try_from(view.partition().unwrap_or(0)).unwrap_or(usize::MAX);
    let update = view.update.metadata.name.as_deref();
    for (_, pod) in wanted.iter().skip(partition).rev() {
        let pod = (*pod)?;
        if revision(pod) != update && !pods::is_deleted(pod) {
            return Some(Step::Delete(pod.clone()));
        }
        if !view.is_in_use(pod) {
            return None;
        }
    }
    None
}

/// The status once these steps are taken, and when it will change by time alone.
pub fn status(view: &View<'_>, steps: &[Step]) -> (StatefulSetStatus, Option<Duration>) {
    let before = view.set.status.clone().unwrap_or_default();
    let name = |revision: &ControllerRevision| revision.metadata.name.clone();
    let (mut all, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
    let mut again: Option<Duration> = None;
    for pod in view.pods.iter().filter(|pod| ordinal(view.set, pod).is_some()) {
        all += 1;
        if pods::phase(pod) == "Running" && pods::is_ready(pod) {
            ready += 1;
            let wait = view.available_in(pod).unwrap_or_default();
            available += i32::from(wait.is_zero());
            again = again.into_iter().chain((!wait.is_zero()).then_some(wait)).min();
        }
        let goes = steps.iter().any(|step| matches!(step, Step::Delete(gone) if Arc::ptr_eq(gone, pod)));
        if !pods::is_deleted(pod) && !goes {
            let of =
                |one: &ControllerRevision| revision(pod).is_some() && revision(pod) == one.metadata.name.as_deref();
            current += i32::from(of(view.current));
            updated += i32::from(of(view.update));
        }
    }
    let wanted = replicas(view.set);
    let complete = !view.is_on_delete() && (updated, ready, all) == (wanted, wanted, wanted);
    let some = |number: i32| (number != 0).then_some(number);
    let status = StatefulSetStatus {
        observed_generation: view.set.metadata.generation,
        replicas: all,
        ready_replicas: some(ready),
        available_replicas: Some(available),
        current_replicas: some(if complete { updated } else { current }),
        updated_replicas: some(updated),
        current_revision: name(if complete { view.update } else { view.current }),
        update_revision: name(view.update),
        collision_count: Some(view.collisions),
        conditions: before.conditions,
    };
    (status, again)
}

#[cfg(test)]
mod tests;
