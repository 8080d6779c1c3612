//! Requests and limits as cgroup settings, and a pod's quality of service.

use cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::objects::{Kind, PodExt};
use crate::quantity::{cpu_milli, memory_bytes, milli};

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// By requests and limits of cpu and memory over all containers.
    pub fn of(pod: &Pod) -> Qos {
        match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
            Some("Guaranteed") => return Qos::Guaranteed,
            Some("Burstable") => return Qos::Burstable,
            Some("BestEffort") => return Qos::BestEffort,
            _ => {}
        }
        let mut any = false;
        let mut all_guaranteed = true;
        for (kind, container) in pod.containers() {
            if kind == Kind::Ephemeral {
                continue;
            }
            let resources = container.resources.as_ref();
            for name in ["cpu", "memory"] {
                let limit = resources.and_then(|one| one.limits.as_ref()?.get(name)).and_then(milli);
                let request = resources.and_then(|one| one.requests.as_ref()?.get(name)).and_then(milli).or(limit);
                let (limit, request) = (limit.unwrap_or(0), request.unwrap_or(0));
                any |= limit > 0 || request > 0;
                all_guaranteed &= limit > 0 && limit == request;
            }
        }
        match (any, all_guaranteed) {
            (false, _) => Qos::BestEffort,
            (true, true) => Qos::Guaranteed,
            (true, false) => Qos::Burstable,
        }
    }
}

/// The scheduler's period; a quota is a part of it.
const CPU_PERIOD_US: i64 = 100_000;
/// The kernel takes no smaller quota than a millisecond.
const CPU_QUOTA_US_MIN: i64 = 1000;
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;

pub fn cpu_shares(milli: i64) -> i64 {
    milli.saturating_mul(1024).div_euclid(1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// Microseconds per period of [`CPU_PERIOD_US`].
pub fn cpu_quota(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_US_MIN)
}

/// How likely the kernel kills the container's processes when the node runs out of memory (-997 to 1000).
pub fn oom_score_adj(qos: Qos, memory_request_bytes: i64, node_memory_bytes: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    match qos {
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => BEST_EFFORT,
        Qos::Burstable if node_memory_bytes <= 0 => BEST_EFFORT - 1,
        Qos::Burstable => {
            let share = i128::from(memory_request_bytes) * 1000 / i128::from(node_memory_bytes);
            (1000 - share as i64).clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// What a container's cgroup gets.
pub fn container_resources(pod: &Pod, container: &Container, node_memory_bytes: i64) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|one| one.limits.as_ref());
    let requests = resources.and_then(|one| one.requests.as_ref());
    let cpu_limit = cpu_milli(limits).unwrap_or(0);
    let cpu_request = cpu_milli(requests).unwrap_or(cpu_limit);
    let memory_limit = memory_bytes(limits).unwrap_or(0);
    let memory_request = memory_bytes(requests).unwrap_or(memory_limit);
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: if cpu_limit > 0 { cpu_quota(cpu_limit) } else { 0 },
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        // No swap beyond the memory limit, as without the NodeSwap setting.
        memory_swap_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(Qos::of(pod), memory_request, node_memory_bytes),
        ..LinuxContainerResources::default()
    }
}

/// What the pod's cgroup gets: the sum over its containers, or what the pod itself names, plus overhead. Zero means no
/// setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodResources {
    pub cpu_shares: i64,
    pub cpu_quota: i64,
    pub cpu_period: i64,
    pub memory_limit_bytes: i64,
}

