//! Whole lives of Jobs in a pretended cluster: pods end well or badly as told, and the controller may be cut off between
//! any two writes.

use k8s_openapi::api::batch::v1::UncountedTerminatedPods;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::job::job_pods::TRACKING_FINALIZER;

struct World {
    job: Job,
    pods: Vec<Pod>,
    backoff: Backoff,
    second: i64,
    made: usize,
    /// What the actions and Events were.
    story: Vec<String>,
    /// Pods that ended under observation.
    ended_well: usize,
    ended_badly: usize,
}

impl World {
    fn new(spec: Value) -> World {
        let mut base = json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed", "suspend": false,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
        for (key, value) in spec.as_object().unwrap() {
            base[key] = value.clone();
        }
        let job = json!({"metadata": {"name": "j", "namespace": "n", "uid": "j"}, "spec": base});
        World {
            job: serde_json::from_value(job).unwrap(),
            pods: vec![],
            backoff: Backoff::default(),
            second: 0,
            made: 0,
            story: vec![],
            ended_well: 0,
            ended_badly: 0,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    /// One reconcile that ends after `writes` writes.
    fn reconcile(&mut self, writes: usize) {
        if is_finished(&self.job) {
            return;
        }
        let mut sync = Sync::new(Observed {
            job: self.job.clone(),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            untracked: HashSet::new(),
            caught_up: true,
            backoff: self.backoff,
            now: self.now(),
        });
        let mut left = writes;
        let mut may_write = || {
            left = left.saturating_sub(1);
            left > 0
        };
        let mut outcome = Outcome::default();
        match sync.decide() {
            Action::Nothing => {}
            Action::Create(pods) => {
                for mut pod in pods {
                    if !may_write() {
                        return;
                    }
                    self.made += 1;
                    let name = format!("p{}", self.made);
                    self.story.push(format!("create {name} {:?}", index_of(&pod)));
                    (pod.metadata.uid, pod.metadata.name) = (Some(name.clone()), Some(name));
                    pod.metadata.creation_timestamp = Some(Time(self.now()));
                    self.pods.push(pod);
                    outcome.pods += 1;
                }
            }
            Action::Remove(pods) => {
                for pod in pods {
                    if !may_write() {
                        return;
                    }
                    self.story.push(format!("remove {}", pod.metadata.name.as_deref().unwrap()));
                    self.pods.retain(|one| one.metadata.name != pod.metadata.name);
                    outcome.pods += 1;
                }
            }
            Action::Stop(pods) => {
                for pod in pods {
                    if !may_write() {
                        return;
                    }
                    self.story.push(format!("stop {}", pod.metadata.name.as_deref().unwrap()));
                    let now = self.now();
                    let pod = self.pods.iter_mut().find(|one| one.metadata.name == pod.metadata.name).unwrap();
                    pod.metadata.deletion_timestamp = Some(Time(now));
                    outcome.pods += 1;
                }
            }
        }
        sync.acted(outcome);
        let going = sync.track();
        if !may_write() {
            return;
        }
        self.write(&mut sync);
        let mut gone = HashSet::new();
        for pod in going {
            if !may_write() {
                return;
            }
            let at = self.pods.iter().position(|one| one.metadata.uid == pod.metadata.uid).unwrap();
            self.pods[at].metadata.finalizers = None;
            if self.pods[at].metadata.deletion_timestamp.is_some() && pods::is_finished(&self.pods[at]) {
                self.pods.remove(at);
            }
            gone.insert(pod.metadata.uid.clone().unwrap());
        }
        sync.untracked(&gone);
        sync.finish();
        if may_write() {
            self.write(&mut sync);
        }
    }

    fn write(&mut self, sync: &mut Sync) {
        self.story.extend(sync.said.drain(..).map(|said| format!("{}: {}", said.reason, said.message)));
        if std::mem::take(&mut sync.dirty) {
            self.job = sync.job.clone();
            self.backoff = sync.backoff;
        }
    }

    fn end(&mut self, at: usize, well: bool) {
        let now = self.now();
        let Some(pod) = self.pods.iter_mut().filter(|pod| !pods::is_finished(pod)).nth(at) else { return };
        let code = i32::from(!well);
        pod.status = serde_json::from_value(json!({"phase": if well { "Succeeded" } else { "Failed" },
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                                   "state": {"terminated": {"exitCode": code, "finishedAt": Time(now)}}}]}))
        .unwrap();
        if pod.metadata.finalizers.is_some() {
            self.ended_well += usize::from(well);
            self.ended_badly += usize::from(!well);
        } else if pod.metadata.deletion_timestamp.is_some() {
            let gone = pod.metadata.uid.clone();
            self.pods.retain(|pod| pod.metadata.uid != gone);
        }
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn conditions(&self) -> Vec<String> {
        let conditions = self.status().conditions.unwrap_or_default();
        conditions
            .iter()
            .map(|one| format!("{}={} {}", one.type_, one.status, one.reason.as_deref().unwrap_or("")))
            .collect()
    }

    /// Goes on without accidents until nothing happens any more.
    fn calm_down(&mut self, well: bool) {
        for _ in 0..200 {
            self.second += 700;
            self.reconcile(usize::MAX);
            self.end(0, well);
        }
    }
}

#[test]
fn a_job_runs_its_completions() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 3}));
    world.reconcile(usize::MAX);
    world.end(0, true);
    world.reconcile(usize::MAX);
    assert_eq!(world.status().succeeded, Some(1));
    world.reconcile(usize::MAX);
    world.end(0, true);
    world.end(0, true);
    world.reconcile(usize::MAX);
    assert_eq!(world.story, ["create p1 None", "create p2 None", "create p3 None", "Completed: Job completed"]);
    assert_eq!(world.conditions(), ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"]);
    let status = world.status();
    assert_eq!((status.active, status.ready, status.succeeded, status.terminating), (None, Some(0), Some(3), Some(0)));
    assert_eq!(status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
    assert_eq!(status.completion_time, Some(Time(world.now())));
}

#[test]
fn a_job_that_keeps_failing_waits_longer_and_gives_up() {
    let mut world = World::new(json!({"backoffLimit": 2}));
    world.reconcile(usize::MAX);
    world.end(0, false);
    world.reconcile(usize::MAX);
    assert_eq!(world.story, ["create p1 None"], "ten seconds first");
    world.second = 10;
    world.reconcile(usize::MAX);
    world.end(0, false);
    world.second = 29;
    world.reconcile(usize::MAX);
    assert_eq!(world.made, 2);
    world.second = 31;
    world.reconcile(usize::MAX);
    world.end(0, false);
    world.reconcile(usize::MAX);
    assert_eq!(world.made, 3);
    assert_eq!(world.story.last().unwrap(), "BackoffLimitExceeded: Job has reached the specified backoff limit");
    assert_eq!(world.conditions(), ["FailureTarget=True BackoffLimitExceeded", "Failed=True BackoffLimitExceeded"]);
    assert_eq!(world.status().failed, Some(3));
}

#[test]
fn a_deadline_stops_what_runs_and_waits_for_it() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 2, "activeDeadlineSeconds": 60}));
    world.reconcile(usize::MAX);
    world.second = 60;
    world.reconcile(usize::MAX);
    world.reconcile(usize::MAX);
    assert_eq!(world.conditions(), ["FailureTarget=True DeadlineExceeded"], "two pods are still ending");
    assert_eq!(world.status().terminating, Some(2));
    world.end(0, false);
    world.end(0, false);
    world.reconcile(usize::MAX);
    assert_eq!(world.conditions(), ["FailureTarget=True DeadlineExceeded", "Failed=True DeadlineExceeded"]);
    assert_eq!(world.status().failed, Some(2));
}

