//! What a CronJob's schedule, its Jobs and the clock come to. Pure.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::cron::{self, Schedule};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::due::{due, next_in};
use crate::shared::owned::{controller_reference, uid};

const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// An Event to record: whether it is a warning, its reason and its message.
pub type Said = (bool, &'static str, String);

/// What to do.
#[derive(Default)]
pub struct Plan {
    pub status: CronJobStatus,
    pub said: Vec<Said>,
    /// Finished Jobs beyond the history that is kept.
    pub surplus: Vec<Arc<Job>>,
    pub start: Option<Start>,
    pub again: Option<Duration>,
}

/// A Job to start, after those that it replaces are deleted.
pub struct Start {
    pub replaces: Vec<ObjectReference>,
    pub job: Job,
    pub time: Timestamp,
}

impl Plan {
    fn say(&mut self, warning: bool, reason: &'static str, message: impl Into<String>) {
        self.said.push((warning, reason, message.into()));
    }
}

/// `jobs` are those that the CronJob controls; `missing` are the uids of active ones that are gone for certain.
pub fn plan(cron_job: &CronJob, jobs: &[Arc<Job>], missing: &HashSet<String>, now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron_job.status.clone().unwrap_or_default(), ..Plan::default() };
    let spec = &cron_job.spec;
    follow_jobs(&mut plan, jobs, missing);
    plan.surplus = surplus(spec, jobs);
    let active = plan.status.active.take().unwrap_or_default();
    let stays = |one: &ObjectReference| !plan.surplus.iter().any(|job| job.metadata.uid == one.uid);
    plan.status.active = Some(active.into_iter().filter(stays).collect::<Vec<_>>()).filter(|active| !active.is_empty());
    if cron_job.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let zone = spec.time_zone.as_deref().unwrap_or_default();
    let zone = match cron::time_zone(zone) {
        Ok(zone) => zone,
        Err(why) => {
            plan.say(true, "UnknownTimeZone", format!("invalid timeZone: {zone:?}: {why}"));
            return plan;
        }
    };
    if spec.suspend != Some(true) {
        start(&mut plan, cron_job, spec, zone, now);
    }
    plan
}

/// Brings the status up to what the Jobs say.
fn follow_jobs(plan: &mut Plan, jobs: &[Arc<Job>], missing: &HashSet<String>) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let at = active.iter().position(|one| one.uid == job.metadata.uid);
        match (end(job), at) {
            (None, None) => {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                plan.say(true, "UnexpectedJob", message);
            }
            (Some(end), Some(at)) => {
                active.remove(at);
                plan.say(false, "SawCompletedJob", format!("Saw completed job: {name}, condition: {end}"));
            }
            _ => {}
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if end(job) == Some("Complete") && completed > plan.status.last_successful_time {
            plan.status.last_successful_time = completed;
        }
    }
    active.retain(|one| {
        let gone = one.uid.as_ref().is_some_and(|uid| missing.contains(uid));
        if gone {
            let name = one.name.as_deref().unwrap_or_default();
            plan.said.push((false, "MissingJob", format!("Active job went missing: {name}")));
        }
        !gone
    });
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// How a Job has ended, if it has.
fn end(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let is_end = |kind: &str| matches!(kind, "Complete" | "Failed");
    conditions.iter().find(|one| is_end(&one.type_) && one.status == "True").map(|one| one.type_.as_str())
}

/// The oldest finished Jobs beyond what is kept of either end.
fn surplus(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
    let mut surplus = Vec::new();
    for (kind, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(|job| end(job) == Some(kind)).collect();
        // Those that never started come last.
        ended.sort_by_key(|job| {
            let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (Reverse(started.is_some()), started, job.metadata.name.clone())
        });
        surplus.extend(ended.iter().take(ended.len().saturating_sub(limit)).map(|job| (*job).clone()));
    }
    surplus
}

