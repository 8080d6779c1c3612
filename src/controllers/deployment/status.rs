//! What a Deployment's status says of its ReplicaSets. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{replicas, strategy, wanted};

/// The status, and when it will change by time alone: at the progress deadline.
pub fn of(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[&ReplicaSet],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = deployment.status.clone().unwrap_or_default();
    let all = || old.iter().copied().chain(new);
    let sum = |number: &dyn Fn(&ReplicaSetStatus) -> Option<i32>| -> i32 {
        all().filter_map(|set| set.status.as_ref().and_then(number)).sum()
    };
    let some = |number: i32| (number != 0).then_some(number);
    let available = sum(&|status| status.available_replicas);
    let asked: i32 = all().map(replicas).sum();
    let mut status = DeploymentStatus {
        replicas: some(sum(&|status| Some(status.replicas))),
        updated_replicas: some(new.and_then(|new| new.status.as_ref()).map_or(0, |status| status.replicas)),
        ready_replicas: some(sum(&|status| status.ready_replicas)),
        available_replicas: some(available),
        unavailable_replicas: some((asked - available).max(0)),
        observed_generation: deployment.metadata.generation,
        collision_count: before.collision_count,
        terminating_replicas: before.terminating_replicas,
        conditions: before.conditions.clone(),
    };
    let wanted = wanted(deployment);
    if available >= strategy(deployment).fewest(wanted) {
        set(&mut status, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now);
    } else {
        let text = "Deployment does not have minimum availability.";
        set(&mut status, "Available", "False", "MinimumReplicasUnavailable", text, now);
    }
    let failure = all()
        .filter_map(|set| set.status.as_ref()?.conditions.as_ref()?.iter().find(|one| one.type_ == "ReplicaFailure"))
        .next()
        .cloned();
    match failure {
        Some(failure) => {
            let reason = failure.reason.unwrap_or_default();
            set(&mut status, "ReplicaFailure", &failure.status, &reason, &failure.message.unwrap_or_default(), now);
        }
        None => status.conditions.get_or_insert_default().retain(|one| one.type_ != "ReplicaFailure"),
    }
    let again = progress(deployment, new, &before, &mut status, wanted, now);
    (status, again)
}

/// The Progressing condition: complete, progressing, or past the deadline.
fn progress(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    wanted: i32,
    now: Timestamp,
) -> Option<Duration> {
    let spec = deployment.spec.as_ref()?;
    let deadline_s = spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    let known = find(before, "Progressing").cloned();
    if spec.paused == Some(true) {
        set(status, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now);
        return None;
    }
    let new = new?;
    let name = new.metadata.name.as_deref().unwrap_or_default();
    let number = |number: Option<i32>| number.unwrap_or(0);
    let complete = number(status.updated_replicas) == wanted
        && number(status.replicas) == wanted
        && number(status.available_replicas) == wanted
        && status.observed_generation >= deployment.metadata.generation;
    if complete {
        let text = format!("ReplicaSet {name:?} has successfully progressed.");
        set(status, "Progressing", "True", "NewReplicaSetAvailable", &text, now);
        return None;
    }
    let Some(known) = known else {
        let text = format!("Created new replica set {name:?}");
        set(status, "Progressing", "True", "NewReplicaSetCreated", &text, now);
        return Some(seconds(i64::from(deadline_s)));
    };
    let old_replicas = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    let moved = number(status.updated_replicas) > number(before.updated_replicas)
        || old_replicas(status) < old_replicas(before)
        || number(status.ready_replicas) > number(before.ready_replicas)
        || number(status.available_replicas) > number(before.available_replicas);
    let done_before = known.reason.as_deref() == Some("NewReplicaSetAvailable");
    let new_rollout = done_before && old_replicas(status) > 0;
    let resumed = known.reason.as_deref() == Some("DeploymentPaused");
    if moved || new_rollout || resumed {
        let text = format!("ReplicaSet {name:?} is progressing.");
        // The time of the last progress is what the deadline counts from.
        status.conditions.get_or_insert_default().retain(|one| one.type_ != "Progressing");
        set(status, "Progressing", "True", "ReplicaSetUpdated", &text, now);
        if let (Some(fresh), "True") = (find_mut(status, "Progressing"), known.status.as_str()) {
            fresh.last_transition_time = known.last_transition_time;
        }
        return Some(seconds(i64::from(deadline_s)));
    }
    // A rollout that was complete does not fail afterwards for a pod that goes away.
    if done_before || known.reason.as_deref() == Some("ProgressDeadlineExceeded") {
        return None;
    }
    let since = known.last_update_time.as_ref().map_or(now, |time| time.0);
    let left_s = since.as_second() + i64::from(deadline_s) - now.as_second();
    if left_s > 0 {
        return Some(seconds(left_s));
    }
    let text = format!("ReplicaSet {name:?} has timed out progressing.");
    set(status, "Progressing", "False", "ProgressDeadlineExceeded", &text, now);
    None
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn find_mut<'a>(status: &'a mut DeploymentStatus, kind: &str) -> Option<&'a mut DeploymentCondition> {
    status.conditions.as_mut()?.iter_mut().find(|condition| condition.type_ == kind)
}

