//! Counting each finished pod once: the tracking finalizer and `status.uncountedTerminatedPods` (KEP-2307), and the Job's
//! end, which comes when everything is counted.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::UncountedTerminatedPods;
use k8s_openapi::api::core::v1::Pod;

use super::Sync;
use super::conditions::non_zero;
use crate::job::indexes::Indexes;
use crate::job::job_pods::{index_of, is_indexed};
use crate::job::policy::Verdict;
use crate::shared::owned::uid;
use crate::shared::pods;

/// Pods in `status.uncountedTerminatedPods`; they keep it below some 20 KB.
const UNCOUNTED_PODS_MAX: usize = 500;

impl Sync {
    /// Notes the finished pods; yields those that may lose the tracking finalizer once the status is written.
    pub fn track(&mut self) -> Vec<Arc<Pod>> {
        let tracked: HashSet<String> =
            self.pods.iter().filter(|pod| self.is_tracked(pod)).map(|pod| uid(&pod.metadata).to_owned()).collect();
        self.count_untracked(|pod| tracked.contains(pod));
        let indexed = is_indexed(&self.job);
        if indexed {
            self.pods.sort_by_key(|pod| index_of(pod).unwrap_or(-1));
        }
        let (mut succeeded, mut failed) = {
            let uncounted = self.uncounted();
            (uncounted.succeeded.take().unwrap_or_default(), uncounted.failed.take().unwrap_or_default())
        };
        let known = succeeded.len() + failed.len();
        let over = self.finished.as_ref().is_some_and(|finished| finished.type_ != "SuccessCriteriaMet");
        let (mut new_indexes, mut going) = (Vec::new(), Vec::new());
        for pod in &self.pods {
            let has_failed = self.has_failed(pod);
            if !self.is_tracked(pod) || !self.may_go(pod, has_failed) {
                continue;
            }
            going.push(pod.clone());
            let (pod_uid, index) = (uid(&pod.metadata), self.valid_index(pod));
            let is_in = |list: &[String]| list.iter().any(|one| one == pod_uid);
            if pods::phase(pod) == "Succeeded" && !is_in(&failed) {
                if indexed {
                    new_indexes.extend(index.filter(|index| !self.succeeded_before.contains(*index)));
                } else if !is_in(&succeeded) {
                    succeeded.push(pod_uid.to_owned());
                }
            } else if (has_failed || over)
                && !is_in(&failed)
                && (!indexed || index.is_some())
                && self.verdict(pod) != Verdict::Ignored
            {
                failed.push(pod_uid.to_owned());
            }
            if new_indexes.len() + succeeded.len() + failed.len() >= UNCOUNTED_PODS_MAX {
                // The rest when these are counted; the Job comes again by its own change.
                self.crowded = true;
                break;
            }
        }
        self.dirty |= !new_indexes.is_empty() || succeeded.len() + failed.len() != known;
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let uncounted = self.uncounted();
        (uncounted.succeeded, uncounted.failed) = (some(succeeded), some(failed));
        if indexed {
            self.note_indexes(new_indexes);
        }
        self.note_ending();
        going
    }

    /// Whether a pod needs the finalizer no more.
    fn may_go(&self, pod: &Pod, has_failed: bool) -> bool {
        if self.job.metadata.deletion_timestamp.is_some() || self.finished.is_some() || pods::phase(pod) == "Succeeded"
        {
            return true;
        }
        let waits = || index_of(pod).and_then(|index| self.delayed.get(&index));
        has_failed && waits().is_none_or(|waiting| waiting.metadata.uid != pod.metadata.uid)
    }

    fn note_indexes(&mut self, new: Vec<i32>) {
        let succeeded = self.succeeded.union(&Indexes::of(new));
        let text = succeeded.to_string();
        let failed = self.failed.as_ref().map(ToString::to_string);
        let completed = (!text.is_empty()).then_some(text);
        let status = self.status();
        let changed = status.completed_indexes.as_ref().filter(|text| !text.is_empty()) != completed.as_ref()
            || status.failed_indexes != failed;
        status.succeeded = non_zero(succeeded.len());
        status.completed_indexes = completed;
        status.failed_indexes = failed;
        self.succeeded = succeeded;
        self.dirty |= changed;
    }

    /// Says that the Job will end, and remembers how it will have ended.
    fn note_ending(&mut self) {
        let Some(finished) = self.finished.take() else { return };
        let (noted, end) = match finished.type_.as_str() {
            "FailureTarget" => (true, self.failed_for(&finished)),
            "SuccessCriteriaMet" => {
                let (reason, message) = (finished.reason.as_deref(), finished.message.as_deref());
                let end = self.new_condition("Complete", reason.unwrap_or_default(), message.unwrap_or_default());
                (self.condition("SuccessCriteriaMet").is_none(), end)
            }
            _ => (false, finished.clone()),
        };
        if noted {
            self.status().conditions.get_or_insert_default().push(finished);
            self.dirty = true;
        }
        self.finished = Some(end);
    }

    /// These pods have lost the finalizer: they are counted.
    pub fn untracked(&mut self, gone: &HashSet<String>) {
        self.untracked.extend(gone.iter().cloned());
        let tracked: HashSet<String> =
            self.pods.iter().filter(|pod| self.is_tracked(pod)).map(|pod| uid(&pod.metadata).to_owned()).collect();
        self.count_untracked(|pod| tracked.contains(pod));
    }

    /// Moves pods that are not tracked any more from the lists to the counters.
    fn count_untracked(&mut self, is_tracked: impl Fn(&str) -> bool) {
        let count = |list: &mut Option<Vec<String>>| {
            let before = list.as_ref().map_or(0, Vec::len);
            if let Some(list) = list {
                list.retain(|pod| is_tracked(pod));
            }
            *list = list.take().filter(|list| !list.is_empty());
            i32::try_from(before - list.as_ref().map_or(0, Vec::len)).unwrap_or(i32::MAX)
        };
        let uncounted = self.job.status.get_or_insert_default().uncounted_terminated_pods.get_or_insert_default();
        let (succeeded, failed) = (count(&mut uncounted.succeeded), count(&mut uncounted.failed));
        if succeeded + failed > 0 {
            let status = self.status();
            status.succeeded = non_zero(status.succeeded.unwrap_or(0).saturating_add(succeeded));
            status.failed = non_zero(status.failed.unwrap_or(0).saturating_add(failed));
            self.dirty = true;
        }
    }

    /// Adds the last condition, if nothing is left to be counted and no pod still ends.
    pub fn finish(&mut self) {
        let Some(end) = self.finished.clone() else { return };
        let uncounted = self.uncounted();
        let counted = uncounted.succeeded.is_none() && uncounted.failed.is_none();
        if !counted || self.crowded || self.counts.terminating > 0 {
            return;
        }
        let (reason, message) = (end.reason.unwrap_or_default(), end.message.unwrap_or_default());
        self.set_condition(&end.type_, "True", &reason, &message);
        self.dirty = true;
        self.again = None;
        if end.type_ != "Complete" {
            return self.say(true, &reason, &message);
        }
        self.status().completion_time = end.last_transition_time;
        let succeeded = self.status().succeeded.unwrap_or(0);
        if self.spec().completions.is_some_and(|completions| succeeded > completions) {
            self.say(true, "TooManySucceededPods", "Too many succeeded pods running after completion count reached");
        }
        self.say(false, "Completed", "Job completed");
    }

    fn uncounted(&mut self) -> &mut UncountedTerminatedPods {
        self.status().uncounted_terminated_pods.get_or_insert_default()
    }
}
