//! `nodeSelector` and node affinity: where a pod must run and where it would rather.

use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, NodeSelectorRequirement, NodeSelectorTerm};

use super::{Filter, Score, normalize_by_max};
use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;

pub struct NodeAffinity;

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|requirement| holds(requirement, node.label(&requirement.key)))
        && fields.iter().all(|requirement| requirement.key == "metadata.name" && holds(requirement, Some(&node.name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    match (requirement.operator.as_str(), value) {
        ("In", Some(value)) => values.iter().any(|one| one == value),
        ("NotIn", Some(value)) => !values.iter().any(|one| one == value),
        ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
        ("Gt", Some(value)) => number(value) > values.first().and_then(|one| number(one)),
        ("Lt", Some(value)) => {
            matches!((number(value), values.first().and_then(|one| number(one))), (Some(a), Some(b)) if a < b)
        }
        _ => false,
    }
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String> {
        let selector = pod.pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let selected = selector.into_iter().flatten().all(|(key, value)| node.label(key) == Some(value));
        let required = affinity(pod).and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
        let required =
            required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)));
        if selected && required { Ok(()) } else { Err("node(s) didn't match Pod's node affinity/selector".to_owned()) }
    }

    fn helped_by(&self, _: &PodInfo, happening: &Happening) -> bool {
        matches!(happening, Happening::Node)
    }
}

impl Score for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: usize) -> i64 {
        let preferred = affinity(pod).and_then(|one| one.preferred_during_scheduling_ignored_during_execution.as_ref());
        preferred
            .into_iter()
            .flatten()
            .filter(|term| matches(&term.preference, node))
            .map(|term| i64::from(term.weight))
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }
}
