//! Jobs: pods that run to an end, a number of times.
//!
//! Watches Jobs and Pods. Each reconcile observes the pods, asks [`sync::Sync`] what to do and what the status comes to,
//! and writes it in the order that keeps the counters right. Pods carry the finalizer
//! `batch.kubernetes.io/job-tracking` until they are counted; those whose Job is gone or over lose it here as well.
//!
//! Jobs with another `spec.managedBy` than `kubernetes.io/job-controller` are left alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Involved, Key, Meta, Patch, Queue, Recorder, Scope};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use task::Shutdown;

use crate::shared::claim::Claim;
use crate::shared::owned::{controller_of, uid, wake_owners};
use crate::shared::pod_control::PodControl;
use crate::shared::recent::Recent;
use crate::shared::written::Written;
use crate::shared::{pods, select};

mod backoff;
mod indexes;
mod job_pods;
mod policy;
mod sync;

use backoff::Backoff;
use job_pods::TRACKING_FINALIZER;
use sync::{Action, Observed, Outcome, Said, Sync};

const WORKERS: usize = 5;
const CONTROLLER: &str = "kubernetes.io/job-controller";

struct Jobs {
    client: Client,
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
    control: PodControl,
    /// Pods that lost the finalizer, which the cache may not show.
    untracked: Recent,
    written: Written,
    /// Of Jobs that are not over.
    backoffs: Mutex<HashMap<Key, Backoff>>,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let recorder = Recorder::new(client.clone(), "job-controller", None);
    let controller = Arc::new(Jobs {
        jobs: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        control: PodControl::new(client.clone(), recorder.clone()),
        recorder,
        untracked: Recent::default(),
        written: Written::default(),
        backoffs: Mutex::default(),
        client,
    });
    controller.jobs.synced().await;
    controller.pods.synced().await;
    let (queue, orphans) = (Queue::new(), Queue::new());
    let reconciler = controller.clone();
    client::run_workers("job", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let reconciler = controller.clone();
    client::run_workers("job-orphans", orphans.clone(), 1, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.free(&key).await }
    });
    let mut jobs = controller.jobs.subscribe();
    let mut changes = controller.pods.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = jobs.next() => {
                if change.new.is_none() && let Some(job) = &change.old {
                    let gone = job.metadata.uid.as_deref();
                    for pod in controller.pods.list_where(Some(&change.key.namespace), |meta| meta.controller() == gone) {
                        orphans.add(Key::of(&*pod));
                    }
                }
                queue.add(change.key);
            }
            change = changes.next() => {
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake_owners(&queue, pod);
                }
                if let Some(pod) = &change.new && controller.is_orphan(pod) {
                    orphans.add(change.key);
                }
            }
        }
    }
}

