//! A pod's sandbox: hostname, resolver, namespaces, host ports, cgroup.

use std::path::Path;

use cri::v1::{
    DnsConfig, LinuxContainerResources, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping,
    Protocol,
};
use k8s_openapi::api::core::v1::Pod;

use super::names;
use super::resources::pod_resources;
use super::security;
use crate::objects::PodExt;

/// What a sandbox needs beyond its pod.
#[derive(Clone, Copy, Debug)]
pub struct SandboxInput<'a> {
    pub pod: &'a Pod,
    pub attempt: u32,
    pub log_dir: &'a Path,
    pub dns: &'a DnsConfig,
    pub cluster_domain: &'a str,
    pub cgroup_parent: &'a str,
    pub node_hostname: &'a str,
    pub seccomp_dir: &'a Path,
}

pub fn sandbox_config(input: SandboxInput<'_>) -> PodSandboxConfig {
    let pod = input.pod;
    let mut labels: std::collections::HashMap<String, String> =
        pod.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in [(names::POD_NAME, pod.name()), (names::POD_NAMESPACE, pod.ns()), (names::POD_UID, pod.uid())] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let annotations = pod.metadata.annotations.iter().flatten();
    let resources = pod_resources(pod);
    let sysctls = pod.spec().security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.ns().to_owned(),
            attempt: input.attempt,
        }),
        hostname: if pod.host_network() {
            String::new()
        } else {
            hostname(pod, input.cluster_domain).unwrap_or_else(|| input.node_hostname.to_owned())
        },
        log_directory: log_directory(input.log_dir, pod).to_string_lossy().into_owned(),
        dns_config: Some(input.dns.clone()),
        port_mappings: port_mappings(pod),
        labels,
        annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: input.cgroup_parent.to_owned(),
            security_context: Some(security::sandbox_context(pod, input.seccomp_dir)),
            sysctls: sysctls.into_iter().flatten().map(|one| (one.name.clone(), one.value.clone())).collect(),
            overhead: None,
            resources: Some(LinuxContainerResources {
                cpu_period: resources.cpu_period,
                cpu_quota: resources.cpu_quota,
                cpu_shares: resources.cpu_shares,
                memory_limit_in_bytes: resources.memory_limit_bytes,
                ..LinuxContainerResources::default()
            }),
        }),
        windows: None,
    }
}

/// Where the logs of a pod's containers lie: `<namespace>_<name>_<uid>`.
pub fn log_directory(log_dir: &Path, pod: &Pod) -> std::path::PathBuf {
    log_dir.join(format!("{}_{}_{}", pod.ns(), pod.name(), pod.uid()))
}

/// The pod's name as its processes see it: its host name, or the fully qualified one when the pod asks for that.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> Option<String> {
    /// The kernel's limit; longer names lose their end.
    const HOSTNAME_BYTES_MAX: usize = 63;
    let spec = pod.spec();
    if let Some(forced) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return Some(forced.to_owned());
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or_else(|| pod.name());
    let short = name.get(..HOSTNAME_BYTES_MAX).unwrap_or(name).trim_end_matches(['-', '.']);
    match domain(pod, cluster_domain) {
        Some(domain) if spec.set_hostname_as_fqdn == Some(true) => Some(format!("{short}.{domain}")),
        _ => Some(short.to_owned()),
    }
}

/// The domain under which a pod with a `subdomain` is known.
pub fn domain(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let subdomain = pod.spec().subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    Some(format!("{subdomain}.{}.svc.{cluster_domain}", pod.ns()))
}

/// The ports of the node that lead to the pod. With the host's network there is nothing to map.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if pod.host_network() {
        return vec![];
    }
    let mut mappings = Vec::new();
    for (_, container) in pod.containers() {
        for port in container.ports.iter().flatten() {
            let Some(host_port) = port.host_port.filter(|&port| port > 0) else { continue };
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            mappings.push(PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            });
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    fn made(pod: &Pod) -> PodSandboxConfig {
        sandbox_config(SandboxInput {
            pod,
            attempt: 2,
            log_dir: Path::new("/logs"),
            dns: &DnsConfig::default(),
            cluster_domain: "cluster.local",
            cgroup_parent: "/kubepods/pod1",
            node_hostname: "node",
            seccomp_dir: Path::new("/s"),
        })
    }

    #[test]
    fn a_sandbox_knows_its_pod() {
        let config = made(&pod(
            json!({"metadata": {"labels": {"app": "x"}}, "spec": {"subdomain": "sub", "setHostnameAsFQDN": true,
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}}),
        ));
        assert_eq!(config.hostname, "web.sub.default.svc.cluster.local");
        assert_eq!(config.log_directory, "/logs/default_web_uid-1");
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!(config.labels.get(names::POD_UID).unwrap(), "uid-1");
        assert_eq!(config.labels.get("app").unwrap(), "x");
        assert_eq!(config.metadata.unwrap().attempt, 2);
    }

    #[test]
    fn with_the_hosts_network_nothing_is_mapped_and_the_host_keeps_its_name() {
        let config = made(&pod(json!({"spec": {"hostNetwork": true,
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}})));
        assert_eq!((config.hostname.as_str(), config.port_mappings.len()), ("", 0));
    }
}
