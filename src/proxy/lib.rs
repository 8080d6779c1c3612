//! Services as packet-filter rules: what upstream's kube-proxy does in its nftables mode.
//!
//! [`model`] reads Services and EndpointSlices, [`rules`] makes of each Service a fragment of a packet-filter table (both
//! pure), and [`run`] keeps the kernel's table at that: a change of one Service touches its own elements and chains
//! only. Rules stay when the process goes, so Services keep routing; the next start replaces the table in one
//! transaction.
//!
//! Limitations: topology hints, `trafficDistribution` and health-check node ports are not looked at; node ports are not
//! served on 127.0.0.1 (as in upstream's nftables mode).

mod model;
mod rules;
mod sync;

pub use sync::{ProxyConfig, run};
