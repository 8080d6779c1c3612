//! The pods of a Job: how they are made, and what their annotations say.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::policy::{self, Verdict};
use crate::shared::pod_control::pod_of;
use crate::shared::pods;

/// Holds a pod until the Job's status has counted it (KEP-2307).
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
const COMPLETION_INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// The longest prefix that a generated name keeps.
const NAME_PREFIX_BYTES_MAX: usize = 58;

pub fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

/// A pod of the Job, without an index.
pub fn plain(job: &Job) -> Option<Pod> {
    let mut pod = pod_of(job, &job.spec.as_ref()?.template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|one| one == TRACKING_FINALIZER) {
        finalizers.push(TRACKING_FINALIZER.to_owned());
    }
    Some(pod)
}

/// A pod of the Job for a completion index. Where failures are counted per index, it carries on the counts of the pod
/// that it `replaces`.
pub fn indexed(job: &Job, index: i32, replaces: Option<&Pod>) -> Option<Pod> {
    let mut pod = plain(job)?;
    let name = job.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.generate_name = Some(name_prefix(name, index));
    pod.metadata.labels.get_or_insert_default().insert(COMPLETION_INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    let job_spec = job.spec.as_ref()?;
    if job_spec.backoff_limit_per_index.is_some() {
        let (mut failures, mut ignored) = (0, 0);
        if let Some(replaced) = replaces {
            (failures, ignored) = (index_failures(replaced), ignored_index_failures(replaced));
            match policy::verdict(job_spec.pod_failure_policy.as_ref(), replaced) {
                Verdict::Ignored => ignored += 1,
                _ => failures += 1,
            }
        }
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(tell_index);
    Some(pod)
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|one| one.name == COMPLETION_INDEX_ENV) {
        return;
    }
    let field_path = format!("metadata.labels['{COMPLETION_INDEX}']");
    env.push(EnvVar {
        name: COMPLETION_INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path, ..ObjectFieldSelector::default() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

/// Shortened before the index, so that the index is always in the name.
fn name_prefix(name: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let kept = NAME_PREFIX_BYTES_MAX.saturating_sub(end.len()).min(name.len());
    format!("{}{end}", name.get(..kept).unwrap_or(name))
}

/// The pod's completion index, if it has one that is a number.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pods::annotation(pod, COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// How often pods of its index had failed when the pod was made.
pub fn index_failures(pod: &Pod) -> i32 {
    count(pod, INDEX_FAILURES)
}

/// The same, with those that the policy ignores.
pub fn all_index_failures(pod: &Pod) -> i32 {
    index_failures(pod).saturating_add(ignored_index_failures(pod))
}

fn ignored_index_failures(pod: &Pod) -> i32 {
    count(pod, INDEX_IGNORED_FAILURES)
}

fn count(pod: &Pod, annotation: &str) -> i32 {
    // One less than could be, so that one more is still a number.
    let count = pods::annotation(pod, annotation).and_then(|count| count.parse().ok());
    count.filter(|count| (0..i32::MAX).contains(count)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(spec: serde_json::Value) -> Job {
        let mut base = json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "containers": [{"name": "c"}, {"name": "d", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "own"}]}]}}});
        base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "pi", "namespace": "n", "uid": "j"}, "spec": base})).unwrap()
    }

    #[test]
    fn an_indexed_pod_knows_its_index() {
        let pod = indexed(&job(json!({"completionMode": "Indexed"})), 3, None).unwrap();
        let got = serde_json::to_value(&pod).unwrap();
        let wanted = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "generateName": "pi-3-", "namespace": "n", "finalizers": [TRACKING_FINALIZER],
                "labels": {"a": "b", COMPLETION_INDEX: "3"}, "annotations": {COMPLETION_INDEX: "3"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "pi", "uid": "j",
                                     "controller": true, "blockOwnerDeletion": true}],
            },
            "spec": {"hostname": "pi-3", "containers": [
                {"name": "c", "env": [{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {
                    "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}}]},
                {"name": "d", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "own"}]},
            ]},
        });
        assert_eq!(got, wanted);
        assert_eq!(index_of(&pod), Some(3));
    }

    #[test]
    fn failures_of_an_index_are_carried_on() {
        let job = job(json!({"backoffLimitPerIndex": 2, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}}));
        let first = indexed(&job, 0, None).unwrap();
        assert_eq!((index_failures(&first), all_index_failures(&first)), (0, 0));
        let second = indexed(&job, 0, Some(&first)).unwrap();
        assert_eq!((index_failures(&second), all_index_failures(&second)), (1, 1));
        let mut disrupted = second;
        disrupted.status =
            serde_json::from_value(json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]})).unwrap();
        let third = indexed(&job, 0, Some(&disrupted)).unwrap();
        assert_eq!((index_failures(&third), all_index_failures(&third)), (1, 2));
    }

    #[test]
    fn a_long_name_keeps_its_index() {
        let prefix = name_prefix(&"x".repeat(63), 1234);
        assert!(prefix.len() == NAME_PREFIX_BYTES_MAX && prefix.ends_with("x-1234-"), "{prefix}");
    }
}
