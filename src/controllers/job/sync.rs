//! One look at a Job: what to do with its pods, and what its status comes to. Pure.
//!
//! A [`Sync`] is taken through its steps by whoever does the writes:
//!
//! 1. [`Sync::decide`] says which pods to make or to delete; [`Sync::acted`] hears how far that came.
//! 2. [`Sync::track`] notes finished pods in `status.uncountedTerminatedPods` and says which of them lose the tracking
//!    finalizer. The status is written before they lose it, so that a pod is counted once whatever happens in between.
//! 3. [`Sync::untracked`] hears which lost it and moves them to the counters; [`Sync::finish`] adds `Complete` or `Failed`
//!    when nothing is left to count. The status is written again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::backoff::{self, Backoff};
use super::indexes::Indexes;
use super::job_pods::{self, all_index_failures, index_of, is_indexed};
use super::policy::{self, Verdict};
use crate::shared::pod_control::BURST_PODS_MAX;
use crate::shared::pods;

mod conditions;
mod count;
mod track;

use conditions::non_zero;

pub use conditions::is_finished;

/// What is there.
pub struct Observed {
    pub job: Job,
    /// The pods that the Job controls.
    pub pods: Vec<Arc<Pod>>,
    /// Uids of pods that have lost the tracking finalizer, though they look as if they had it.
    pub untracked: HashSet<String>,
    /// Whether all pods that were made and deleted are seen.
    pub caught_up: bool,
    pub backoff: Backoff,
    pub now: Timestamp,
}

/// What to do with the pods.
#[derive(Debug, PartialEq)]
pub enum Action {
    Nothing,
    Create(Vec<Pod>),
    /// They are not needed, and are not counted: they lose the finalizer first.
    Remove(Vec<Arc<Pod>>),
    /// The Job is over: they are deleted, and counted when they have ended.
    Stop(Vec<Arc<Pod>>),
}

/// How far an action came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Pods that were made or deleted.
    pub pods: usize,
    /// Of the deleted ones, those that were ready.
    pub ready: usize,
}

/// An Event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

pub struct Sync {
    /// The Job, with the status as it should be.
    pub job: Job,
    /// Whether the status is another than was written.
    pub dirty: bool,
    /// The failures in a row, with the pods that have finished now; they hold once the status is written.
    pub backoff: Backoff,
    /// When to look again if nothing happens.
    pub again: Option<Duration>,
    pub said: Vec<Said>,
    pods: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    untracked: HashSet<String>,
    caught_up: bool,
    now: Timestamp,
    counts: Counts,
    /// As the status had it.
    succeeded_before: Indexes,
    succeeded: Indexes,
    failed: Option<Indexes>,
    /// Failed pods, by index, that stay until they are replaced, as their failures are counted on in the next one.
    delayed: HashMap<i32, Arc<Pod>>,
    finished: Option<JobCondition>,
    /// Whether pods are left that the status had no room for.
    crowded: bool,
    doing: Doing,
}

struct Counts {
    active: usize,
    ready: usize,
    terminating: usize,
    succeeded: i32,
    failed: i32,
}

#[derive(Clone, Copy, PartialEq)]
enum Doing {
    Nothing,
    Managing { grows: bool },
    Stopping { active: usize },
}

impl Sync {
    pub fn new(observed: Observed) -> Sync {
        let Observed { mut job, pods, untracked, caught_up, backoff, now } = observed;
        job.status.get_or_insert_default().uncounted_terminated_pods.get_or_insert_default();
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let counts = Counts {
            active: active.len(),
            ready: active.iter().filter(|pod| pods::is_ready(pod)).count(),
            terminating: pods.iter().filter(|pod| pods::is_terminating(pod)).count(),
            succeeded: 0,
            failed: 0,
        };
        let mut sync = Sync {
            job,
            dirty: false,
            backoff,
            again: None,
            said: Vec::new(),
            pods,
            active,
            untracked,
            caught_up,
            now,
            counts,
            succeeded_before: Indexes::default(),
            succeeded: Indexes::default(),
            failed: None,
            delayed: HashMap::new(),
            finished: None,
            crowded: false,
            doing: Doing::Nothing,
        };
        sync.count();
        sync
    }

    fn spec(&self) -> &JobSpec {
        static NONE: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
        self.job.spec.as_ref().unwrap_or(&NONE)
    }

    fn status(&mut self) -> &mut JobStatus {
        self.job.status.get_or_insert_default()
    }

    fn completions(&self) -> i32 {
        self.spec().completions.unwrap_or(1)
    }

    fn suspended(&self) -> bool {
        self.spec().suspend == Some(true)
    }

    /// Whether a pod that is being deleted is replaced only when it has ended.
    fn replaces_failed_only(&self) -> bool {
        self.spec().pod_replacement_policy.as_deref() == Some("Failed") || self.spec().pod_failure_policy.is_some()
    }

