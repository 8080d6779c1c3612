//! Selectors that name a label and leave its value to the pod (KEP-3633, KEP-3243): when the pod is made, its value
//! becomes part of the selector, so that the scheduler needs to know nothing of it.

use serde_json::{Map, Value, json};

use crate::fields::Fields;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn apply(pod: &mut Value) {
    let Some(labels) = pod.part("metadata").map("labels").cloned() else { return };
    let Some(spec) = pod.at_mut("spec") else { return };
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.at_mut("affinity").and_then(|affinity| affinity.at_mut(name)) else { continue };
        for term in affinity.list_mut(PREFERRED) {
            if let Some(term) = term.at_mut("podAffinityTerm") {
                merge(term, &labels);
            }
        }
        affinity.list_mut(REQUIRED).iter_mut().for_each(|term| merge(term, &labels));
    }
    spec.list_mut("topologySpreadConstraints").iter_mut().for_each(|constraint| merge(constraint, &labels));
}

/// Without a selector nothing is selected, and that stays so.
fn merge(holder: &mut Value, labels: &Map<String, Value>) {
    if !holder.has("labelSelector") {
        return;
    }
    let mut merged = Vec::new();
    for (name, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in holder.list(name).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                merged.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if merged.is_empty() {
        return;
    }
    if let Some(selector) = holder.at_mut("labelSelector") {
        let mut all = selector.list("matchExpressions").to_vec();
        all.extend(merged);
        selector.set("matchExpressions", all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_a_pod_become_part_of_its_selectors() {
        let expression =
            |key: &str, operator: &str, value: &str| json!({"key": key, "operator": operator, "values": [value]});
        let term = json!({
            "labelSelector": {"matchExpressions": [expression("tier", "In", "web")]},
            "matchLabelKeys": ["hash", "missing"], "mismatchLabelKeys": ["tenant"],
        });
        let mut pod = json!({
            "metadata": {"labels": {"hash": "1", "tenant": "a"}},
            "spec": {
                "affinity": {"podAntiAffinity": {
                    REQUIRED: [term], PREFERRED: [{"weight": 1, "podAffinityTerm": term}, {"podAffinityTerm": {"matchLabelKeys": ["hash"]}}],
                }},
                "topologySpreadConstraints": [{"labelSelector": {}, "matchLabelKeys": ["hash"]}],
            },
        });
        apply(&mut pod);
        let merged =
            json!([expression("tier", "In", "web"), expression("hash", "In", "1"), expression("tenant", "NotIn", "a")]);
        let affinity = &pod["spec"]["affinity"]["podAntiAffinity"];
        assert_eq!(affinity[REQUIRED][0]["labelSelector"]["matchExpressions"], merged);
        assert_eq!(affinity[PREFERRED][0]["podAffinityTerm"]["labelSelector"]["matchExpressions"], merged);
        assert_eq!(affinity[PREFERRED][1]["podAffinityTerm"], json!({"matchLabelKeys": ["hash"]}));
        let spread = &pod["spec"]["topologySpreadConstraints"][0]["labelSelector"];
        assert_eq!(*spread, json!({"matchExpressions": [expression("hash", "In", "1")]}));
    }
}
