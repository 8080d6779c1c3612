//! Tells the pod network which nodes there are.

use std::net::IpAddr;

use client::{Client, Scope};
use k8s_openapi::api::core::v1::Node;
use network::{Network, Peer};
use task::Shutdown;

/// Keeps the overlay's peers equal to the other nodes until `shutdown`.
pub async fn run(client: Client, network: Network, own_name: String, shutdown: Shutdown) -> Result<(), network::Error> {
    let nodes = client.informer::<Node>(Scope::all());
    nodes.synced().await;
    let mut changes = nodes.subscribe();
    let mut known = None;
    loop {
        while changes.try_next().is_some() {}
        let peers: Vec<Peer> = nodes
            .list()
            .iter()
            .filter(|node| node.metadata.name.as_deref() != Some(&own_name))
            .filter_map(|node| peer(node))
            .collect();
        if known.as_ref() != Some(&peers) {
            network.set_peers(peers.clone()).await?;
            known = Some(peers);
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = changes.next() => {}
        }
    }
}

/// A node that has an address and a part of the pods' network.
fn peer(node: &Node) -> Option<Peer> {
    Some(Peer { node_ip: internal_ip(node)?, pod_cidr: node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()? })
}

fn internal_ip(node: &Node) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()
}