/// Starts the Job that is due, unless something speaks against it, and says when the next one is.
fn start(plan: &mut Plan, cron_job: &CronJob, spec: &CronJobSpec, zone: TimeZone, now: Timestamp) {
    let text = &spec.schedule;
    if text.contains("TZ") {
        let see = "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/";
        let message =
            format!("CRON_TZ or TZ used in schedule {text:?} is not officially supported, see {see} for more details");
        plan.say(true, "UnsupportedSchedule", message);
    }
    let schedule = match Schedule::parse(text, zone.clone()) {
        Ok(schedule) => schedule,
        Err(why) => return plan.say(true, "UnparseableSchedule", format!("unparseable schedule: {text:?} : {why}")),
    };
    let due = match due(cron_job, &schedule, now, true) {
        Ok(due) => due,
        Err(why) => return plan.say(true, "InvalidSchedule", format!("invalid schedule: {text} : {why}")),
    };
    plan.again = next_in(cron_job, &schedule, now);
    let Some(time) = due.time else { return };
    if due.missed_many() {
        let advice = "Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.say(true, "TooManyMissedTimes", format!("too many missed start times. {advice}"));
    }
    let deadline =
        spec.starting_deadline_seconds.and_then(|seconds| time.checked_add(SignedDuration::from_secs(seconds)).ok());
    if deadline.is_some_and(|deadline| deadline < now) {
        let when = time.strftime("%a, %d %b %Y %H:%M:%S %z");
        return plan.say(true, "MissSchedule", format!("Missed scheduled time to start a job: {when}"));
    }
    let job = job_at(cron_job, spec, time, &zone);
    let active = plan.status.active.clone().unwrap_or_default();
    let done = plan.status.last_schedule_time == Some(Time(time));
    if done || active.iter().any(|one| one.name == job.metadata.name) {
        return;
    }
    let replaces = match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.say(false, "JobAlreadyActive", message);
        }
        Some("Replace") => active,
        _ => Vec::new(),
    };
    plan.start = Some(Start { replaces, job, time });
}

/// The Job for a time. Its name is the same however often it is made.
fn job_at(cron_job: &CronJob, spec: &CronJobSpec, time: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    let local = time.to_zoned(zone.clone());
    let offset = if local.offset().is_zero() { "Z".to_owned() } else { local.strftime("%:z").to_string() };
    let mut annotations = template.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_TIMESTAMP.to_owned(), format!("{}{offset}", local.strftime("%Y-%m-%dT%H:%M:%S")));
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", time.as_second().div_euclid(60))),
            namespace: cron_job.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

