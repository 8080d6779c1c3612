//! What tests share.

pub mod api;
mod https;
pub mod runtime;
mod stories;

use std::path::Path;
use std::sync::Arc;

use crate::{Config, Reserved};

#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}

/// A node in a directory of its own.
pub fn config(dir: &Path) -> Config {
    Config {
        node_name: "node-1".into(),
        hostname: "node-1".into(),
        node_ips: vec!["10.0.0.1".parse().unwrap()],
        data_dir: dir.join("kubelet"),
        log_dir: dir.join("logs"),
        static_pods_dir: None,
        cri_socket: dir.join("cri.sock"),
        cluster_dns: vec!["10.43.0.10".parse().unwrap()],
        cluster_domain: "cluster.local".into(),
        resolv_conf: dir.join("resolv.conf"),
        pods_max: crate::PODS_MAX,
        pod_pids_max: None,
        labels: Default::default(),
        taints: vec![],
        provider_id: None,
        reserved: Reserved::default(),
        cgroup_root: String::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        port: crate::PORT,
        serving_cert: Arc::new(NoCertificate),
        client_ca: Arc::new(rustls::RootCertStore::empty()),
    }
}
