//! Two pods cannot have the same port of a node.

use super::Filter;
use crate::node::{NodeInfo, PodInfo};
use crate::queue::Happening;

pub struct NodePorts;

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), String> {
        let taken = |wanted| {
            node.pods
                .values()
                .any(|other| other.host_ports.iter().any(|port: &crate::node::HostPort| port.conflicts(wanted)))
        };
        if pod.host_ports.iter().any(taken) {
            Err("node(s) didn't have free ports for the requested pod ports".to_owned())
        } else {
            Ok(())
        }
    }

    fn helped_by(&self, pod: &PodInfo, happening: &Happening) -> bool {
        match happening {
            Happening::Node => true,
            Happening::PodGone(gone) => {
                pod.host_ports.iter().any(|wanted| gone.host_ports.iter().any(|port| port.conflicts(wanted)))
            }
        }
    }
}
