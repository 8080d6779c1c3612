//! What a Job's policies make of pods that failed (KEP-3329) and of indexes that succeeded (KEP-3998).

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;

/// How a failed pod is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As any other failure.
    Counts,
    /// As if it had not been.
    Ignored,
    /// Its index fails at once.
    FailsIndex,
    /// The Job fails at once, for this reason.
    FailsJob(String),
}

/// The first rule that matches decides.
pub fn verdict(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map_or(&[][..], |policy| &policy.rules);
    for (index, rule) in rules.iter().enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignored,
            "FailIndex" => return Verdict::FailsIndex,
            "FailJob" => {
                return Verdict::FailsJob(format!("{what} matching {} rule at index {index}", rule.action));
            }
            "Count" => return Verdict::Counts,
            // An action that is newer than we are decides nothing.
            _ => {}
        }
    }
    Verdict::Counts
}

/// What of the pod the rule matches, in the words of the condition's message.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let meta = &pod.metadata;
    let name =
        format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    if let Some(wanted) = &rule.on_exit_codes {
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let (container, code) = statuses.filter_map(|status| exit(status, wanted)).next()?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let condition = status.conditions.iter().flatten().find(|condition| {
        let same = |status: Option<&str>| status.unwrap_or("True") == condition.status;
        patterns.iter().any(|pattern| pattern.type_ == condition.type_ && same(pattern.status.as_deref()))
    })?;
    Some(format!("Pod {name} has condition {}", condition.type_))
}

fn exit<'a>(status: &'a ContainerStatus, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = wanted.container_name.as_ref().is_none_or(|name| *name == status.name);
    let matches = match wanted.operator.as_str() {
        "In" => wanted.values.contains(&code),
        "NotIn" => !wanted.values.contains(&code),
        _ => false,
    };
    (code != 0 && named && matches).then_some((status.name.as_str(), code))
}

/// Why the Job has succeeded, if a rule of its policy says so.
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let met = policy?.rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(text), count) => {
            let wanted = Indexes::parse(text, completions);
            let reached = wanted.overlap(succeeded);
            !wanted.is_empty() && (reached == wanted.len() || count.is_some_and(|count| reached >= count))
        }
        (None, Some(count)) => succeeded.len() >= count,
        (None, None) => false,
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(code: i32, condition: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "p"},
            "status": {"conditions": [{"type": condition, "status": "True"}],
                       "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                                              "state": {"terminated": {"exitCode": code}}}]},
        }))
        .unwrap()
    }

    fn policy() -> PodFailurePolicy {
        serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Tomorrow", "onExitCodes": {"operator": "In", "values": [1, 42]}},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
            {"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue"}]},
        ]}))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let verdict = |code, condition| verdict(Some(&policy()), &pod(code, condition));
        assert_eq!(verdict(42, "DisruptionTarget"), Verdict::Ignored);
        let message = "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 2";
        assert_eq!(verdict(42, "Ready"), Verdict::FailsJob(message.into()));
        assert_eq!(verdict(3, "Ready"), Verdict::FailsIndex);
        assert_eq!(verdict(1, "Ready"), Verdict::Counts);
        assert_eq!(verdict(0, "Ready"), Verdict::Counts, "what ended well failed by no code");
        let message = "Pod n/p has condition ConfigIssue matching FailJob rule at index 4";
        assert_eq!(verdict(1, "ConfigIssue"), Verdict::FailsJob(message.into()));
        assert_eq!(super::verdict(None, &pod(42, "Ready")), Verdict::Counts);
    }

    #[test]
    fn a_job_succeeds_by_its_indexes_or_by_their_number() {
        let policy: SuccessPolicy = serde_json::from_value(json!({"rules": [
            {"succeededIndexes": "0-2", "succeededCount": 2}, {"succeededIndexes": "5"}, {"succeededCount": 4},
        ]}))
        .unwrap();
        let success = |indexes: &[i32]| success(Some(&policy), 10, &Indexes::of(indexes.iter().copied()));
        assert_eq!(success(&[]), None);
        assert_eq!(success(&[0, 3]), None);
        assert_eq!(success(&[0, 2]).as_deref(), Some("Matched rules at index 0"));
        assert_eq!(success(&[5]).as_deref(), Some("Matched rules at index 1"));
        assert_eq!(success(&[6, 7, 8, 9]).as_deref(), Some("Matched rules at index 2"));
    }
}
