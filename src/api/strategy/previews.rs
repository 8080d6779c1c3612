//! Peculiarities of kinds that have no stable version yet.

use serde_json::Value;

use super::clear_status;
use super::kinds::strict_status_update;
use crate::fields::Fields;

/// Fields of groups of pods that upstream has behind features which are off by default
/// (TopologyAwareWorkloadScheduling, DRAWorkloadResourceClaims, WorkloadAwarePreemption).
const BEHIND_FEATURES: [&str; 4] = ["schedulingConstraints", "resourceClaims", "priorityClassName", "priority"];

pub fn pod_group_create(object: &mut Value) {
    clear_status(object);
    group(object);
}

pub fn pod_group_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    strict_status_update(object, old, subresource);
    group(object);
    if let Some(status) = object.at_mut("status") {
        status.unset("resourceClaimStatuses");
    }
}

fn group(object: &mut Value) {
    if let Some(spec) = object.at_mut("spec") {
        BEHIND_FEATURES.into_iter().for_each(|name| spec.unset(name));
        // Taken out as well, and put back by the defaults whenever the object is read.
        spec.set("disruptionMode", "Pod");
    }
}

pub fn workload(object: &mut Value) {
    let Some(spec) = object.at_mut("spec") else { return };
    for template in spec.list_mut("podGroupTemplates") {
        BEHIND_FEATURES.into_iter().for_each(|name| template.unset(name));
        template.unset("disruptionMode");
    }
}

pub fn workload_update(object: &mut Value, _old: &Value, _subresource: Option<&str>) {
    workload(object);
}

/// A question that nobody has answered yet.
pub fn unanswered(object: &mut Value) {
    object.unset("status");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_behind_features_is_taken_out() {
        let mut group = json!({"spec": {"schedulingPolicy": {"basic": {}}, "priority": 7, "disruptionMode": "PodGroup"},
            "status": {"conditions": [{}]}});
        pod_group_create(&mut group);
        let spec = json!({"schedulingPolicy": {"basic": {}}, "disruptionMode": "Pod"});
        assert_eq!(group, json!({"spec": spec, "status": {}}));
        let mut all = json!({"spec": {"podGroupTemplates": [{"name": "a", "priority": 7, "disruptionMode": "Pod"}]}});
        workload(&mut all);
        assert_eq!(all, json!({"spec": {"podGroupTemplates": [{"name": "a"}]}}));
    }
}
