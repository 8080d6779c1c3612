//! What all pod workers of a node share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use client::{Client, Informer, Recorder};
use cri::v1::{DnsConfig, PodSandboxConfig};
use k8s_openapi::api::core::v1::{Pod, Service};

use super::statuses::Statuses;
use crate::Config;
use crate::cgroups::Cgroups;
use crate::containers::dns::{self, Cluster};
use crate::containers::fields::NodeFacts;
use crate::containers::sandbox::{SandboxInput, sandbox_config};
use crate::images::Images;
use crate::runtime::Runtime;
use crate::volumes::Volumes;

pub struct Context {
    pub config: Arc<Config>,
    pub client: Client,
    pub runtime: Runtime,
    pub images: Images,
    pub volumes: Volumes,
    pub cgroups: Arc<Cgroups>,
    pub events: Recorder,
    pub statuses: Statuses,
    pub services: Arc<Informer<Service>>,
    pub node: NodeFacts,
    /// The runtime's name for itself; unknown until it first answered.
    pub runtime_name: ArcSwap<String>,
}

impl Context {
    /// The sandbox's configuration, which is the same for the sandbox itself and for its containers.
    pub fn sandbox_config(&self, pod: &Pod, attempt: u32) -> PodSandboxConfig {
        sandbox_config(SandboxInput {
            pod,
            attempt,
            log_dir: &self.config.log_dir,
            dns: &self.dns_config(pod),
            cluster_domain: &self.config.cluster_domain,
            cgroup_parent: &self.cgroups.parent_of(pod),
            node_hostname: &self.config.hostname,
            seccomp_dir: &self.config.data_dir.join("seccomp"),
        })
    }

    fn dns_config(&self, pod: &Pod) -> DnsConfig {
        // Read each time: the node's file may change with its network.
        let host = std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default();
        let cluster = Cluster { servers: self.config.cluster_dns.clone(), domain: self.config.cluster_domain.clone() };
        dns::dns_config(pod, &cluster, &dns::parse_resolv_conf(&host))
    }
}
