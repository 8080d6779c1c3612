//! What goes wrong in this room.

use std::io;
use std::path::PathBuf;

use ipnet::Ipv4Net;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {reason}")]
    Config { what: &'static str, reason: String },
    #[error("no more addresses for pods: all {capacity} of {cidr} are taken")]
    AddressesExhausted { cidr: Ipv4Net, capacity: usize },
    #[error("{action}")]
    Netlink { action: String, source: io::Error },
    #[error("{action}: the kernel refuses message {message}")]
    Netfilter { action: String, message: String, source: io::Error },
    #[error("network namespace {path}")]
    Namespace { path: PathBuf, source: io::Error },
    #[error("setting {path}")]
    Sysctl { path: PathBuf, source: io::Error },
    #[error("there is no default route to tell which link and address the node has; set the node address")]
    NoDefaultRoute,
    #[error("no link has the node's address {0}")]
    NoSuchAddress(std::net::IpAddr),
    #[error("a worker thread died")]
    Worker,
}

impl Error {
    /// The kernel's word for it, where it was the kernel.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Netlink { source, .. }
            | Self::Netfilter { source, .. }
            | Self::Namespace { source, .. }
            | Self::Sysctl { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