/// Sets a condition; its times move only when what it says does.
fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let fresh = DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match find_mut(status, kind) {
        None => status.conditions.get_or_insert_default().push(fresh),
        Some(known) if known.status == value && known.reason.as_deref() == Some(reason) => {}
        Some(known) => {
            let since = known.last_transition_time.take().filter(|_| known.status == value);
            *known =
                DeploymentCondition { last_transition_time: since.or(fresh.last_transition_time.clone()), ..fresh };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn deployment(status: Option<DeploymentStatus>) -> Deployment {
        let mut deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 1},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 10, "selector": {}, "template": {}},
        }))
        .unwrap();
        deployment.status = status;
        deployment
    }

    fn set_of(available: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1"},
            "spec": {"replicas": 2, "selector": {}},
            "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available},
        }))
        .unwrap()
    }

    fn reason(status: &DeploymentStatus, kind: &str) -> String {
        find(status, kind).unwrap().reason.clone().unwrap()
    }

    #[test]
    fn a_rollout_progresses_completes_and_does_not_fail_later() {
        let (first, again) = of(&deployment(None), Some(&set_of(0)), &[], at(0));
        assert_eq!(reason(&first, "Progressing"), "NewReplicaSetCreated");
        assert_eq!(reason(&first, "Available"), "MinimumReplicasUnavailable");
        assert_eq!(again, Some(Duration::from_secs(10)));
        let (second, _) = of(&deployment(Some(first)), Some(&set_of(1)), &[], at(5));
        assert_eq!(reason(&second, "Progressing"), "ReplicaSetUpdated");
        let (third, again) = of(&deployment(Some(second)), Some(&set_of(2)), &[], at(8));
        assert_eq!((reason(&third, "Progressing").as_str(), again), ("NewReplicaSetAvailable", None));
        let (later, again) = of(&deployment(Some(third)), Some(&set_of(1)), &[], at(500));
        assert_eq!((reason(&later, "Progressing").as_str(), again), ("NewReplicaSetAvailable", None));
    }

    #[test]
    fn a_rollout_that_stands_still_passes_its_deadline_and_may_recover() {
        let (first, _) = of(&deployment(None), Some(&set_of(0)), &[], at(0));
        let (waiting, again) = of(&deployment(Some(first)), Some(&set_of(0)), &[], at(4));
        assert_eq!(again, Some(Duration::from_secs(6)));
        let (failed, _) = of(&deployment(Some(waiting)), Some(&set_of(0)), &[], at(10));
        assert_eq!(reason(&failed, "Progressing"), "ProgressDeadlineExceeded");
        assert_eq!(find(&failed, "Progressing").unwrap().status, "False");
        let (moved, _) = of(&deployment(Some(failed)), Some(&set_of(1)), &[], at(20));
        assert_eq!(reason(&moved, "Progressing"), "ReplicaSetUpdated");
    }
}
