//! Nodes that were cordoned take no new pods.

use super::Filter;
use super::taint_toleration::tolerates;
use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;
use k8s_openapi::api::core::v1::Taint;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String> {
        let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
        if spec.and_then(|spec| spec.unschedulable) != Some(true) {
            return Ok(());
        }
        let taint = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        if tolerates(pod, &taint) { Ok(()) } else { Err("node(s) were unschedulable".to_owned()) }
    }

    fn helped_by(&self, _: &PodInfo, happening: &Happening) -> bool {
        matches!(happening, Happening::Node)
    }
}
