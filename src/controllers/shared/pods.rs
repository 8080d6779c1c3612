//! What controllers ask of a pod.

use std::cmp::Reverse;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleted(pod)
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Restarts of all containers together.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// The same of the init containers.
pub fn init_restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// Being deleted and not finished yet.
pub fn is_terminating(pod: &Pod) -> bool {
    is_deleted(pod) && !is_finished(pod)
}

/// Orders pods by what their loss costs, the cheapest first: not assigned, Pending, Unknown, not ready, ready for a
/// shorter time, restarted more often, younger.
pub fn usefulness(pod: &Pod) -> impl Ord + use<> {
    let phase = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        node_name(pod).is_some(),
        phase,
        is_ready(pod),
        Reverse(ready_since(pod)),
        Reverse(restarts(pod)),
        Reverse(created),
    )
}

pub fn has_finalizer(pod: &Pod, finalizer: &str) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|one| one == finalizer)
}

pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// How long from `now` until the pod has been ready for `min_ready_s`; `None` if it is not ready.
pub fn available_in(pod: &Pod, min_ready_s: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    let Some(wanted) = u64::try_from(min_ready_s).ok().filter(|seconds| *seconds > 0) else {
        return Some(Duration::ZERO);
    };
    // Ready since nobody knows when: since now.
    let elapsed = ready_since(pod)
        .map_or(Duration::ZERO, |since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
    Some(Duration::from_secs(wanted).saturating_sub(elapsed))
}