#[test]
fn a_suspended_job_gives_its_pods_back_and_begins_anew() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 2}));
    world.reconcile(usize::MAX);
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.reconcile(usize::MAX);
    assert_eq!(world.conditions(), ["Suspended=True JobSuspended"]);
    assert_eq!((world.status().start_time, world.pods.len()), (None, 0));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.second = 5;
    world.reconcile(usize::MAX);
    assert_eq!(world.conditions(), ["Suspended=False JobResumed"]);
    assert_eq!(world.status().start_time, Some(Time(world.now())));
    assert_eq!(world.status().failed, None, "what was given back has not failed");
    let said: Vec<&String> = world.story.iter().filter(|line| line.contains(':')).collect();
    assert_eq!(said, ["Suspended: Job suspended", "Resumed: Job resumed"]);
}

#[test]
fn each_index_has_its_own_limit() {
    let mut world = World::new(json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed",
        "backoffLimit": 100, "backoffLimitPerIndex": 1}));
    world.reconcile(usize::MAX);
    world.end(0, false);
    world.end(0, true);
    world.reconcile(usize::MAX);
    assert_eq!(world.made, 3, "index 0 waits");
    assert_eq!(world.pods.iter().filter(|pod| pod.metadata.finalizers.is_some()).count(), 2, "and its pod stays");
    world.second = 10;
    world.reconcile(usize::MAX);
    assert_eq!(world.story.last().unwrap(), "create p4 Some(0)");
    world.end(0, true);
    world.end(0, false);
    world.reconcile(usize::MAX);
    assert_eq!(world.conditions(), ["FailureTarget=True FailedIndexes", "Failed=True FailedIndexes"]);
    let status = world.status();
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("1,2"), Some("0")));
    assert_eq!((status.succeeded, status.failed), (Some(2), Some(2)));
}