impl Jobs {
    fn wake_owners(&self, queue: &Queue<Key>, pod: &Pod) {
        wake_owners(queue, &self.jobs, &pod.metadata, |job| {
            let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|one| select::compiled(one).matches_labels(pod.metadata.labels.as_ref()))
        });
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(job) = self.jobs.get_key(&key) else {
            self.forget(&key);
            return Ok(None);
        };
        if is_managed_elsewhere(&job) {
            return Ok(None);
        }
        if sync::is_finished(&job) {
            self.forget(&key);
            self.control.recent.forget(uid(&job.metadata));
            self.untracked.forget(uid(&job.metadata));
            return Ok(None);
        }
        if !self.written.is_seen(&*job) {
            return Ok(None);
        }
        let pods = self.claim(&job).await?;
        let shown = pods.iter().map(|pod| (uid(&pod.metadata), pods::is_deleted(pod)));
        let unseen = self.control.recent.settle(uid(&job.metadata), shown);
        let shown = pods.iter().map(|pod| (uid(&pod.metadata), !pods::has_finalizer(pod, TRACKING_FINALIZER)));
        let untracked = self.untracked.settle(uid(&job.metadata), shown).deleted.into_iter().collect();
        let mut sync = Sync::new(Observed {
            job: Job::clone(&job),
            pods,
            untracked,
            caught_up: unseen.is_empty(),
            backoff: self.backoffs.lock().get(&key).copied().unwrap_or_default(),
            now: Timestamp::now(),
        });
        let action = sync.decide();
        let (outcome, failure) = self.act(&job, action).await;
        sync.acted(outcome);
        let going = sync.track();
        self.write(&key, &mut sync).await?;
        let (gone, not_freed) = self.untrack(&job, &going).await;
        sync.untracked(&gone);
        if not_freed.is_none() {
            sync.finish();
        }
        self.write(&key, &mut sync).await?;
        if let Some(failure) = not_freed.or(failure) {
            return Err(failure);
        }
        Ok([sync.again, unseen.again()].into_iter().flatten().min())
    }

    fn forget(&self, key: &Key) {
        self.backoffs.lock().remove(key);
        self.written.forget(key);
    }

    /// The pods of the Job, after adopting and releasing.
    async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>, Failure> {
        let Some(selector) = job.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return Ok(Vec::new()) };
        let job_uid = job.metadata.uid.as_deref();
        let ours_or_nobodys = |meta: &Meta| meta.controller().is_none() || meta.controller() == job_uid;
        let candidates = self.pods.list_where(job.metadata.namespace.as_deref(), ours_or_nobodys);
        let selector = select::compiled(selector);
        let claim =
            Claim { client: &self.client, owner: job, selector: &selector, finalizer: Some(TRACKING_FINALIZER) };
        claim.all(candidates, |_| true).await
    }

    async fn act(&self, job: &Job, action: Action) -> (Outcome, Option<Failure>) {
        match action {
            Action::Nothing => (Outcome::default(), None),
            Action::Create(pods) => {
                let created = self.control.create_all(job, pods).await;
                (Outcome { pods: created.count, ready: 0 }, created.failure)
            }
            Action::Stop(pods) => self.delete(job, &pods).await,
            Action::Remove(pods) => {
                let (freed, failure) = self.untrack(job, &pods).await;
                let free = |pod: &&Arc<Pod>| {
                    !pods::has_finalizer(pod, TRACKING_FINALIZER) || freed.contains(uid(&pod.metadata))
                };
                let pods: Vec<Arc<Pod>> = pods.iter().filter(free).cloned().collect();
                let (outcome, not_deleted) = self.delete(job, &pods).await;
                (outcome, failure.or(not_deleted))
            }
        }
    }

    async fn delete(&self, job: &Job, pods: &[Arc<Pod>]) -> (Outcome, Option<Failure>) {
        let ready = pods.iter().filter(|pod| pods::is_ready(pod)).count();
        let (gone, failure) = self.control.delete_all(job, pods.iter().map(|pod| &**pod)).await;
        (Outcome { pods: gone, ready }, failure)
    }

    /// Takes the finalizer from pods; yields those that have it no more, and the first failure.
    async fn untrack(&self, job: &Job, pods: &[Arc<Pod>]) -> (HashSet<String>, Option<Failure>) {
        let outcomes = futures::future::join_all(pods.iter().map(|pod| async move {
            let (job_uid, pod_uid) = (uid(&job.metadata), uid(&pod.metadata));
            self.untracked.deleted(job_uid, pod_uid);
            let outcome = self.drop_finalizer(pod).await;
            if outcome.is_err() {
                self.untracked.kept(job_uid, pod_uid);
            }
            outcome.map(|()| pod_uid.to_owned())
        }))
        .await;
        let (mut gone, mut failed) = (HashSet::new(), None);
        for outcome in outcomes {
            match outcome {
                Ok(uid) => drop(gone.insert(uid)),
                Err(failure) => drop(failed.get_or_insert(failure)),
            }
        }
        (gone, failed)
    }

    async fn drop_finalizer(&self, pod: &Pod) -> Result<(), Failure> {
        if !pods::has_finalizer(pod, TRACKING_FINALIZER) {
            return Ok(());
        }
        let key = Key::of(pod);
        let patch = json!({"metadata": {
            "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER],
        }});
        crate::shared::owned::gone_is_fine(
            self.client.patch::<Pod>(&key.namespace, &key.name, Patch::Strategic(patch)).await,
        )
    }

    /// Writes the status if it is another, and what goes with it.
    async fn write(&self, key: &Key, sync: &mut Sync) -> Result<(), Failure> {
        if std::mem::take(&mut sync.dirty) {
            sync.job = self.client.update_status(&sync.job).await?;
            self.written.wrote(&sync.job);
            self.backoffs.lock().insert(key.clone(), sync.backoff);
        }
        for Said { warning, reason, message } in sync.said.drain(..) {
            let involved = Involved::new(&sync.job);
            if warning {
                self.recorder.warning(involved, &reason, message);
            } else {
                self.recorder.normal(involved, &reason, message);
            }
        }
        Ok(())
    }

    /// Whether nobody will count the pod: it is held for a Job that is gone or over, or for none.
    fn is_orphan(&self, pod: &Pod) -> bool {
        if !pods::has_finalizer(pod, TRACKING_FINALIZER) {
            return false;
        }
        let Some(owner) = controller_of(&pod.metadata) else { return true };
        if owner.kind != "Job" || owner.api_version != "batch/v1" {
            return false;
        }
        let job = self.jobs.get(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name);
        match job.filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid)) {
            Some(job) => sync::is_finished(&job) && !is_managed_elsewhere(&job),
            None => true,
        }
    }

    async fn free(&self, key: &Key) -> Result<Option<Duration>, Failure> {
        let Some(pod) = self.pods.get_key(key).filter(|pod| self.is_orphan(pod)) else { return Ok(None) };
        if let Some(owner) = controller_of(&pod.metadata) {
            // The cache may not know the Job yet.
            let job = self.client.find::<Job>(&key.namespace, &owner.name).await?;
            let lives = |job: &Job| job.metadata.uid.as_ref() == Some(&owner.uid) && !sync::is_finished(job);
            if job.as_ref().is_some_and(lives) {
                return Ok(None);
            }
        }
        self.drop_finalizer(&pod).await?;
        Ok(None)
    }
}

fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != CONTROLLER)
}
