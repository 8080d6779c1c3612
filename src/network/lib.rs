//! Links, routes, overlay, address allocation and packet filter, over netlink. Knows nothing of Kubernetes, runs no
//! other program.
//!
//! [`Network`] is a node's part of the pod network: a bridge whose address is the pods' next hop, a pair of linked
//! devices per pod, a VXLAN device towards the other nodes, and masquerading towards the outside. [`nft`] is the packet
//! filter for those who have rules of their own, [`conntrack`] the kernel's memory of flows, [`check`](check()) says
//! what a machine lacks.
//!
//! Invariants: everything is idempotent and reconciles with what the kernel has, so that a process that was killed is
//! followed by one that takes over without a packet lost; what is ours is known by [`Names`], and [`teardown`] removes
//! just that.
//!
//! Limitations: pods have IPv4 addresses only so far. Other programs' packet filters apply as well: where one of them
//! drops forwarded packets, ours cannot allow them. The settings `ip_forward` and `send_redirects` are set back to what
//! they were when a network is torn down; whoever came to rely on them meanwhile has to set them again.

mod address;
mod check;
mod config;
pub mod conntrack;
mod error;
mod masquerade;
mod netlink;
mod netns;
pub mod nft;
mod node;
mod overlay;
mod pod;
mod sysctl;

pub use check::{Missing, check};
pub use config::{Names, NetworkConfig, Peer, PodAddresses, PodAttach, VxlanConfig};
pub use error::Error;
pub use node::{Network, node_address, teardown};