    /// A pod that is being deleted counts as failed, as it may never have the chance to say so.
    fn has_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_deleted(pod) && !self.replaces_failed_only(),
        }
    }

    /// What to do with the pods.
    pub fn decide(&mut self) -> Action {
        if self.job.status.as_ref().is_none_or(|status| status.start_time.is_none()) && !self.suspended() {
            let now = self.now;
            self.status().start_time = Some(Time(now));
        }
        self.finished = self.ending();
        if self.finished.is_some() {
            self.doing = Doing::Stopping { active: self.active.len() };
            return if self.active.is_empty() { Action::Nothing } else { Action::Stop(self.active.clone()) };
        }
        if !self.caught_up || self.job.metadata.deletion_timestamp.is_some() {
            return Action::Nothing;
        }
        let action = self.manage();
        self.doing = Doing::Managing { grows: matches!(action, Action::Create(_)) };
        action
    }

    /// Why the Job is over, if it is: what an earlier look decided stands, and failing goes before succeeding.
    fn ending(&mut self) -> Option<JobCondition> {
        if let Some(met) = self.condition("SuccessCriteriaMet") {
            return Some(met.clone());
        }
        if let Some(target) = self.condition("FailureTarget") {
            return Some(self.failed_for(target));
        }
        let fails_job = self.pods.iter().filter(|pod| self.has_failed(pod)).find_map(|pod| match self.verdict(pod) {
            Verdict::FailsJob(message) => Some(message),
            _ => None,
        });
        if let Some(message) = fails_job {
            return Some(self.new_condition("FailureTarget", "PodFailurePolicy", &message));
        }
        let failure = |reason, message| Some(self.new_condition("FailureTarget", reason, message));
        if self.counts.failed > self.spec().backoff_limit.unwrap_or(6) || self.restarts_too_often() {
            return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if let Some(left) = self.until_deadline() {
            if left.is_zero() {
                return failure("DeadlineExceeded", "Job was active longer than specified deadline");
            }
            self.again = Some(left);
        }
        if !is_indexed(&self.job) {
            return None;
        }
        let failure = |reason, message| Some(self.new_condition("FailureTarget", reason, message));
        if let Some(failed) = self.failed.as_ref().map(Indexes::len) {
            if self.spec().max_failed_indexes.is_some_and(|most| failed > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return failure("MaxFailedIndexesExceeded", message);
            }
            if failed > 0 && failed.saturating_add(self.succeeded.len()) >= self.completions() {
                return failure("FailedIndexes", "Job has failed indexes");
            }
        }
        let message = policy::success(self.spec().success_policy.as_ref(), self.completions(), &self.succeeded)?;
        Some(self.new_condition("SuccessCriteriaMet", "SuccessPolicy", &message))
    }

    /// With `restartPolicy: OnFailure` restarts are what counts.
    fn restarts_too_often(&self) -> bool {
        let spec = self.spec();
        let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let restarts: i64 = running.map(|pod| i64::from(pods::restarts(pod) + pods::init_restarts(pod))).sum();
        restarts >= i64::from(spec.backoff_limit.unwrap_or(6).max(1))
    }

    fn until_deadline(&self) -> Option<Duration> {
        let started = self.job.status.as_ref()?.start_time.as_ref()?.0;
        let allowed_s = self.spec().active_deadline_seconds.filter(|_| !self.suspended())?;
        let elapsed = Duration::try_from(self.now.duration_since(started)).unwrap_or_default();
        Some(Duration::from_secs(u64::try_from(allowed_s).unwrap_or(0)).saturating_sub(elapsed))
    }

    /// As many pods as there should be.
    fn manage(&mut self) -> Action {
        if self.suspended() {
            return self.remove(self.active.len());
        }
        let active = self.active.len();
        let size = |number: i32| usize::try_from(number).unwrap_or(0);
        let parallelism = size(self.spec().parallelism.unwrap_or(1));
        let wanted = match self.spec().completions {
            // A work queue: once a pod has succeeded, no other begins.
            None if self.counts.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => size(completions - self.counts.succeeded).min(parallelism),
        };
        let removal = self.remove(active.saturating_sub(wanted));
        if removal != Action::Nothing {
            return removal;
        }
        let going = if self.replaces_failed_only() { self.counts.terminating } else { 0 };
        let missing = wanted.saturating_sub(going + active).min(BURST_PODS_MAX);
        if missing == 0 { Action::Nothing } else { self.create(missing) }
    }

    fn create(&mut self, missing: usize) -> Action {
        let per_index = self.spec().backoff_limit_per_index.is_some();
        if !per_index {
            let wait = self.backoff.remaining(self.now);
            if !wait.is_zero() {
                self.look_again(wait);
                return Action::Nothing;
            }
        }
        if !is_indexed(&self.job) {
            let pods: Vec<Pod> = job_pods::plain(&self.job).into_iter().cycle().take(missing).collect();
            return Action::Create(pods);
        }
        let mut taken = self.succeeded.union(&Indexes::of(self.active.iter().filter_map(|pod| index_of(pod))));
        if self.replaces_failed_only() {
            let going = self.pods.iter().filter(|pod| pods::is_terminating(pod));
            taken = taken.union(&Indexes::of(going.filter_map(|pod| index_of(pod))));
        }
        if let Some(failed) = &self.failed {
            taken = taken.union(failed);
        }
        let mut indexes = taken.first_missing(missing, self.completions());
        if per_index {
            let wait = |index: &i32| {
                self.delayed.get(index).map_or(Duration::ZERO, |last| {
                    backoff::remaining_of_index(all_index_failures(last), last, self.now)
                })
            };
            let shortest = indexes.iter().map(wait).filter(|wait| !wait.is_zero()).min();
            indexes.retain(|index| wait(index).is_zero());
            if let Some(shortest) = shortest {
                self.look_again(shortest);
            }
        }
        let new = |index: &i32| job_pods::indexed(&self.job, *index, self.delayed.get(index).map(|pod| &**pod));
        let pods: Vec<Pod> = indexes.iter().filter_map(new).collect();
        if pods.is_empty() { Action::Nothing } else { Action::Create(pods) }
    }

    /// At least `count` pods, the least useful; before them those without an index of their own.
    fn remove(&self, count: usize) -> Action {
        let mut left = self.active.clone();
        left.sort_by_cached_key(|pod| pods::usefulness(pod));
        let mut going = Vec::new();
        if is_indexed(&self.job) {
            let mut seen = HashSet::new();
            let mut stays: Vec<Arc<Pod>> = Vec::new();
            // From the most useful down: of one index the best stays.
            for pod in left.into_iter().rev() {
                let own = self.valid_index(&pod).is_some_and(|index| seen.insert(index));
                if own { stays.push(pod) } else { going.push(pod) }
            }
            stays.reverse();
            left = stays;
        }
        let more = count.saturating_sub(going.len());
        going.extend(left.into_iter().take(more));
        going.truncate(BURST_PODS_MAX);
        if going.is_empty() { Action::Nothing } else { Action::Remove(going) }
    }

    fn look_again(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |known| known.min(wait)));
    }

    /// How far the action came, and what that means for the status.
    pub fn acted(&mut self, outcome: Outcome) {
        match self.doing {
            Doing::Managing { grows: true } => self.counts.active += outcome.pods,
            _ => {
                self.counts.active = self.counts.active.saturating_sub(outcome.pods);
                self.counts.ready = self.counts.ready.saturating_sub(outcome.ready);
                self.counts.terminating += outcome.pods;
            }
        }
        if let Doing::Stopping { active } = self.doing {
            if outcome.pods != active || !self.caught_up {
                // There may be pods that are not seen yet.
                self.finished = None;
            }
        } else if self.is_complete() {
            let message = "Reached expected number of succeeded pods";
            self.finished = Some(self.new_condition("SuccessCriteriaMet", "CompletionsReached", message));
        } else if self.doing != Doing::Nothing {
            self.note_suspension();
        }
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let counts =
            (number(self.counts.active), Some(number(self.counts.ready)), Some(number(self.counts.terminating)));
        let status = self.status();
        let changed = (status.active.unwrap_or(0), status.ready, status.terminating) != counts;
        (status.active, status.ready, status.terminating) = (non_zero(counts.0), counts.1, counts.2);
        self.dirty |= changed;
    }

    fn is_complete(&self) -> bool {
        let enough = match self.spec().completions {
            None => self.counts.succeeded > 0,
            Some(completions) => self.counts.succeeded >= completions,
        };
        enough && self.counts.active == 0
    }

    fn note_suspension(&mut self) {
        let (suspended, now) = (self.suspended(), self.now);
        let (status, reason, message, event) = if suspended {
            ("True", "JobSuspended", "Job suspended", "Suspended")
        } else {
            ("False", "JobResumed", "Job resumed", "Resumed")
        };
        if self.set_condition("Suspended", status, reason, message) {
            self.dirty = true;
            // The deadline is of the time that a Job is active in one go.
            self.status().start_time = (!suspended).then_some(Time(now));
            self.say(false, event, message);
        }
    }

    fn say(&mut self, warning: bool, reason: &str, message: &str) {
        self.said.push(Said { warning, reason: reason.to_owned(), message: message.to_owned() });
    }
}

#[cfg(test)]
mod tests;
