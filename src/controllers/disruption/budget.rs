//! How many pods may be disrupted under a PodDisruptionBudget. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::int_or_string::{NotAPercentage, scaled_of};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use crate::shared::pods;

/// A pod that was evicted is not counted for so long; if it is still there then, its eviction has failed.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// How many pods there should be, and how many of them healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub expected: i32,
    pub healthy: i32,
}

/// Whether the sizes of the pods' controllers have to be known.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// `pods` is how many are selected, `scale` how many their controllers want together.
pub fn wanted(budget: &PodDisruptionBudget, pods: usize, scale: i32) -> Result<Wanted, NotAPercentage> {
    let Some(spec) = &budget.spec else { return Ok(Wanted { expected: 0, healthy: 0 }) };
    let share = |value: &IntOrString| -> Result<i32, NotAPercentage> {
        Ok(i32::try_from(scaled_of(value, i64::from(scale), true)?).unwrap_or(i32::MAX))
    };
    Ok(match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => Wanted { expected: scale, healthy: scale.saturating_sub(share(most)?).max(0) },
        (None, Some(IntOrString::Int(least))) => {
            Wanted { expected: i32::try_from(pods).unwrap_or(i32::MAX), healthy: *least }
        }
        (None, Some(least)) => Wanted { expected: scale, healthy: share(least)? },
        (None, None) => Wanted { expected: 0, healthy: 0 },
    })
}

/// What a budget comes to.
pub struct Outcome {
    pub status: PodDisruptionBudgetStatus,
    /// Evicted pods that are still there.
    pub not_deleted: Vec<Arc<Pod>>,
    /// When an eviction will have failed.
    pub again: Option<Duration>,
}

pub fn outcome(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], wanted: Wanted, now: Timestamp) -> Outcome {
    let before = budget.status.clone().unwrap_or_default();
    let evicted = before.disrupted_pods.unwrap_or_default();
    let (mut disrupted, mut not_deleted, mut healthy) = (BTreeMap::new(), Vec::new(), 0);
    let mut again: Option<Duration> = None;
    for pod in pods.iter().filter(|pod| !pods::is_deleted(pod)) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if let Some(at) = evicted.get(name) {
            let left = at.0.checked_add(DELETION_TIMEOUT).map(|end| end.duration_since(now)).unwrap_or_default();
            match Duration::try_from(left) {
                Ok(left) if !left.is_zero() => {
                    disrupted.insert(name.to_owned(), at.clone());
                    again = again.into_iter().chain([left]).min();
                    continue;
                }
                _ => not_deleted.push(pod.clone()),
            }
        }
        healthy += i32::from(pods::is_ready(pod));
    }
    let allowed = if wanted.expected > 0 { healthy.saturating_sub(wanted.healthy).max(0) } else { 0 };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let generation = budget.metadata.generation;
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted.healthy),
        expected_pods: Some(wanted.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: generation,
        conditions: Some(with_condition(before.conditions.unwrap_or_default(), status, reason, "", generation, now)),
    };
    Outcome { status, not_deleted, again }
}

/// The status while nothing can be said of the budget: nothing may be disrupted.
pub fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let before = budget.status.clone().unwrap_or_default();
    let conditions = before.conditions.clone().unwrap_or_default();
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        conditions: Some(with_condition(conditions, "False", "SyncFailed", why, before.observed_generation, now)),
        ..before
    }
}

