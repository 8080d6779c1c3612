//! What pods ask for and what nodes have, as numbers.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource;

/// Assumed for a container that asks for nothing, when nodes are compared: upstream's 100m and 200 MB.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// An amount of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    pub pods: i64,
    /// Extended resources and huge pages.
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    pub fn parse(list: Option<&BTreeMap<String, resource::Quantity>>) -> Resources {
        let mut resources = Resources::default();
        for (name, quantity) in list.into_iter().flatten() {
            let quantity = Quantity::of(quantity);
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory_bytes = quantity.value(),
                "ephemeral-storage" => resources.storage_bytes = quantity.value(),
                "pods" => resources.pods = quantity.value(),
                _ => drop(resources.other.insert(name.clone(), quantity.value())),
            }
        }
        resources
    }

    pub fn add(&mut self, other: &Resources) {
        self.each(other, |a, b| a.saturating_add(b));
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.each(other, |a, b| a.saturating_sub(b));
    }

    fn raise_to(&mut self, other: &Resources) {
        self.each(other, i64::max);
    }

    fn each(&mut self, other: &Resources, combine: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = combine(self.memory_bytes, other.memory_bytes);
        self.storage_bytes = combine(self.storage_bytes, other.storage_bytes);
        self.pods = combine(self.pods, other.pods);
        for (name, amount) in &other.other {
            let known = self.other.entry(name.clone()).or_default();
            *known = combine(*known, *amount);
        }
    }
}

/// What a pod needs at its peak: all containers and sidecars together, or an init container with the sidecars started
/// before it, whichever is more; and the overhead of its runtime class.
pub fn requests(pod: &Pod) -> Resources {
    effective(pod, |container| {
        Resources::parse(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    })
}

/// As [`requests`], with something assumed for containers that ask for no CPU or memory.
pub fn requests_or_default(pod: &Pod) -> Resources {
    effective(pod, |container| {
        let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut resources = Resources::parse(asked);
        if resources.milli_cpu == 0 {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if resources.memory_bytes == 0 {
            resources.memory_bytes = DEFAULT_MEMORY_BYTES;
        }
        resources
    })
}

fn effective(pod: &Pod, of: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut starting = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&starting);
            starting = sidecars.clone();
        } else {
            starting.add(&sidecars);
        }
        peak.raise_to(&starting);
    }
    running.add(&sidecars);
    running.raise_to(&peak);
    running.add(&Resources::parse(spec.overhead.as_ref()));
    running.pods = 1;
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(cpu: &str, policy: Option<&str>) -> serde_json::Value {
        json!({"name": cpu, "resources": {"requests": {"cpu": cpu}}, "restartPolicy": policy})
    }

    #[test]
    fn a_pod_needs_its_peak() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [container("1", Some("Always")), container("3", None), container("500m", Some("Always"))],
            "containers": [container("1", None), container("250m", None)],
            "overhead": {"cpu": "10m"},
        }}))
        .unwrap();
        // The init container with the first sidecar, 4, against everything that runs together, 2.75.
        assert_eq!(requests(&pod).milli_cpu, 4010);
        let empty: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}]}})).unwrap();
        assert_eq!((requests(&empty).milli_cpu, requests_or_default(&empty).milli_cpu), (0, 100));
    }
}
