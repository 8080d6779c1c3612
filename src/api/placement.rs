//! Whether a pod may be on a node: tolerations, node selectors and node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

/// True if the toleration bears the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let matches_effect = effect.is_empty() || effect == taint.effect;
    let exists = toleration.operator.as_deref() == Some("Exists");
    let matches_key = key == taint.key || (key.is_empty() && exists);
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    matches_effect && matches_key && (exists || value(&toleration.value) == value(&taint.value))
}

/// True if the pod's `nodeSelector` and required node affinity agree to a node with this name and these labels.
pub fn selects_node<'a>(spec: &PodSpec, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let selector = spec.node_selector.iter().flatten();
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
    selector.into_iter().all(|(key, value)| label(key) == Some(value))
        && required.is_none_or(|one| one.node_selector_terms.iter().any(|term| term_matches(term, name, &label)))
}

/// True if the term holds for a node. A term without requirements matches nothing.
pub fn term_matches<'a>(term: &NodeSelectorTerm, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|requirement| holds(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| requirement.key == "metadata.name" && holds(requirement, Some(name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let numbers = || value.and_then(number).zip(values.first().and_then(|value| number(value)));
    match (requirement.operator.as_str(), value) {
        ("In", Some(value)) => values.iter().any(|one| one == value),
        ("NotIn", Some(value)) => !values.iter().any(|one| one == value),
        ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
        ("Gt", _) => numbers().is_some_and(|(ours, theirs)| ours > theirs),
        ("Lt", _) => numbers().is_some_and(|(ours, theirs)| ours < theirs),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_toleration_bears_what_it_names() {
        let tolerates = |toleration: Value| {
            let taint = serde_json::from_value(json!({"key": "a", "value": "b", "effect": "NoExecute"})).unwrap();
            tolerates(&serde_json::from_value(toleration).unwrap(), &taint)
        };
        assert!(tolerates(json!({"key": "a", "value": "b"})));
        assert!(tolerates(json!({"key": "a", "operator": "Exists", "effect": "NoExecute"})));
        assert!(tolerates(json!({"operator": "Exists"})));
        assert!(!tolerates(json!({"key": "a", "value": "c"})));
        assert!(!tolerates(json!({"operator": "Exists", "effect": "NoSchedule"})));
        assert!(!tolerates(json!({})), "an empty key needs Exists");
    }

    #[test]
    fn a_node_is_selected_by_labels_and_by_name() {
        let selects = |spec: Value| {
            let mut whole = json!({"containers": []});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let label =
                |key: &str| [("zone", "x"), ("cores", "8")].into_iter().find(|(one, _)| *one == key).map(|(_, v)| v);
            selects_node(&serde_json::from_value(whole).unwrap(), "n1", label)
        };
        let term = |term: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [term]}}}})
        };
        let label = |operator: &str, key: &str, value: &str| {
            term(json!({"matchExpressions": [{"key": key, "operator": operator, "values": [value]}]}))
        };
        let name =
            |name: &str| term(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}));
        assert!(selects(json!({})) && selects(json!({"nodeSelector": {"zone": "x"}})));
        assert!(!selects(json!({"nodeSelector": {"zone": "y"}})));
        assert!(selects(name("n1")) && !selects(name("n2")));
        assert!(selects(label("Gt", "cores", "4")) && !selects(label("Lt", "cores", "4")));
        assert!(
            !selects(label("Gt", "zone", "4")) && !selects(label("Gt", "cores", "x")),
            "what is no number is not compared"
        );
        assert!(selects(label("NotIn", "disk", "x")) && !selects(term(json!({}))));
    }
}
