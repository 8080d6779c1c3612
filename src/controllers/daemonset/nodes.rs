//! On which nodes a DaemonSet's pods run, and how a pod is tied to its node.

use api::placement;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::shared::pod_control::pod_of;
use crate::shared::pods;

/// The label of pods and revisions that says to which template they belong.
pub const HASH_LABEL: &str = "controller-revision-hash";
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";
const NODE_NAME_FIELD: &str = "metadata.name";
/// Taints that a DaemonSet's pods bear, with their effects: they are there for what is wrong with the node.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The same for pods in the node's own network.
const BORNE_BY_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suits {
    Yes,
    /// No pod begins there, but one that is there may stay.
    ToStay,
    No,
}

pub fn suits(set: &DaemonSet, node: &Node) -> Suits {
    let Some(spec) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return Suits::No };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let asked = spec.node_name.as_deref().filter(|asked| !asked.is_empty());
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    if asked.is_some_and(|asked| asked != name) || !placement::selects_node(spec, name, label) {
        return Suits::No;
    }
    let tolerations = tolerations(spec);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let unborne = |effect: &str| {
        let mut taints = taints.iter().filter(|taint| taint.effect == effect);
        taints.any(|taint| !tolerations.iter().any(|one| placement::tolerates(one, taint)))
    };
    if unborne("NoExecute") {
        Suits::No
    } else if unborne("NoSchedule") {
        Suits::ToStay
    } else {
        Suits::Yes
    }
}

/// The template's tolerations and those that all DaemonSets' pods have.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let host_network = (spec.host_network == Some(true)).then_some(BORNE_BY_HOST_NETWORK);
    for (key, effect) in BORNE.into_iter().chain(host_network) {
        let borne = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        // One for the same taint is replaced: it could end the pod's stay.
        let same = |one: &&mut Toleration| {
            (&one.key, &one.operator, &one.effect, &one.value)
                == (&borne.key, &borne.operator, &borne.effect, &borne.value)
        };
        match tolerations.iter_mut().find(same) {
            Some(known) => *known = borne,
            None => tolerations.push(borne),
        }
    }
    tolerations
}

/// A pod for a node, which the scheduler will bind to it.
pub fn pod_on(set: &DaemonSet, node: &str, hash: &str) -> Option<Pod> {
    let mut pod = pod_of(set, &set.spec.as_ref()?.template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let this = NodeSelectorRequirement {
        key: NODE_NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    // The labels were looked at here: the node's name is all that is left to ask for.
    let required = NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm { match_fields: Some(vec![this]), match_expressions: None }],
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(required);
    Some(pod)
}

/// The node that a pod is on or is meant for.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pods::node_name(pod).or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        let named = fields.find(|one| one.key == NODE_NAME_FIELD && one.operator == "In")?;
        match named.values.as_deref()? {
            [node] => Some(node),
            _ => None,
        }
    })
}

/// Whether a pod is of the present template.
pub fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let generation = generation(set);
    label(HASH_LABEL) == Some(hash) || (generation.is_some() && label(GENERATION_LABEL) == generation)
}

fn generation(set: &DaemonSet) -> Option<&str> {
    let generation = set.metadata.annotations.as_ref()?.get(GENERATION)?;
    generation.parse::<i64>().is_ok().then_some(generation)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(spec: Value) -> DaemonSet {
        let mut base = json!({"containers": []});
        base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "d", "annotations": {GENERATION: "2"}},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": base}},
        }))
        .unwrap()
    }

    fn suits_with(spec: Value, taints: Value) -> Suits {
        let node = json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}});
        suits(&set(spec), &serde_json::from_value(node).unwrap())
    }

    #[test]
    fn what_is_wrong_with_a_node_keeps_no_daemon_away() {
        let wrong = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
                           {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
        assert_eq!(suits_with(json!({}), wrong), Suits::Yes);
        let network = json!([{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]);
        assert_eq!(suits_with(json!({}), network.clone()), Suits::ToStay);
        assert_eq!(suits_with(json!({"hostNetwork": true}), network), Suits::Yes);
    }

    #[test]
    fn taints_and_labels_keep_daemons_away() {
        let taint = |effect: &str| json!([{"key": "own", "value": "x", "effect": effect}]);
        assert_eq!(suits_with(json!({}), taint("NoExecute")), Suits::No);
        assert_eq!(suits_with(json!({}), taint("NoSchedule")), Suits::ToStay);
        assert_eq!(suits_with(json!({}), taint("PreferNoSchedule")), Suits::Yes);
        assert_eq!(suits_with(json!({"tolerations": [{"key": "own", "value": "x"}]}), taint("NoExecute")), Suits::Yes);
        assert_eq!(suits_with(json!({"nodeSelector": {"disk": "hdd"}}), json!([])), Suits::No);
        assert_eq!(suits_with(json!({"nodeName": "n2"}), json!([])), Suits::No);
    }

    #[test]
    fn a_pod_is_tied_to_its_node() {
        let preferred = json!([{"weight": 1, "preference": {}}]);
        let spec = json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": preferred}}});
        let set = set(spec);
        let pod = pod_on(&set, "n1", "h").unwrap();
        let got = serde_json::to_value(&pod).unwrap();
        assert_eq!(got["metadata"]["labels"], json!({"a": "b", HASH_LABEL: "h", GENERATION_LABEL: "2"}));
        assert_eq!(got["metadata"]["generateName"], "d-");
        let affinity = &got["spec"]["affinity"]["nodeAffinity"];
        assert_eq!(affinity["preferredDuringSchedulingIgnoredDuringExecution"], preferred);
        assert_eq!(
            affinity["requiredDuringSchedulingIgnoredDuringExecution"],
            json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}),
        );
        assert_eq!(got["spec"]["tolerations"].as_array().unwrap().len(), BORNE.len());
        assert_eq!(node_of(&pod), Some("n1"));
        assert!(is_updated(&set, &pod, "h") && is_updated(&set, &pod, "other"), "by hash or by generation");
    }
}
