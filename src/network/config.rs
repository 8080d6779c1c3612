//! What a node's network is made of, and what is asked of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::Error;

/// What [`crate::Network::start`] is told. Names have defaults that fit a machine with one node on it.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The node's own pod networks (Node `spec.podCIDRs`), at most one per family. IPv4 only for now.
    pub pod_cidrs: Vec<IpNet>,
    /// All pods of the cluster (`--cluster-cidr`). Traffic between these is never masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// Service addresses (`--service-cidr`). The host gets a route for them, so that its own processes reach
    /// Services on a machine without a default route as well.
    pub service_cidrs: Vec<IpNet>,
    /// The address other nodes send their overlay packets to. `None`: the one the default route leaves from.
    pub node_ip: Option<IpAddr>,
    /// Size of the packets pods may send, in bytes. `None`: the node's link less the overlay's 50.
    pub mtu: Option<u32>,
    pub names: Names,
    pub vxlan: VxlanConfig,
}

impl NetworkConfig {
    pub fn new(pod_cidr: IpNet, cluster_cidr: IpNet) -> Self {
        Self {
            pod_cidrs: vec![pod_cidr],
            cluster_cidrs: vec![cluster_cidr],
            service_cidrs: Vec::new(),
            node_ip: None,
            mtu: None,
            names: Names::default(),
            vxlan: VxlanConfig::default(),
        }
    }
}

/// What is ours in the kernel, by name. [`crate::teardown`] removes these and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The bridge that pods are plugged into.
    pub bridge: String,
    /// The overlay device.
    pub vxlan: String,
    /// The packet-filter table with the node's masquerading.
    pub node_table: String,
    /// The packet-filter table that belongs to Services.
    pub service_table: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            bridge: "cluster0".to_owned(),
            vxlan: "cluster-vxlan".to_owned(),
            node_table: "cluster".to_owned(),
            service_table: "cluster-services".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanConfig {
    pub vni: u32,
    /// UDP.
    pub port: u16,
}

impl Default for VxlanConfig {
    fn default() -> Self {
        Self { vni: 1, port: 8472 }
    }
}

/// A pod that wants into the network.
#[derive(Debug, Clone)]
pub struct PodAttach {
    /// The sandbox's id: names the link, and is what [`crate::Network::detach`] is told.
    pub id: String,
    /// The pod's network namespace: a bind mount or `/proc/<pid>/ns/net`.
    pub netns: PathBuf,
    /// The link's name inside the pod; `eth0` for nearly everyone.
    pub ifname: String,
}

/// Where a pod is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddresses {
    /// One per family; the first is the pod's primary address.
    pub ips: Vec<IpAddr>,
    /// The pod's next hop, per family as in `ips`.
    pub gateways: Vec<IpAddr>,
    /// The host's end of the pod's link.
    pub host_interface: String,
}

/// Another node: its pods are reached through the overlay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub node_ip: IpAddr,
    pub pod_cidr: IpNet,
}

/// The one IPv4 network among `nets`.
pub(crate) fn only_ipv4(what: &'static str, nets: &[IpNet]) -> Result<Ipv4Net, Error> {
    match nets {
        [IpNet::V4(net)] => Ok(*net),
        [] => Err(Error::Config { what, reason: "is empty".to_owned() }),
        _ => Err(Error::Config {
            what,
            reason: format!("{} is not one IPv4 network, and pods have IPv4 addresses only so far", Listed(nets)),
        }),
    }
}

struct Listed<'a>(&'a [IpNet]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, net) in self.0.iter().enumerate() {
            write!(f, "{}{net}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The overlay device's own address on the node with this pod network: the network address itself, which no pod gets.
pub(crate) fn vtep_address(pod_cidr: Ipv4Net) -> Ipv4Addr {
    pod_cidr.network()
}

/// The overlay device's hardware address on the node with this pod network. Derived, so that nobody publishes it.
pub(crate) fn vtep_mac(pod_cidr: Ipv4Net) -> [u8; 6] {
    let [a, b, c, d] = vtep_address(pod_cidr).octets();
    [0x0e, 0x2a, a, b, c, d]
}

/// The bridge's address: the first of the node's pod network.
pub(crate) fn gateway_address(pod_cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(pod_cidr.network()).wrapping_add(1))
}

/// The bridge's hardware address. Fixed, since a bridge otherwise takes on its ports' as they come and go.
pub(crate) fn gateway_mac(pod_cidr: Ipv4Net) -> [u8; 6] {
    let [a, b, c, d] = gateway_address(pod_cidr).octets();
    [0x0e, 0x2b, a, b, c, d]
}
