//! The conditions of a Job.

use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::Sync;

/// Whether the Job has ended, well or not.
pub fn is_finished(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|one| matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True")
}

impl Sync {
    pub(super) fn condition(&self, kind: &str) -> Option<&JobCondition> {
        let conditions = self.job.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
    }

    pub(super) fn failed_for(&self, target: &JobCondition) -> JobCondition {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        self.new_condition("Failed", &text(&target.reason), &text(&target.message))
    }

    pub(super) fn new_condition(&self, kind: &str, reason: &str, message: &str) -> JobCondition {
        condition(kind, "True", reason, message, self.now)
    }

    /// Sets a condition; one that was never there does not become `False`. True if that changes something.
    pub(super) fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) -> bool {
        let new = condition(kind, status, reason, message, self.now);
        let conditions = self.status().conditions.get_or_insert_default();
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) => {
                let same = (&known.status, &known.reason, &known.message) == (&new.status, &new.reason, &new.message);
                if !same {
                    *known = new;
                }
                !same
            }
            None if status == "False" => false,
            None => {
                conditions.push(new);
                true
            }
        }
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: some(reason),
        message: some(message),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Counters that are zero are left out.
pub fn non_zero(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}