#[test]
fn a_success_policy_ends_the_rest() {
    let mut world = World::new(json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}));
    world.reconcile(usize::MAX);
    world.end(0, true);
    world.reconcile(usize::MAX);
    assert_eq!(world.conditions(), ["SuccessCriteriaMet=True SuccessPolicy"]);
    world.end(0, false);
    world.end(0, false);
    world.reconcile(usize::MAX);
    assert_eq!(world.conditions(), ["SuccessCriteriaMet=True SuccessPolicy", "Complete=True SuccessPolicy"]);
    assert_eq!((world.status().succeeded, world.status().completed_indexes.as_deref()), (Some(1), Some("0")));
}

#[test]
fn of_pods_with_one_index_the_best_stays() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed"}));
    world.reconcile(usize::MAX);
    let mut twin = world.pods[0].clone();
    (twin.metadata.uid, twin.metadata.name) = (Some("twin".into()), Some("twin".into()));
    twin.status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
    world.pods.push(twin);
    world.reconcile(usize::MAX);
    assert_eq!(world.story.last().unwrap(), "remove p1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens and wherever the controller is cut off: each pod is counted once, no index runs twice, and the
    /// Job ends.
    #[test]
    fn every_pod_is_counted_once(
        indexed in any::<bool>(),
        completions in 1..5,
        parallelism in 1..4,
        steps in prop::collection::vec((0..4_u8, 0..3_usize, 1..8_usize), 0..60),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut world = World::new(json!({"parallelism": parallelism, "completions": completions,
                                          "completionMode": mode, "backoffLimit": 1000}));
        for (what, at, writes) in steps {
            match what {
                0 => world.end(at, true),
                1 => world.end(at, false),
                2 => world.second += 700,
                _ => world.reconcile(writes),
            }
            let active: Vec<_> = world.pods.iter().filter(|pod| pods::is_active(pod)).collect();
            prop_assert!(active.len() <= usize::try_from(parallelism).unwrap());
            let indexes: HashSet<_> = active.iter().map(|pod| index_of(pod)).collect();
            prop_assert!(!indexed || indexes.len() == active.len(), "an index runs twice");
        }
        world.calm_down(true);
        prop_assert_eq!(world.conditions().last().cloned(), Some("Complete=True CompletionsReached".to_owned()));
        let status = world.status();
        let number = |count: usize| i32::try_from(count).unwrap();
        prop_assert_eq!(status.failed.unwrap_or(0), number(world.ended_badly));
        prop_assert_eq!(status.succeeded.unwrap_or(0), number(world.ended_well));
        prop_assert_eq!(status.succeeded, Some(completions));
        prop_assert!(world.pods.iter().all(|pod| !pods::has_finalizer(pod, TRACKING_FINALIZER)));
    }

    /// A Job that cannot succeed fails after as many failures as it may have.
    #[test]
    fn a_job_fails_after_its_limit(limit in 0..5, parallelism in 1..3) {
        let mut world = World::new(json!({"parallelism": parallelism, "completions": 3, "backoffLimit": limit}));
        world.calm_down(false);
        prop_assert_eq!(world.conditions().last().cloned(), Some("Failed=True BackoffLimitExceeded".to_owned()));
        prop_assert!(world.status().failed.unwrap_or(0) > limit);
        prop_assert!(world.made <= usize::try_from(limit + parallelism).unwrap());
    }
}
