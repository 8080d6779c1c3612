//! Deletes finished Jobs when their `spec.ttlSecondsAfterFinished` is over.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Key, Queue, Scope};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::shared::owned::gone_is_fine;

const WORKERS: usize = 2;

struct FinishedJobs {
    client: Client,
    jobs: Arc<Informer<Job>>,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(FinishedJobs { jobs: client.informer(Scope::all()), client });
    controller.jobs.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("ttlafterfinished", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut jobs = controller.jobs.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = jobs.next() => if change.new.is_some_and(|job| time_left(&job, Timestamp::now()).is_some()) {
                queue.add(change.key);
            }
        }
    }
}

impl FinishedJobs {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(job) = self.jobs.get_key(&key) else { return Ok(None) };
        match time_left(&job, Timestamp::now()) {
            None => return Ok(None),
            Some(left) if !left.is_zero() => return Ok(Some(left)),
            Some(_) => {}
        }
        // The cache may not know that the Job was given more time.
        let Some(fresh) = self.client.find::<Job>(&key.namespace, &key.name).await? else { return Ok(None) };
        match time_left(&fresh, Timestamp::now()) {
            Some(left) if left.is_zero() => {}
            left => return Ok(left),
        }
        let options = DeleteOptions {
            propagation_policy: Some("Foreground"),
            uid: fresh.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        gone_is_fine(self.client.delete::<Job>(&key.namespace, &key.name, options).await)?;
        Ok(None)
    }
}

/// How long a finished Job is kept from `now` on; `None` if it has not finished, is kept for good or is going.
fn time_left(job: &Job, now: Timestamp) -> Option<Duration> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let kept_s = u64::try_from(job.spec.as_ref()?.ttl_seconds_after_finished?).ok()?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let is_end = |kind: &str| matches!(kind, "Complete" | "Failed");
    let end = conditions.iter().find(|one| is_end(&one.type_) && one.status == "True")?;
    let until = end.last_transition_time.as_ref()?.0.checked_add(Duration::from_secs(kept_s)).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_job_is_kept_for_its_time_after_its_end() {
        let left = |spec: Value, condition: &str, now: &str| {
            let end = json!({"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let job = json!({"spec": spec, "status": {"conditions": [end]}});
            time_left(&serde_json::from_value(job).unwrap(), now.parse().unwrap()).map(|left| left.as_secs())
        };
        let spec = json!({"template": {}, "ttlSecondsAfterFinished": 60});
        assert_eq!(left(spec.clone(), "Complete", "2026-01-01T00:00:20Z"), Some(40));
        assert_eq!(left(spec.clone(), "Failed", "2026-01-01T00:02:00Z"), Some(0));
        assert_eq!(left(spec, "Suspended", "2026-01-01T00:02:00Z"), None);
        assert_eq!(left(json!({"template": {}}), "Complete", "2026-01-01T00:02:00Z"), None);
        let now = json!({"template": {}, "ttlSecondsAfterFinished": 0});
        assert_eq!(left(now, "Complete", "2026-01-01T00:00:00Z"), Some(0));
    }
}
