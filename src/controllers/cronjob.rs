//! CronJobs: start Jobs by the clock.
//!
//! Watches CronJobs and Jobs, and sleeps until the next time. Each reconcile asks [`plan`] what is due, deletes what the
//! history has no room for, starts the Job and writes the status. A Job's name is made of its time in minutes, so that
//! none is started twice, whenever the controller was cut off.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::cron::{self, Schedule};
use client::{Client, DeleteOptions, Failure, Informer, Involved, Key, Meta, Queue, Recorder, Scope};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::shared::owned::{controller_of, is_controlled_by};
use crate::shared::pod_control::namespace_goes;
use crate::shared::written::Written;

mod due;
mod plan;

use plan::{Plan, Start, plan, reference};

const WORKERS: usize = 5;

struct CronJobs {
    client: Client,
    cron_jobs: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
    recorder: Recorder,
    written: Written,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(CronJobs {
        cron_jobs: client.informer(Scope::all()),
        jobs: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "cronjob-controller", None),
        written: Written::default(),
        client,
    });
    controller.cron_jobs.synced().await;
    controller.jobs.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("cronjob", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut cron_jobs = controller.cron_jobs.subscribe();
    let mut jobs = controller.jobs.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = cron_jobs.next() => {
                let wait = match (&change.old, &change.new) {
                    (Some(old), Some(new)) => rescheduled(old, new, Timestamp::now()),
                    _ => Duration::ZERO,
                };
                queue.add_after(change.key, wait);
            }
            change = jobs.next() => {
                for job in [&change.old, &change.new].into_iter().flatten() {
                    let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob");
                    if let Some(owner) = owner {
                        queue.add(Key::new(change.key.namespace.clone(), owner.name.clone()));
                    }
                }
            }
        }
    }
}

/// A CronJob with another schedule is looked at when that is due: what it would have started before is not missed.
fn rescheduled(old: &CronJob, new: &CronJob, now: Timestamp) -> Duration {
    let when = |cron_job: &CronJob| (cron_job.spec.schedule.clone(), cron_job.spec.time_zone.clone());
    let (schedule, zone) = when(new);
    if when(old) == when(new) {
        return Duration::ZERO;
    }
    let zone = cron::time_zone(zone.as_deref().unwrap_or_default());
    let schedule = zone.and_then(|zone| Schedule::parse(&schedule, zone));
    schedule.ok().and_then(|schedule| due::next_in(new, &schedule, now)).unwrap_or_default()
}

impl CronJobs {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(cron_job) = self.cron_jobs.get_key(&key) else {
            self.written.forget(&key);
            return Ok(None);
        };
        if !self.written.is_seen(&*cron_job) {
            return Ok(None);
        }
        let cron_uid = cron_job.metadata.uid.as_deref();
        let ours = |meta: &Meta| cron_uid.is_some() && meta.controller() == cron_uid;
        let jobs = self.jobs.list_where(Some(&key.namespace), ours);
        let missing = self.missing(&cron_job, &jobs).await?;
        let Plan { mut status, said, surplus, start, again } = plan(&cron_job, &jobs, &missing, Timestamp::now());
        for (warning, reason, message) in said {
            self.say(&cron_job, warning, reason, message);
        }
        for job in surplus {
            // One that cannot be deleted is tried again with the next change.
            let _ = self.delete(&cron_job, &Key::of(&*job)).await;
        }
        let outcome = match start {
            Some(start) => self.start(&cron_job, start, &mut status).await,
            None => Ok(()),
        };
        if cron_job.status.as_ref() != Some(&status) {
            let changed = CronJob { status: Some(status), ..CronJob::clone(&cron_job) };
            self.written.wrote(&self.client.update_status(&changed).await?);
        }
        outcome.map(|()| again)
    }

    fn say(&self, cron_job: &CronJob, warning: bool, reason: &str, message: String) {
        let involved = Involved::new(cron_job);
        if warning {
            self.recorder.warning(involved, reason, message);
        } else {
            self.recorder.normal(involved, reason, message);
        }
    }

    /// The uids of active Jobs that are gone. The cache may not show a new one yet, so it is asked for.
    async fn missing(&self, cron_job: &CronJob, jobs: &[Arc<Job>]) -> Result<HashSet<String>, Failure> {
        let mut missing = HashSet::new();
        let active = cron_job.status.as_ref().and_then(|status| status.active.as_ref());
        for one in active.into_iter().flatten() {
            let (Some(name), Some(uid)) = (&one.name, &one.uid) else { continue };
            let shown = jobs.iter().any(|job| job.metadata.uid.as_ref() == Some(uid));
            let namespace = cron_job.metadata.namespace.as_deref().unwrap_or_default();
            if !shown && self.client.find::<Job>(namespace, name).await?.is_none() {
                missing.insert(uid.clone());
            }
        }
        Ok(missing)
    }

    async fn delete(&self, cron_job: &CronJob, job: &Key) -> Result<(), Failure> {
        let options = DeleteOptions { propagation_policy: Some("Background"), ..DeleteOptions::default() };
        match self.client.delete::<Job>(&job.namespace, &job.name, options).await {
            Ok(()) => {
                self.say(cron_job, false, "SuccessfulDelete", format!("Deleted job {}", job.name));
                Ok(())
            }
            Err(failure) => {
                self.say(cron_job, true, "FailedDelete", format!("Deleted job: {failure}"));
                Err(failure)
            }
        }
    }

    async fn start(&self, cron_job: &CronJob, start: Start, status: &mut CronJobStatus) -> Result<(), Failure> {
        for old in start.replaces {
            let namespace = cron_job.metadata.namespace.clone().unwrap_or_default();
            self.delete(cron_job, &Key::new(namespace, old.name.clone().unwrap_or_default())).await?;
            status.active = status.active.take().map(|active| active.into_iter().filter(|one| *one != old).collect());
        }
        let created = match self.client.create(&start.job).await {
            Ok(created) => {
                let name = created.metadata.name.as_deref().unwrap_or_default();
                self.say(cron_job, false, "SuccessfulCreate", format!("Created job {name}"));
                created
            }
            Err(failure) if failure.is_already_exists() => {
                // Perhaps we were cut off between starting it and writing so.
                let Key { namespace, name } = Key::of(&start.job);
                let existing = self.client.get::<Job>(&namespace, &name).await?;
                if !is_controlled_by(&existing.metadata, cron_job.metadata.uid.as_deref()) {
                    return Ok(());
                }
                existing
            }
            Err(failure) => {
                if !namespace_goes(&failure) {
                    self.say(cron_job, true, "FailedCreate", format!("Error creating job: {failure}"));
                }
                return Err(failure);
            }
        };
        let new = reference(&created);
        let active = status.active.get_or_insert_default();
        if !active.iter().any(|one| one.uid == new.uid) {
            active.push(new);
        }
        status.last_schedule_time = Some(Time(start.time));
        Ok(())
    }
}
