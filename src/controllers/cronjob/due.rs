//! Which of a CronJob's times is due, and when to look again. Pure.

use std::time::Duration;

use api::cron::Schedule;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Looked at a little after the time, as clocks differ.
const AFTER_TIME: Duration = Duration::from_millis(100);
/// From here on an Event says that many were missed.
const MISSED_MANY: i64 = 100;

/// The schedule comes to nothing: its times do not follow each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub struct NeverDue;

/// The last time up to now, and what came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// From when on times were looked for.
    since: Timestamp,
    pub time: Option<Timestamp>,
    missed: i64,
}

impl Due {
    pub fn missed_many(&self) -> bool {
        self.missed > MISSED_MANY
    }
}

/// The last time that is due at `now`. With `deadline`, none that is past `spec.startingDeadlineSeconds` by then.
pub fn due(cron_job: &CronJob, schedule: &Schedule, now: Timestamp, deadline: bool) -> Result<Due, NeverDue> {
    let last = cron_job.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let created = cron_job.metadata.creation_timestamp.as_ref();
    let mut since = last.or(created).map_or(now, |time| time.0);
    let deadline_s = cron_job.spec.starting_deadline_seconds.filter(|_| deadline);
    if let Some(deadline_s) = deadline_s
        && let Ok(earliest) = now.checked_sub(SignedDuration::from_secs(deadline_s))
    {
        since = since.max(earliest);
    }
    let first = schedule.next(since).ok_or(NeverDue)?;
    if now < first {
        return Ok(Due { since, time: None, missed: 0 });
    }
    let second = schedule.next(first).ok_or(NeverDue)?;
    if now < second {
        return Ok(Due { since, time: Some(first), missed: 0 });
    }
    let apart_s = second.duration_since(first).as_secs();
    if apart_s < 1 {
        return Err(NeverDue);
    }
    // As if all were as far apart as the first two; from shortly before now on they are looked at one by one.
    let missed = now.duration_since(first).as_secs() / apart_s + 1;
    let skip = SignedDuration::from_secs(apart_s.saturating_mul(missed - 2));
    let mut time = None;
    let mut at = first.checked_add(skip).ok().and_then(|from| schedule.next(from));
    while let Some(next) = at.filter(|next| *next <= now) {
        time = Some(next);
        at = schedule.next(next);
    }
    Ok(Due { since, time, missed })
}

/// How long from `now` until the next time.
pub fn next_in(cron_job: &CronJob, schedule: &Schedule, now: Timestamp) -> Option<Duration> {
    let from = match due(cron_job, schedule, now, false) {
        Ok(Due { time: Some(time), .. }) => time,
        Ok(Due { since, missed: 0, .. }) => since,
        Ok(_) | Err(NeverDue) => now,
    };
    let next = schedule.next(from)?.checked_add(AFTER_TIME).ok()?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron_job(schedule: &str, last: Option<&str>, deadline_s: Option<i64>) -> (CronJob, Schedule) {
        let zone = api::cron::time_zone("").unwrap();
        let read = Schedule::parse(schedule, zone).unwrap();
        let value = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": schedule, "startingDeadlineSeconds": deadline_s, "jobTemplate": {}},
            "status": {"lastScheduleTime": last.map_or(Value::Null, Value::from)},
        });
        (serde_json::from_value(value).unwrap(), read)
    }

    fn look(schedule: &str, last: Option<&str>, deadline_s: Option<i64>, now: &str) -> (Option<String>, i64, u64) {
        let (cron_job, schedule) = cron_job(schedule, last, deadline_s);
        let now = now.parse().unwrap();
        let due = due(&cron_job, &schedule, now, true).unwrap();
        let next = next_in(&cron_job, &schedule, now).unwrap();
        (due.time.map(|time| time.to_string()), due.missed, next.as_secs())
    }

    #[test]
    fn the_last_time_is_due() {
        assert_eq!(look("0 * * * *", None, None, "2026-01-01T00:30:00Z"), (None, 0, 1800));
        let one = Some("2026-01-01T01:00:00Z".to_owned());
        assert_eq!(look("0 * * * *", None, None, "2026-01-01T01:30:00Z"), (one.clone(), 0, 1800));
        assert_eq!(look("0 * * * *", Some("2026-01-01T01:00:00Z"), None, "2026-01-01T01:30:00Z"), (None, 0, 1800));
        let five = Some("2026-01-01T05:00:00Z".to_owned());
        assert_eq!(look("0 * * * *", None, None, "2026-01-01T05:30:00Z"), (five, 5, 1800));
        assert_eq!(look("0 * * * *", None, Some(60), "2026-01-01T05:30:00Z"), (None, 0, 1800), "past its deadline");
    }

    #[test]
    fn years_that_were_missed_cost_no_more_than_hours() {
        let (cron_job, schedule) = cron_job("* * * * *", None, None);
        let due = due(&cron_job, &schedule, "2030-01-01T00:00:30Z".parse().unwrap(), true).unwrap();
        assert_eq!(due.time.unwrap().to_string(), "2030-01-01T00:00:00Z");
        assert!(due.missed_many());
    }

    #[test]
    fn uneven_times_are_found() {
        let friday_to_monday = look("30 6-16/4 * * 1-5", Some("2026-01-01T14:30:00Z"), None, "2026-01-05T07:00:00Z");
        assert_eq!(friday_to_monday.0.as_deref(), Some("2026-01-05T06:30:00Z"));
    }

    #[test]
    fn a_day_that_never_comes_is_no_schedule() {
        let (cron_job, schedule) = cron_job("59 23 31 2 *", None, None);
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        assert_eq!(due(&cron_job, &schedule, now, true), Err(NeverDue));
        assert_eq!(next_in(&cron_job, &schedule, now), None);
    }
}
