//! A pod that names its node runs there or nowhere.

use super::Filter;
use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;

pub struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String> {
        let wanted = pod.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        if wanted.is_empty() || wanted == node.name {
            Ok(())
        } else {
            Err("node(s) didn't match the requested node name".to_owned())
        }
    }

    fn helped_by(&self, _: &PodInfo, happening: &Happening) -> bool {
        matches!(happening, Happening::Node)
    }
}
