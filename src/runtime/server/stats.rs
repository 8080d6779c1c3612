//! What containers and pods use.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cri::v1;
use tokio::time::Instant;
use tonic::Status;

use super::sandboxes::blocking;
use super::state::{Container, Sandbox};
use super::{Runtime, views};
use crate::cgroup::Stats;

/// How long the size of a writable layer is taken for current; looking it up walks the files.
const USAGE_AGE_MAX: Duration = Duration::from_secs(30);

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

fn cpu(stats: &Stats, timestamp: i64) -> Option<v1::CpuUsage> {
    Some(v1::CpuUsage { timestamp, usage_core_nano_seconds: value(stats.cpu_ns), ..Default::default() })
}

fn memory(stats: &Stats, timestamp: i64) -> Option<v1::MemoryUsage> {
    let available =
        stats.memory_limit_bytes.map(|limit| limit.saturating_sub(stats.memory_working_set_bytes)).and_then(value);
    Some(v1::MemoryUsage {
        timestamp,
        working_set_bytes: value(stats.memory_working_set_bytes),
        available_bytes: available,
        usage_bytes: value(stats.memory_usage_bytes),
        rss_bytes: value(stats.memory_rss_bytes),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: None,
    })
}

impl Runtime {
    pub async fn container_stats(&self, container: &Arc<Container>) -> Result<v1::ContainerStats, Status> {
        let (hierarchy, group) = (self.hierarchy.clone(), container.cgroup().to_owned());
        let stats = blocking(move || hierarchy.stats(&group)).await?;
        let timestamp = views::now_ns();
        let known = container.usage.lock().clone().filter(|(at, _)| at.elapsed() < USAGE_AGE_MAX);
        let usage = match known {
            Some((_, usage)) => Some(usage),
            None => {
                let usage = self.images.rootfs_usage(&container.id).await.ok().flatten();
                *container.usage.lock() = usage.clone().map(|usage| (Instant::now(), usage));
                usage
            }
        };
        Ok(v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: container.id.clone(),
                metadata: container.config.metadata.clone(),
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
            }),
            cpu: cpu(&stats, timestamp),
            memory: memory(&stats, timestamp),
            writable_layer: usage.map(|usage| v1::FilesystemUsage {
                timestamp,
                fs_id: Some(v1::FilesystemIdentifier { mountpoint: usage.dir.to_string_lossy().into_owned() }),
                used_bytes: value(usage.used_bytes),
                inodes_used: value(usage.inodes_used),
            }),
            swap: Some(v1::SwapUsage {
                timestamp,
                swap_available_bytes: None,
                swap_usage_bytes: value(stats.swap_bytes),
            }),
            io: None,
        })
    }

    /// Of running containers only, as kubelet expects of a list.
    pub async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>, Status> {
        let filter = filter.unwrap_or_default();
        let chosen: Vec<Arc<Container>> = self
            .containers
            .read()
            .values()
            .filter(|known| filter.id.is_empty() || known.id.starts_with(&filter.id))
            .filter(|known| {
                filter.pod_sandbox_id.is_empty() || known.record.sandbox_id.starts_with(&filter.pod_sandbox_id)
            })
            .filter(|known| views::selects(&filter.label_selector, &known.config.labels))
            .filter(|known| known.state() == v1::ContainerState::ContainerRunning)
            .cloned()
            .collect();
        let mut stats = Vec::with_capacity(chosen.len());
        for container in chosen {
            stats.push(self.container_stats(&container).await?);
        }
        Ok(stats)
    }

    pub async fn sandbox_stats(&self, sandbox: &Sandbox) -> Result<v1::PodSandboxStats, Status> {
        let (hierarchy, group) = (self.hierarchy.clone(), sandbox.record.lock().cgroup_parent.clone());
        let pid = sandbox.shim_pid.load(Ordering::Acquire);
        let host_network = sandbox.record.lock().host_network;
        let (stats, network) = blocking(move || {
            let net = Path::new("/proc").join(pid.to_string()).join("net/dev");
            let text =
                if pid == 0 || host_network { String::new() } else { std::fs::read_to_string(net).unwrap_or_default() };
            (hierarchy.stats(&group), interfaces(&text))
        })
        .await?;
        let timestamp = views::now_ns();
        let filter = v1::ContainerStatsFilter { pod_sandbox_id: sandbox.id.clone(), ..Default::default() };
        Ok(v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(v1::LinuxPodSandboxStats {
                cpu: cpu(&stats, timestamp),
                memory: memory(&stats, timestamp),
                network: Some(v1::NetworkUsage {
                    timestamp,
                    default_interface: network.iter().find(|interface| interface.name == "eth0").cloned(),
                    interfaces: network,
                }),
                process: Some(v1::ProcessUsage { timestamp, process_count: value(stats.processes) }),
                containers: self.list_container_stats(Some(filter)).await?,
                io: None,
            }),
            windows: None,
        })
    }

    pub async fn list_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>, Status> {
        let filter = filter.unwrap_or_default();
        let chosen: Vec<Arc<Sandbox>> = self
            .sandboxes
            .read()
            .values()
            .filter(|known| filter.id.is_empty() || known.id.starts_with(&filter.id))
            .filter(|known| views::selects(&filter.label_selector, &known.config.labels))
            .filter(|known| known.is_ready())
            .cloned()
            .collect();
        let mut stats = Vec::with_capacity(chosen.len());
        for sandbox in chosen {
            stats.push(self.sandbox_stats(&sandbox).await?);
        }
        Ok(stats)
    }
}

/// Counters from `/proc/net/dev`, without the loopback interface.
fn interfaces(text: &str) -> Vec<v1::NetworkInterfaceUsage> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(name, counters)| {
            let counters: Vec<u64> = counters.split_whitespace().map_while(|word| word.parse().ok()).collect();
            let at = |place: usize| counters.get(place).copied().map(|value| v1::UInt64Value { value });
            let name = name.trim();
            (name != "lo" && counters.len() >= 11).then(|| v1::NetworkInterfaceUsage {
                name: name.to_owned(),
                rx_bytes: at(0),
                rx_errors: at(2),
                tx_bytes: at(8),
                tx_errors: at(10),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                    eth0: 100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n  bad: 1 2\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].rx_bytes, value(100));
        assert_eq!(found[0].tx_bytes, value(900));
        assert_eq!(found[0].tx_errors, value(11));
    }
}
