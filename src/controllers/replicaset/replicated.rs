//! What differs between the kinds that keep a number of pods. Upstream runs ReplicationControllers as ReplicaSets of an
//! older version; so the terms here are those of ReplicaSets.

use api::LabelSelector;
use client::Object;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

use crate::shared::select;

/// A set of equal pods, and how many there should be.
pub trait Replicated: Object + Clone {
    /// The controller's name, as its work queue has it.
    const NAME: &'static str;
    /// Who Events are from.
    const COMPONENT: &'static str;

    fn selector(&self) -> LabelSelector;
    fn replicas(&self) -> i32;
    fn min_ready_s(&self) -> i32;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn status(&self) -> ReplicaSetStatus;
    /// The set with this status, if that is another than it has.
    fn with_status(&self, status: ReplicaSetStatus) -> Option<Self>;
}

impl Replicated for ReplicaSet {
    const NAME: &'static str = "replicaset";
    const COMPONENT: &'static str = "replicaset-controller";

    fn selector(&self) -> LabelSelector {
        self.spec.as_ref().map_or_else(LabelSelector::nothing, |spec| select::compiled(&spec.selector))
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_s(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Option<ReplicaSet> {
        (self.status.as_ref() != Some(&status)).then(|| ReplicaSet { status: Some(status), ..self.clone() })
    }
}

impl Replicated for ReplicationController {
    const NAME: &'static str = "replicationcontroller";
    const COMPONENT: &'static str = "replication-controller";

    fn selector(&self) -> LabelSelector {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|labels| !labels.is_empty());
        labels.map_or_else(LabelSelector::nothing, |labels| {
            LabelSelector::from_labels(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        })
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_s(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> ReplicaSetStatus {
        let known = self.status.clone().unwrap_or_default();
        let conditions = known.conditions.map(|conditions| conditions.into_iter().map(from_old).collect());
        ReplicaSetStatus {
            replicas: known.replicas,
            fully_labeled_replicas: known.fully_labeled_replicas,
            ready_replicas: known.ready_replicas,
            available_replicas: known.available_replicas,
            observed_generation: known.observed_generation,
            conditions,
            terminating_replicas: None,
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Option<ReplicationController> {
        let conditions = status.conditions.map(|conditions| conditions.into_iter().map(to_old).collect());
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions,
        };
        (self.status.as_ref() != Some(&status)).then(|| ReplicationController { status: Some(status), ..self.clone() })
    }
}

fn from_old(condition: ReplicationControllerCondition) -> ReplicaSetCondition {
    let ReplicationControllerCondition { last_transition_time, message, reason, status, type_ } = condition;
    ReplicaSetCondition { last_transition_time, message, reason, status, type_ }
}

fn to_old(condition: ReplicaSetCondition) -> ReplicationControllerCondition {
    let ReplicaSetCondition { last_transition_time, message, reason, status, type_ } = condition;
    ReplicationControllerCondition { last_transition_time, message, reason, status, type_ }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn controller(value: serde_json::Value) -> ReplicationController {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_replication_controller_selects_by_equality_and_nothing_without_a_selector() {
        let labels = |value: &str| BTreeMap::from([("app".to_owned(), value.to_owned())]);
        let some = controller(json!({"spec": {"selector": {"app": "web"}}})).selector();
        assert!(some.matches_labels(Some(&labels("web"))) && !some.matches_labels(Some(&labels("db"))));
        let none = controller(json!({"spec": {"selector": {}}})).selector();
        assert!(!none.matches_labels(Some(&labels("web"))) && !none.matches_labels(None));
    }

    #[test]
    fn a_status_is_written_when_it_is_another() {
        let status = json!({"replicas": 2, "readyReplicas": 1, "observedGeneration": 3, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]});
        let known = controller(json!({"spec": {}, "status": status}));
        assert_eq!(known.with_status(Replicated::status(&known)), None);
        let changed = known.with_status(ReplicaSetStatus { replicas: 3, ..Replicated::status(&known) }).unwrap();
        let mut wanted = known.status.unwrap();
        wanted.replicas = 3;
        assert_eq!(changed.status, Some(wanted));
    }
}
