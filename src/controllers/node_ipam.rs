//! Gives every node its part of the pods' network (`spec.podCIDR`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Involved, Patch, Queue, Recorder, Scope};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use task::Shutdown;

/// Prefix length of a node's part: 254 pods.
const NODE_PREFIX: u8 = 24;

struct NodeIpam {
    client: Client,
    nodes: Arc<Informer<Node>>,
    recorder: Recorder,
    cluster_cidr: Ipv4Net,
}

pub async fn run(client: Client, cluster_cidr: Ipv4Net, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(NodeIpam {
        nodes: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "cidrAllocator", None),
        client,
        cluster_cidr,
    });
    controller.nodes.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    // One worker: two would give the same part twice.
    client::run_workers("nodeipam", queue.clone(), 1, shutdown.clone(), move |name: String| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&name).await }
    });
    let mut nodes = controller.nodes.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = nodes.next() => if change.new.as_deref().is_some_and(|node| pod_cidr(node).is_none()) {
                queue.add(change.key.name);
            }
        }
    }
}

impl NodeIpam {
    async fn reconcile(&self, name: &str) -> Result<Option<Duration>, Failure> {
        // From the API and not the cache, which may not show yet what this worker gave away a moment ago.
        let nodes: Vec<Node> = self.client.list("", &client::ListOptions::default()).await?;
        let Some(node) = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name)) else {
            return Ok(None);
        };
        if pod_cidr(node).is_some() || node.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let taken: HashSet<Ipv4Net> = nodes.iter().filter_map(|node| pod_cidr(node)?.parse().ok()).collect();
        let Some(cidr) = next_free(self.cluster_cidr, &taken) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.warning(Involved::new(node), "CIDRNotAvailable", message);
            return Err(Failure::internal(format!("{} has no part left for node {name}", self.cluster_cidr)));
        };
        let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        self.client.patch::<Node>("", name, Patch::Strategic(patch)).await?;
        Ok(None)
    }
}

fn pod_cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|cidr| !cidr.is_empty())
}

/// The first part of `whole` that overlaps none of those taken.
fn next_free(whole: Ipv4Net, taken: &HashSet<Ipv4Net>) -> Option<Ipv4Net> {
    let free = |part: &Ipv4Net| !taken.iter().any(|other| other.contains(part) || part.contains(other));
    whole.subnets(NODE_PREFIX.max(whole.prefix_len())).ok()?.find(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_run_out() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let whole = net("10.42.0.0/22");
        let mut taken = HashSet::from([net("10.42.1.128/25")]);
        let mut given = Vec::new();
        while let Some(part) = next_free(whole, &taken) {
            taken.insert(part);
            given.push(part.to_string());
        }
        assert_eq!(given, ["10.42.0.0/24", "10.42.2.0/24", "10.42.3.0/24"]);
    }
}
