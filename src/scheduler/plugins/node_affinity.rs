//! `nodeSelector` and node affinity: where a pod must run and where it would rather.

use api::placement;
use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, NodeSelectorTerm};

use super::{Filter, Score, normalize_by_max};
use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;

pub struct NodeAffinity;

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    placement::term_matches(term, &node.name, |key| node.label(key))
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String> {
        let spec = pod.pod.spec.as_ref();
        let selected = spec.is_none_or(|spec| placement::selects_node(spec, &node.name, |key| node.label(key)));
        if selected { Ok(()) } else { Err("node(s) didn't match Pod's node affinity/selector".to_owned()) }
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
