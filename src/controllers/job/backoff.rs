//! How long a Job waits after pods failed before it makes new ones.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;

use crate::shared::pods;

const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Failures in a row, over a whole Job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: i32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// With pods that have finished since: a success begins anew, and only failures after the last success count.
    pub fn after(self, succeeded: &[Timestamp], failed: &[Timestamp]) -> Backoff {
        let last_success = succeeded.iter().max();
        let counted = failed.iter().filter(|at| last_success.is_none_or(|success| *at > success));
        let (new, last) = counted.fold((0, None), |(count, last), at| (count + 1, last.max(Some(*at))));
        match (last_success, last) {
            (Some(_), last) => Backoff { failures: new, last },
            (None, None) => self,
            (None, last) => Backoff { failures: self.failures.saturating_add(new), last },
        }
    }

    /// How long to wait from `now` on; zero if not at all.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// The same for one index, of which `last` failed last, after `failures` before it.
pub fn remaining_of_index(failures: i32, last: &Pod, now: Timestamp) -> Duration {
    remaining(failures.saturating_add(1), finished_at(last), now)
}

fn remaining(failures: i32, last: Timestamp, now: Timestamp) -> Duration {
    if failures <= 0 {
        return Duration::ZERO;
    }
    let doubled = u32::try_from(failures - 1).ok().and_then(|times| 1_u32.checked_shl(times)).unwrap_or(u32::MAX);
    let pause = PAUSE_MIN.saturating_mul(doubled.max(1)).min(PAUSE_MAX);
    match Duration::try_from(now.duration_since(last)) {
        Ok(elapsed) => pause.saturating_sub(elapsed),
        // It failed in the future of our clock.
        Err(_) => pause,
    }
}

/// When a pod finished: as its containers say, else since when it is not ready, else when it was asked to end, else when
/// it was created.
pub fn finished_at(pod: &Pod) -> Timestamp {
    by_containers(pod)
        .or_else(|| {
            let condition = pods::condition(pod, "Ready").filter(|condition| condition.status == "False")?;
            condition.last_transition_time.as_ref().map(|time| time.0)
        })
        .or_else(|| {
            let grace_s = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
            let deleted = pod.metadata.deletion_timestamp.as_ref()?.0;
            Some(deleted.checked_sub(Duration::from_secs(u64::try_from(grace_s).unwrap_or(0))).unwrap_or(deleted))
        })
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The end of the last container, if all have ended; sidecars end after the others.
fn by_containers(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    let sidecar = |status: &&ContainerStatus| {
        let mut sidecars = init.into_iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
        sidecars.any(|one| one.name == status.name)
    };
    let sidecars = status.init_container_statuses.iter().flatten().filter(sidecar);
    let ends = status.container_statuses.iter().flatten().chain(sidecars).map(|status| {
        let terminated = status.state.as_ref()?.terminated.as_ref()?;
        terminated.finished_at.as_ref().map(|time| time.0)
    });
    ends.collect::<Option<Vec<Timestamp>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn pauses_double_until_a_success() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.remaining(at(0)), Duration::ZERO);
        let mut pauses = Vec::new();
        for second in 1..=8 {
            backoff = backoff.after(&[], &[at(second)]);
            pauses.push(backoff.remaining(at(second)).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(backoff.remaining(at(108)).as_secs(), 500);
        assert_eq!(backoff.after(&[], &[]), backoff);
        let once = backoff.after(&[at(20)], &[at(19), at(21)]);
        assert_eq!(once.remaining(at(21)).as_secs(), 10, "only what failed after the success");
        assert_eq!(backoff.after(&[at(20)], &[at(20)]), Backoff::default());
    }

    #[test]
    fn a_pod_finished_when_its_last_container_did() {
        let container = |name: &str, end: Option<&str>| {
            let state =
                end.map_or(json!({"running": {}}), |end| json!({"terminated": {"exitCode": 1, "finishedAt": end}}));
            json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
        };
        let pod = |sidecar| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": [], "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}]},
                "status": {"containerStatuses": [container("a", Some("2026-01-01T00:00:10Z"))],
                           "initContainerStatuses": [container("init", Some("2026-01-01T00:01:00Z")), container("side", sidecar)],
                           "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:12Z"}]},
            }))
            .unwrap()
        };
        assert_eq!(finished_at(&pod(Some("2026-01-01T00:00:11Z"))).to_string(), "2026-01-01T00:00:11Z");
        assert_eq!(finished_at(&pod(None)).to_string(), "2026-01-01T00:00:12Z");
        assert_eq!(finished_at(&Pod { status: None, ..pod(None) }).to_string(), "2026-01-01T00:00:00Z");
    }
}
