//! `/stats/summary`: use of resources by node and pods, as the runtime counts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cri::v1::{ContainerStats, CpuUsage, MemoryUsage, UInt64Value};
use serde_json::{Map, Value, json};

use crate::containers::names;
use crate::objects::PodExt;
use crate::pods::observed::timestamp;
use crate::pods::{Context, Pods};
use crate::runtime::RuntimeError;

/// Containers' counters with the pod that each belongs to.
pub struct OfPod {
    pub uid: String,
    pub name: String,
    pub namespace: String,
    pub containers: Vec<(String, ContainerStats)>,
}

/// The counters of running containers by pod.
pub async fn by_pod(context: &Context) -> Result<Vec<OfPod>, RuntimeError> {
    let mut pods: BTreeMap<String, OfPod> = BTreeMap::new();
    for stats in context.runtime.container_stats().await? {
        let Some(labels) = stats.attributes.as_ref().map(|attributes| attributes.labels.clone()) else { continue };
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let uid = label(names::POD_UID);
        if uid.is_empty() {
            continue;
        }
        let pod = pods.entry(uid.clone()).or_insert_with(|| OfPod {
            uid,
            name: label(names::POD_NAME),
            namespace: label(names::POD_NAMESPACE),
            containers: vec![],
        });
        pod.containers.push((label(names::CONTAINER_NAME), stats));
    }
    Ok(pods.into_values().collect())
}

pub async fn summary(context: &Arc<Context>, pods: &Pods) -> Result<Value, RuntimeError> {
    let counted = by_pod(context).await?;
    let known = pods.list();
    let shown: Vec<Value> = counted
        .iter()
        .map(|pod| {
            let containers: Vec<Value> = pod.containers.iter().map(|(name, stats)| container(name, stats)).collect();
            let total =
                |of: &dyn Fn(&ContainerStats) -> u64| pod.containers.iter().map(|(_, one)| of(one)).sum::<u64>();
            let time = pod.containers.iter().filter_map(|(_, one)| one.cpu.as_ref()).map(|cpu| cpu.timestamp).max();
            let time = timestamp(time.unwrap_or(0)).to_string();
            let started =
                known.iter().find(|one| one.uid() == pod.uid).and_then(|one| one.status.as_ref()?.start_time.clone());
            json!({
                "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                "startTime": started,
                "containers": containers,
                "cpu": {"time": time, "usageNanoCores": total(&nano_cores), "usageCoreNanoSeconds": total(&core_nanos)},
                "memory": {"time": time, "workingSetBytes": total(&working_set), "usageBytes": total(&memory_usage)},
            })
        })
        .collect();
    let node = node_usage();
    Ok(json!({
        "node": {
            "nodeName": context.config.node_name,
            "cpu": {"time": node.time, "usageCoreNanoSeconds": node.cpu_nanos},
            "memory": {"time": node.time, "availableBytes": node.available_bytes, "usageBytes": node.used_bytes,
                "workingSetBytes": node.used_bytes},
        },
        "pods": shown,
    }))
}

fn container(name: &str, stats: &ContainerStats) -> Value {
    let mut shown = Map::new();
    shown.insert("name".to_owned(), json!(name));
    if let Some(CpuUsage { timestamp: at, .. }) = &stats.cpu {
        let time = timestamp(*at).to_string();
        let cpu = json!({"time": time, "usageNanoCores": nano_cores(stats), "usageCoreNanoSeconds": core_nanos(stats)});
        shown.insert("cpu".to_owned(), cpu);
    }
    if let Some(MemoryUsage { timestamp: at, rss_bytes, page_faults, major_page_faults, .. }) = &stats.memory {
        shown.insert(
            "memory".to_owned(),
            json!({"time": timestamp(*at).to_string(), "workingSetBytes": working_set(stats), "usageBytes": memory_usage(stats),
                "rssBytes": value(rss_bytes.as_ref()), "pageFaults": value(page_faults.as_ref()),
                "majorPageFaults": value(major_page_faults.as_ref())}),
        );
    }
    if let Some(layer) = &stats.writable_layer {
        let rootfs = json!({"time": timestamp(layer.timestamp).to_string(), "usedBytes": value(layer.used_bytes.as_ref()),
            "inodesUsed": value(layer.inodes_used.as_ref())});
        shown.insert("rootfs".to_owned(), rootfs);
    }
    Value::Object(shown)
}

fn value(value: Option<&UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

fn nano_cores(stats: &ContainerStats) -> u64 {
    value(stats.cpu.as_ref().and_then(|cpu| cpu.usage_nano_cores.as_ref()))
}

pub fn core_nanos(stats: &ContainerStats) -> u64 {
    value(stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref()))
}

pub fn working_set(stats: &ContainerStats) -> u64 {
    value(stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()))
}

fn memory_usage(stats: &ContainerStats) -> u64 {
    value(stats.memory.as_ref().and_then(|memory| memory.usage_bytes.as_ref()))
}

/// The whole machine, from /proc.
pub struct NodeUsage {
    pub time: String,
    pub cpu_nanos: u64,
    pub available_bytes: u64,
    pub used_bytes: u64,
}

pub fn node_usage() -> NodeUsage {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
    };
    let available_bytes = bytes("MemAvailable");
    NodeUsage {
        time: k8s_openapi::jiff::Timestamp::now().to_string(),
        cpu_nanos: busy_nanos(&std::fs::read_to_string("/proc/stat").unwrap_or_default()),
        available_bytes,
        used_bytes: bytes("MemTotal").saturating_sub(available_bytes),
    }
}

/// Time that the processors were not idle, from /proc/stat's first line, in hundredths of seconds there.
fn busy_nanos(stat: &str) -> u64 {
    const NANOS_PER_TICK: u64 = 10_000_000;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, one)| one).sum();
    busy.saturating_mul(NANOS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_no_use() {
        assert_eq!(busy_nanos("cpu  1 2 3 1000 1000 4 5 6 99 99\ncpu0"), 21 * 10_000_000);
        assert_eq!(busy_nanos(""), 0);
    }
}
