//! What has succeeded and failed so far.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Sync;
use crate::job::backoff::finished_at;
use crate::job::indexes::Indexes;
use crate::job::job_pods::{TRACKING_FINALIZER, all_index_failures, index_failures, index_of, is_indexed};
use crate::job::policy::{self, Verdict};
use crate::shared::owned::uid;
use crate::shared::pods;

impl Sync {
    pub(super) fn is_tracked(&self, pod: &Pod) -> bool {
        pods::has_finalizer(pod, TRACKING_FINALIZER) && !self.untracked.contains(uid(&pod.metadata))
    }

    /// The pod's index, if it is one of the Job's.
    pub(super) fn valid_index(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| *index < self.completions())
    }

    pub(super) fn verdict(&self, pod: &Pod) -> Verdict {
        policy::verdict(self.spec().pod_failure_policy.as_ref(), pod)
    }

    /// Counts what has succeeded and failed, with pods that the status does not count yet.
    pub(super) fn count(&mut self) {
        let status = self.job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        let (known_succeeded, known_failed) =
            (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
        let indexed = is_indexed(&self.job);
        let is_new = |pod: &Pod, known: &[String]| {
            self.is_tracked(pod)
                && !known.iter().any(|one| one == uid(&pod.metadata))
                && (!indexed || self.valid_index(pod).is_some())
        };
        let (mut succeeded, mut failed, mut counted) = (Vec::new(), Vec::new(), 0);
        for pod in &self.pods {
            if pods::phase(pod) == "Succeeded" && is_new(pod, &known_succeeded) {
                succeeded.push(finished_at(pod));
            } else if self.has_failed(pod) && is_new(pod, &known_failed) {
                failed.push(finished_at(pod));
                counted += usize::from(self.verdict(pod) != Verdict::Ignored);
            }
        }
        self.backoff = self.backoff.after(&succeeded, &failed);
        let total = |before: Option<i32>, more: usize| {
            before.unwrap_or(0).saturating_add(i32::try_from(more).unwrap_or(i32::MAX))
        };
        self.counts.succeeded = total(status.succeeded, succeeded.len() + known_succeeded.len());
        self.counts.failed = total(status.failed, counted + known_failed.len());
        if indexed {
            let before = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), self.completions());
            let ended =
                |pod: &&Arc<Pod>| pods::phase(pod) == "Succeeded" && pods::has_finalizer(pod, TRACKING_FINALIZER);
            let new = Indexes::of(self.pods.iter().filter(ended).filter_map(|pod| self.valid_index(pod)));
            self.succeeded = before.union(&new);
            self.succeeded_before = before;
            self.counts.succeeded = self.succeeded.len();
            if let Some(limit) = self.spec().backoff_limit_per_index {
                let before = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), self.completions());
                let fails =
                    |pod: &&Arc<Pod>| pods::has_finalizer(pod, TRACKING_FINALIZER) && self.fails_index(pod, limit);
                let new = Indexes::of(self.pods.iter().filter(fails).filter_map(|pod| self.valid_index(pod)));
                self.failed = Some(before.union(&new));
                self.delayed = self.delayed();
            }
        }
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        self.has_failed(pod)
            && match self.verdict(pod) {
                Verdict::FailsIndex => true,
                Verdict::Ignored => false,
                Verdict::Counts | Verdict::FailsJob(_) => index_failures(pod) >= limit,
            }
    }

    fn delayed(&self) -> HashMap<i32, Arc<Pod>> {
        let active: HashSet<i32> = self.active.iter().filter_map(|pod| index_of(pod)).collect();
        let mut delayed: HashMap<i32, Arc<Pod>> = HashMap::new();
        for pod in self.pods.iter().filter(|pod| self.is_tracked(pod) && self.has_failed(pod)) {
            let Some(index) = self.valid_index(pod) else { continue };
            let over = self.succeeded.contains(index) || self.failed.as_ref().is_some_and(|all| all.contains(index));
            if over || active.contains(&index) {
                continue;
            }
            let rank = |pod: &Pod| (all_index_failures(pod), finished_at(pod));
            let known = delayed.entry(index).or_insert_with(|| pod.clone());
            if rank(pod) > rank(known) {
                *known = pod.clone();
            }
        }
        delayed
    }
}