/// How a Job stands in `status.active`.
pub fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: Some(uid(&job.metadata).to_owned()),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron_job(spec: Value, status: Value) -> CronJob {
        let mut base = json!({"schedule": "0 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1, "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}});
        base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "c", "uid": "c", "creationTimestamp": "2026-01-01T00:30:00Z"},
            "spec": base, "status": status,
        }))
        .unwrap()
    }

    fn job(name: &str, end: Option<&str>) -> Arc<Job> {
        let conditions: Vec<Value> = end.iter().map(|end| json!({"type": end, "status": "True"})).collect();
        let done = end.filter(|end| *end == "Complete").map(|_| "2026-01-01T00:45:00Z");
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"namespace": "n", "name": name, "uid": name},
                "status": {"conditions": conditions, "completionTime": done, "startTime": "2026-01-01T00:40:00Z"},
            }))
            .unwrap(),
        )
    }

    fn active(name: &str) -> Value {
        json!({"active": [{"kind": "Job", "namespace": "n", "name": name, "uid": name}]})
    }

    /// The plan at one past one, in lines.
    fn told(spec: Value, status: Value, jobs: &[Arc<Job>]) -> Vec<String> {
        let now = "2026-01-01T01:01:00Z".parse().unwrap();
        let plan = plan(&cron_job(spec, status), jobs, &HashSet::from(["lost".to_owned()]), now);
        let mut lines: Vec<String> =
            plan.said.iter().map(|(_, reason, message)| format!("{reason}: {message}")).collect();
        lines.extend(plan.surplus.iter().map(|job| format!("delete {}", job.metadata.name.as_deref().unwrap())));
        if let Some(start) = plan.start {
            lines.extend(start.replaces.iter().map(|one| format!("replace {}", one.name.as_deref().unwrap())));
            lines.push(format!("start {} for {}", start.job.metadata.name.unwrap(), start.time));
        }
        lines.extend(plan.status.active.iter().flatten().map(|one| format!("active {}", one.name.as_deref().unwrap())));
        lines
    }

    const STARTED: &str = "start c-29453820 for 2026-01-01T01:00:00Z";

    #[test]
    fn concurrency_is_as_the_policy_says() {
        let old = [job("old", None)];
        assert_eq!(told(json!({}), json!({}), &[]), [STARTED]);
        assert_eq!(told(json!({}), active("old"), &old), [STARTED, "active old"]);
        let forbidden =
            "JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid";
        assert_eq!(told(json!({"concurrencyPolicy": "Forbid"}), active("old"), &old), [forbidden, "active old"]);
        assert_eq!(
            told(json!({"concurrencyPolicy": "Replace"}), active("old"), &old),
            ["replace old", STARTED, "active old"]
        );
    }

    #[test]
    fn what_speaks_against_a_start() {
        assert!(told(json!({"suspend": true}), json!({}), &[]).is_empty());
        let done = json!({"lastScheduleTime": "2026-01-01T01:00:00Z"});
        assert!(told(json!({}), done, &[]).is_empty());
        assert!(told(json!({}), active("c-29453820"), &[]).iter().all(|line| line.starts_with("active")));
        assert!(told(json!({"startingDeadlineSeconds": 59}), json!({}), &[]).is_empty());
        let zone = told(json!({"timeZone": "Moon/Base"}), json!({}), &[]);
        assert_eq!(zone, ["UnknownTimeZone: invalid timeZone: \"Moon/Base\": unknown time zone Moon/Base"]);
        let schedule = told(json!({"schedule": "x"}), json!({}), &[]);
        assert_eq!(
            schedule,
            ["UnparseableSchedule: unparseable schedule: \"x\" : expected exactly 5 fields, found 1: [x]"]
        );
    }

    #[test]
    fn ended_jobs_leave_the_list_and_then_the_history() {
        let jobs = [job("a", Some("Failed")), job("b", Some("Failed")), job("d", Some("Complete")), job("e", None)];
        let spec = json!({"suspend": true, "successfulJobsHistoryLimit": 0});
        let lines = told(spec.clone(), active("b"), &jobs);
        assert_eq!(
            lines,
            [
                "SawCompletedJob: Saw completed job: b, condition: Failed",
                "UnexpectedJob: Saw a job that the controller did not create or forgot: e",
                "delete d",
                "delete a",
            ]
        );
        assert_eq!(told(spec, active("lost"), &[]), ["MissingJob: Active job went missing: lost"]);
        let now = Timestamp::UNIX_EPOCH;
        let status = plan(&cron_job(json!({}), json!({})), &jobs, &HashSet::new(), now).status;
        assert_eq!(status.last_successful_time.unwrap().0.to_string(), "2026-01-01T00:45:00Z");
    }

    #[test]
    fn a_job_says_for_which_time_it_is() {
        let cron_job = cron_job(json!({"timeZone": "Asia/Kolkata", "schedule": "30 6 * * *"}), json!({}));
        let now = "2026-01-01T01:01:00Z".parse().unwrap();
        let start = plan(&cron_job, &[], &HashSet::new(), now).start.unwrap();
        let annotations = start.job.metadata.annotations.unwrap();
        assert_eq!(annotations[SCHEDULED_TIMESTAMP], "2026-01-01T06:30:00+05:30");
        assert_eq!(start.job.metadata.labels.unwrap()["a"], "b");
    }
}
