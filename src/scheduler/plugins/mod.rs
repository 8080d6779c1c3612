//! The plugins, one a file, with upstream's names and weights.
//!
//! A filter says whether a pod can run on a node, and why not in upstream's words; a score says how well, from 0 to 100.
//! Each filter also says which changes in the cluster may help a pod that it turned away (queueing hints).

use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;

mod balanced_allocation;
mod fit;
mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod taint_toleration;

/// The best score.
pub const SCORE_MAX: i64 = 100;

pub trait Filter: Send + Sync {
    fn name(&self) -> &'static str;

    /// `Err` holds the reason, which counts the nodes that have it in the pod's event.
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String>;

    /// True if `happening` may have made room for a pod that this filter turned away.
    fn helped_by(&self, pod: &PodInfo, happening: &Happening) -> bool;
}

pub trait Score: Send + Sync {
    fn weight(&self) -> i64;

    fn score(&self, pod: &PodInfo, node: &NodeInfo, nodes: usize) -> i64;

    /// Brings the scores of all nodes to 0..=100; most are there already.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// In the order in which they are asked: the first to refuse names the reason.
pub fn filters() -> Vec<Box<dyn Filter>> {
    vec![
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(fit::Fit),
    ]
}

pub fn scores() -> Vec<Box<dyn Score>> {
    vec![
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(fit::Fit),
        Box::new(balanced_allocation::BalancedAllocation),
        Box::new(image_locality::ImageLocality),
    ]
}

/// Scales scores so that the highest becomes 100, or the lowest does if `reverse`.
fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * SCORE_MAX / max };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}
