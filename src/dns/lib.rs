//! The cluster's name server: Services and endpoints by name, as Kubernetes' DNS specification 1.1.0 says, and everything
//! else from the node's own name servers.
//!
//! [`zone`] holds the names, kept up to date from informers one Service at a time. [`answer`] makes a response of a
//! question and the zone (pure). [`forward`] asks elsewhere, with a small cache. [`server`] moves packets: what the
//! zone knows is answered where the packet is read, so that no upstream and no client, however slow or greedy, delays
//! it; what has to be asked elsewhere is a task of its own, of which there is a bounded number in all and per client.
//!
//! Limitations: pods have only the names made of their addresses (`10-42-0-7.default.pod.cluster.local`), whether or not
//! there is such a pod; records are not signed; zones are not transferred.

mod answer;
mod cache;
mod forward;
mod resolv;
mod server;
mod zone;

pub use server::{DnsConfig, Error, run};