fn with_condition(
    mut conditions: Vec<Condition>,
    status: &str,
    reason: &str,
    message: &str,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let known = conditions.iter().find(|one| one.type_ == DISRUPTION_ALLOWED);
    let since = known.filter(|one| one.status == status);
    let condition = Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: since.map_or(Time(now), |one| one.last_transition_time.clone()),
    };
    match conditions.iter_mut().find(|one| one.type_ == DISRUPTION_ALLOWED) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    conditions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn budget(spec: Value, disrupted: Value) -> PodDisruptionBudget {
        let status = json!({"disruptedPods": disrupted});
        serde_json::from_value(json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status}))
            .unwrap()
    }

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let pod = |(number, ready): (usize, bool)| {
            let status = if ready { "True" } else { "False" };
            let pod = json!({"metadata": {"name": format!("p{number}")}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        (0..ready + unready).map(|number| (number, number < ready)).map(pod).collect()
    }

    fn counts(spec: Value, ready: usize, unready: usize, scale: i32) -> [i32; 4] {
        let budget = budget(spec, json!({}));
        let pods = pods(ready, unready);
        let status = outcome(&budget, &pods, wanted(&budget, pods.len(), scale).unwrap(), Timestamp::UNIX_EPOCH).status;
        [status.expected_pods, status.current_healthy, status.desired_healthy, status.disruptions_allowed]
            .map(Option::unwrap)
    }

    #[test]
    fn budgets_are_reckoned_as_upstream_does() {
        assert_eq!(counts(json!({"minAvailable": 2}), 3, 1, 0), [4, 3, 2, 1]);
        assert_eq!(counts(json!({"minAvailable": "50%"}), 3, 0, 5), [5, 3, 3, 0]);
        assert_eq!(counts(json!({"maxUnavailable": 1}), 3, 0, 3), [3, 3, 2, 1]);
        assert_eq!(counts(json!({"maxUnavailable": "10%"}), 3, 0, 3), [3, 3, 2, 1], "rounded up");
        assert_eq!(counts(json!({"maxUnavailable": 5}), 1, 2, 3), [3, 1, 0, 1]);
        assert_eq!(counts(json!({"minAvailable": 0}), 0, 0, 0), [0, 0, 0, 0]);
        assert!(wanted(&budget(json!({"maxUnavailable": "x"}), json!({})), 1, 1).is_err());
    }

    #[test]
    fn an_evicted_pod_counts_again_when_it_does_not_go() {
        let budget =
            budget(json!({"minAvailable": 1}), json!({"p0": "1970-01-01T00:00:00Z", "gone": "1970-01-01T00:00:00Z"}));
        let wanted = wanted(&budget, 2, 0).unwrap();
        let look = |second| outcome(&budget, &pods(2, 0), wanted, Timestamp::from_second(second).unwrap());
        let early = look(20);
        assert_eq!((early.status.disruptions_allowed, early.again), (Some(0), Some(Duration::from_secs(100))));
        assert_eq!(early.status.disrupted_pods.unwrap().len(), 1);
        let late = look(120);
        assert_eq!((late.status.disruptions_allowed, late.again, late.not_deleted.len()), (Some(1), None, 1));
        assert_eq!(late.status.disrupted_pods, None);
    }

    #[test]
    fn the_condition_says_whether_and_since_when() {
        let mut budget = budget(json!({"minAvailable": 1}), json!({}));
        let wanted = wanted(&budget, 2, 0).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        for (ready, second, expected) in [
            (2, 5, ("True", "SufficientPods", 5)),
            (2, 6, ("True", "SufficientPods", 5)),
            (1, 7, ("False", "InsufficientPods", 7)),
        ] {
            budget.status = Some(outcome(&budget, &pods(ready, 2 - ready), wanted, at(second)).status);
            let one = &budget.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
            let got = (one.status.as_str(), one.reason.as_str(), one.last_transition_time.0.as_second());
            assert_eq!((got, one.observed_generation), (expected, Some(2)));
        }
        let failed = failed(&budget, "found no controllers for pod \"p0\"", at(9));
        let one = &failed.conditions.unwrap()[0];
        assert_eq!((one.reason.as_str(), one.message.as_str()), ("SyncFailed", "found no controllers for pod \"p0\""));
        assert_eq!((failed.disruptions_allowed, failed.current_healthy), (Some(0), Some(1)));
    }

    proptest! {
        /// However many are allowed to go: if they go, enough healthy ones are left.
        #[test]
        fn what_is_allowed_leaves_enough(ready in 0..20_usize, unready in 0..5_usize, percent in 0..100, scale in 0..25) {
            for spec in [json!({"minAvailable": format!("{percent}%")}), json!({"maxUnavailable": format!("{percent}%")})] {
                let [_, healthy, desired, allowed] = counts(spec, ready, unready, scale);
                prop_assert!(allowed >= 0 && (allowed == 0 || healthy - allowed >= desired));
            }
        }
    }
}