pub fn pod_resources(pod: &Pod) -> PodResources {
    let sum = |of: &dyn Fn(&Container) -> Option<i64>| sum(pod, of);
    let own = pod.spec().resources.as_ref();
    let limits = |one: &Container| one.resources.as_ref().and_then(|one| one.limits.clone());
    let requests = |one: &Container| one.resources.as_ref().and_then(|one| one.requests.clone().or(one.limits.clone()));
    let overhead = pod.spec().overhead.as_ref();
    let with_overhead = |value: i64, overhead: Option<i64>| if value > 0 { value + overhead.unwrap_or(0) } else { 0 };

    let cpu_request = cpu_milli(own.and_then(|own| own.requests.as_ref()))
        .or_else(|| sum(&|one| Some(cpu_milli(requests(one).as_ref()).unwrap_or(0))))
        .unwrap_or(0);
    let cpu_limit = cpu_milli(own.and_then(|own| own.limits.as_ref()))
        .or_else(|| sum(&|one| cpu_milli(limits(one).as_ref()).filter(|&milli| milli > 0)))
        .unwrap_or(0);
    let memory_limit = memory_bytes(own.and_then(|own| own.limits.as_ref()))
        .or_else(|| sum(&|one| memory_bytes(limits(one).as_ref()).filter(|&bytes| bytes > 0)))
        .unwrap_or(0);
    let cpu_request = cpu_request + cpu_milli(overhead).unwrap_or(0);
    let cpu_limit = with_overhead(cpu_limit, cpu_milli(overhead));
    PodResources {
        cpu_shares: if Qos::of(pod) == Qos::BestEffort { CPU_SHARES_MIN } else { cpu_shares(cpu_request) },
        cpu_quota: if cpu_limit > 0 { cpu_quota(cpu_limit) } else { 0 },
        cpu_period: CPU_PERIOD_US,
        memory_limit_bytes: with_overhead(memory_limit, memory_bytes(overhead)),
    }
}

/// The most that runs at one time: main containers and sidecars together, or one init container with the sidecars
/// before it. `None` when a container has no value: the pod then has no limit.
fn sum(pod: &Pod, of: &dyn Fn(&Container) -> Option<i64>) -> Option<i64> {
    let mut sidecars = 0i64;
    let mut init_max = 0i64;
    let mut main = 0i64;
    for (kind, container) in pod.containers() {
        let value = match kind {
            Kind::Ephemeral => continue,
            _ => of(&container)?,
        };
        match kind {
            Kind::Init => init_max = init_max.max(sidecars.saturating_add(value)),
            Kind::Sidecar => {
                sidecars = sidecars.saturating_add(value);
                init_max = init_max.max(sidecars);
            }
            Kind::Main | Kind::Ephemeral => main = main.saturating_add(value),
        }
    }
    Some(init_max.max(main.saturating_add(sidecars)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::{Value, json};

    fn with(resources: &[Value]) -> Pod {
        let containers: Vec<Value> =
            resources.iter().enumerate().map(|(n, one)| json!({"name": format!("c{n}"), "resources": one})).collect();
        pod(json!({"spec": {"containers": containers}}))
    }

    #[test]
    fn quality_of_service() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(Qos::of(&with(&[json!({})])), Qos::BestEffort);
        assert_eq!(Qos::of(&with(std::slice::from_ref(&full))), Qos::Guaranteed);
        assert_eq!(Qos::of(&with(&[full, json!({})])), Qos::Burstable);
        assert_eq!(Qos::of(&with(&[json!({"requests": {"cpu": "1"}})])), Qos::Burstable);
    }

    #[test]
    fn settings_of_a_container() {
        let pod =
            with(&[json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}})]);
        let set = container_resources(&pod, &pod.spec().containers[0], 4 << 30);
        assert_eq!((set.cpu_shares, set.cpu_quota, set.memory_limit_in_bytes), (256, 50_000, 2 << 30));
        assert_eq!(set.oom_score_adj, 750);
        let nothing = with(&[json!({})]);
        let set = container_resources(&nothing, &nothing.spec().containers[0], 4 << 30);
        assert_eq!((set.cpu_shares, set.cpu_quota, set.memory_limit_in_bytes), (2, 0, 0));
        assert_eq!(set.oom_score_adj, 1000);
    }

    #[test]
    fn a_pod_is_limited_only_when_all_its_containers_are() {
        let limited = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(pod_resources(&with(&[limited.clone(), limited.clone()])).memory_limit_bytes, 2 << 30);
        assert_eq!(pod_resources(&with(&[limited, json!({})])).memory_limit_bytes, 0);
        assert_eq!(pod_resources(&with(&[json!({})])).cpu_shares, 2);
    }

    #[test]
    fn init_containers_count_one_at_a_time_and_sidecars_always() {
        let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = pod(json!({"spec": {"containers": [{"name": "a", "resources": cpu("100m")}],
            "initContainers": [{"name": "i", "resources": cpu("150m")},
                {"name": "s", "restartPolicy": "Always", "resources": cpu("100m")}]}}));
        assert_eq!(pod_resources(&pod).cpu_shares, cpu_shares(200));
    }
}
