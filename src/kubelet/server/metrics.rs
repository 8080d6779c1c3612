//! `/metrics` and `/metrics/resource`, under upstream's names.

use std::fmt::Write;
use std::sync::Arc;

use cri::v1::ContainerState;

use super::stats;
use crate::pods::{Context, Pods};

pub async fn text(context: &Arc<Context>, pods: &Pods) -> String {
    let mut text = String::new();
    let name = escape(&context.config.node_name);
    metric(&mut text, "kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "kubelet_node_name{{node=\"{name}\"}} 1");
    let containers = context.runtime.list_containers(std::collections::HashMap::new()).await.unwrap_or_default();
    metric(&mut text, "kubelet_running_containers", "gauge", "Number of containers by state.");
    for (state, shown) in [
        (ContainerState::ContainerCreated, "created"),
        (ContainerState::ContainerExited, "exited"),
        (ContainerState::ContainerRunning, "running"),
        (ContainerState::ContainerUnknown, "unknown"),
    ] {
        let count = containers.iter().filter(|one| one.state() == state).count();
        let _ = writeln!(text, "kubelet_running_containers{{container_state=\"{shown}\"}} {count}");
    }
    metric(&mut text, "kubelet_running_pods", "gauge", "Number of pods that have a running sandbox.");
    let _ = writeln!(text, "kubelet_running_pods {}", pods.list().len());
    metric(&mut text, "task_panics_total", "counter", "Tasks of the process that have panicked.");
    let _ = writeln!(text, "task_panics_total {}", task::panics());
    text
}

/// What metrics-server reads.
pub async fn resource(context: &Arc<Context>, pods: &Pods) -> String {
    let mut text = String::new();
    let node = stats::node_usage();
    metric(
        &mut text,
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    let _ = writeln!(text, "node_cpu_usage_seconds_total {}", seconds(node.cpu_nanos));
    metric(&mut text, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    let _ = writeln!(text, "node_memory_working_set_bytes {}", node.used_bytes);
    let counted = stats::by_pod(context).await;
    let failed = u8::from(counted.is_err());
    let counted = counted.unwrap_or_default();
    let mut each = |name: &str, kind: &str, help: &str, of: &dyn Fn(&cri::v1::ContainerStats) -> String| {
        metric(&mut text, name, kind, help);
        for pod in &counted {
            for (container, stats) in &pod.containers {
                let _ = writeln!(
                    text,
                    "{name}{{container=\"{container}\",namespace=\"{}\",pod=\"{}\"}} {}",
                    pod.namespace,
                    pod.name,
                    of(stats)
                );
            }
        }
    };
    each(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        &|stats| seconds(stats::core_nanos(stats)),
    );
    each("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", &|stats| {
        stats::working_set(stats).to_string()
    });
    let started = pods.list();
    metric(
        &mut text,
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    for pod in started.iter() {
        use crate::objects::PodExt;
        let Some(status) = context.statuses.wanted(pod.uid()) else { continue };
        for one in status.container_statuses.iter().flatten() {
            let running = one.state.as_ref().and_then(|state| state.running.as_ref());
            if let Some(at) = running.and_then(|running| running.started_at.as_ref()) {
                let (name, at) = (&one.name, at.0.as_second());
                let labels = format!("container=\"{name}\",namespace=\"{}\",pod=\"{}\"", pod.ns(), pod.name());
                let _ = writeln!(text, "container_start_time_seconds{{{labels}}} {at}");
            }
        }
    }
    metric(
        &mut text,
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for pod in &counted {
        let nanos = pod.containers.iter().map(|(_, stats)| stats::core_nanos(stats)).sum();
        let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
        let _ = writeln!(text, "pod_cpu_usage_seconds_total{{{labels}}} {}", seconds(nanos));
    }
    metric(&mut text, "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for pod in &counted {
        let bytes: u64 = pod.containers.iter().map(|(_, stats)| stats::working_set(stats)).sum();
        let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
        let _ = writeln!(text, "pod_memory_working_set_bytes{{{labels}}} {bytes}");
    }
    metric(
        &mut text,
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    let _ = writeln!(text, "resource_scrape_error {failed}");
    text
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
