//! A node and the pods on it, as the plugins see them. Kept incrementally: a pod that comes or goes changes a few sums.

use std::collections::HashMap;
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use crate::resources::{Resources, requests, requests_or_default};

/// A pod with what the plugins ask of it again and again.
#[derive(Debug)]
pub struct PodInfo {
    pub key: Key,
    pub pod: Arc<Pod>,
    pub requests: Resources,
    pub requests_or_default: Resources,
    pub host_ports: Vec<HostPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// The same port on the same address, or on all of them.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let wildcard = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || wildcard(&self.ip) || wildcard(&other.ip))
    }
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> PodInfo {
        let spec = pod.spec.as_ref();
        let host_ports = spec
            .into_iter()
            .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
            .flat_map(|container| container.ports.iter().flatten())
            .filter(|port| port.host_port.is_some_and(|port| port > 0))
            .map(|port| HostPort {
                ip: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.host_port.unwrap_or_default(),
            })
            .collect();
        PodInfo {
            key: Key::of(&*pod),
            requests: requests(&pod),
            requests_or_default: requests_or_default(&pod),
            host_ports,
            pod,
        }
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

#[derive(Debug)]
pub struct NodeInfo {
    pub name: String,
    /// `None` while pods are known to be on it and the node itself is not, or not any more.
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    pub requested: Resources,
    pub requested_or_default: Resources,
    pub pods: HashMap<String, Arc<PodInfo>>,
    /// Sizes of the images that are on the node, by each of their names.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    pub fn new(name: &str) -> NodeInfo {
        NodeInfo {
            name: name.to_owned(),
            node: None,
            allocatable: Resources::default(),
            requested: Resources::default(),
            requested_or_default: Resources::default(),
            pods: HashMap::new(),
            images: HashMap::new(),
        }
    }

    pub fn set_node(&mut self, node: Option<Arc<Node>>) {
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        self.allocatable = Resources::parse(status.and_then(|status| status.allocatable.as_ref()));
        self.images = status
            .into_iter()
            .flat_map(|status| status.images.iter().flatten())
            .flat_map(|image| image.names.iter().flatten().map(|name| (name.clone(), image.size_bytes.unwrap_or(0))))
            .collect();
        self.node = node;
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        if let Some(before) = self.pods.insert(pod.uid().to_owned(), pod.clone()) {
            self.requested.subtract(&before.requests);
            self.requested_or_default.subtract(&before.requests_or_default);
        }
        self.requested.add(&pod.requests);
        self.requested_or_default.add(&pod.requests_or_default);
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.subtract(&pod.requests);
            self.requested_or_default.subtract(&pod.requests_or_default);
        }
    }

    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sums_follow_the_pods() {
        let pod = |cpu: &str| {
            let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [
                {"name": "a", "resources": {"requests": {"cpu": cpu}}}]}});
            Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
        };
        let mut node = NodeInfo::new("n");
        node.add(pod("1"));
        node.add(pod("2"));
        assert_eq!((node.requested.milli_cpu, node.requested.pods), (2000, 1), "the same pod, resized");
        node.remove("u");
        node.remove("u");
        assert_eq!((node.requested.milli_cpu, node.requested.pods), (0, 0));
    }

    #[test]
    fn ports_conflict_on_the_same_or_on_all_addresses() {
        let port = |ip: &str| HostPort { ip: ip.into(), protocol: "TCP".into(), port: 80 };
        assert!(port("").conflicts(&port("10.0.0.1")));
        assert!(!port("10.0.0.2").conflicts(&port("10.0.0.1")));
        assert!(!port("").conflicts(&HostPort { protocol: "UDP".into(), ..port("") }));
    }
}
