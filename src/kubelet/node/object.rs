//! The Node object, as a pure function of configuration, machine and what was seen of the runtime.

use std::collections::BTreeMap;

use cri::v1::{Image, StatusResponse};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::machine::Machine;
use crate::{Config, KUBELET_VERSION};

/// Of images, the largest are shown.
const IMAGES_MAX: usize = 50;
const NAMES_PER_IMAGE_MAX: usize = 5;

/// What can change while the process runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub health: Health,
    pub images: Vec<Image>,
}

/// Why the node is not ready; nothing if it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub problems: Vec<String>,
    pub handlers: Vec<cri::v1::RuntimeHandler>,
}

impl Health {
    pub fn of(status: &StatusResponse) -> Health {
        let mut problems = Vec::new();
        let conditions = status.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        for (name, what) in [("RuntimeReady", "container runtime"), ("NetworkReady", "container runtime network")] {
            match conditions.iter().find(|one| one.r#type == name) {
                Some(one) if one.status => {}
                Some(one) => problems
                    .push(format!("{what} not ready: {name}=false reason:{} message:{}", one.reason, one.message)),
                None => problems.push(format!("{what} not ready: {name} is not reported")),
            }
        }
        Health { problems, handlers: status.runtime_handlers.clone() }
    }
}

/// The Node as it registers.
pub fn node(config: &Config, machine: &Machine) -> Node {
    let mut labels: BTreeMap<String, String> = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine.architecture),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let seen = Seen {
        health: Health {
            problems: vec!["container runtime status check may not have completed yet".to_owned()],
            handlers: vec![],
        },
        images: vec![],
    };
    Node {
        metadata: ObjectMeta { name: Some(config.node_name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            provider_id: config.provider_id.clone(),
            taints: Some(config.taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status(config, machine, &seen, None, Timestamp::now())),
    }
}

pub fn status(
    config: &Config,
    machine: &Machine,
    seen: &Seen,
    before: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let mut addresses: Vec<NodeAddress> = config
        .node_ips
        .iter()
        .map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: config.hostname.clone() });
    NodeStatus {
        capacity: Some(resources(config, machine, false)),
        allocatable: Some(resources(config, machine, true)),
        conditions: Some(conditions(seen, before, now)),
        addresses: Some(addresses),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: machine.runtime_version.clone(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            swap: Some(NodeSwapStatus { capacity: Some(machine.swap_bytes) }).filter(|_| machine.swap_bytes > 0),
            system_uuid: machine.system_uuid.clone(),
        }),
        images: Some(images(&seen.images)),
        runtime_handlers: Some(handlers(seen)).filter(|handlers| !handlers.is_empty()),
        ..NodeStatus::default()
    }
}

fn handlers(seen: &Seen) -> Vec<NodeRuntimeHandler> {
    let made = seen.health.handlers.iter().map(|one| NodeRuntimeHandler {
        name: Some(one.name.clone()),
        features: one.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    });
    made.collect()
}

fn resources(config: &Config, machine: &Machine, allocatable: bool) -> BTreeMap<String, Quantity> {
    let reserved = if allocatable { config.reserved } else { crate::Reserved::default() };
    let huge: i64 = if allocatable { machine.huge_pages.values().sum() } else { 0 };
    let milli = machine.cpus.saturating_mul(1000).saturating_sub(reserved.cpu_milli).max(0);
    let memory = machine.memory_bytes.saturating_sub(reserved.memory_bytes).saturating_sub(huge).max(0);
    let disk = machine.ephemeral_storage_bytes.saturating_sub(reserved.ephemeral_storage_bytes).max(0);
    let mut resources = BTreeMap::from([
        ("cpu".to_owned(), Quantity(api::Quantity::millis(milli).to_string())),
        ("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024))),
        ("pods".to_owned(), Quantity(config.pods_max.to_string())),
        ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", disk / 1024))),
    ]);
    for (size, bytes) in &machine.huge_pages {
        let amount = if *bytes == 0 { "0".to_owned() } else { api::Quantity::bytes(*bytes).to_string() };
        resources.insert(format!("hugepages-{size}"), Quantity(amount));
    }
    resources
}

fn conditions(seen: &Seen, before: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let problems = &seen.health.problems;
    let ready = if problems.is_empty() {
        ("True", "KubeletReady", "kubelet is posting ready status".to_owned())
    } else {
        ("False", "KubeletNotReady", problems.join(", "))
    };
    let well = |reason, text: &str| ("False", reason, text.to_owned());
    let all = [
        ("MemoryPressure", well("KubeletHasSufficientMemory", "kubelet has sufficient memory available")),
        ("DiskPressure", well("KubeletHasNoDiskPressure", "kubelet has no disk pressure")),
        ("PIDPressure", well("KubeletHasSufficientPID", "kubelet has sufficient PID available")),
        ("Ready", ready),
    ];
    let known = before.and_then(|status| status.conditions.as_ref());
    all.into_iter()
        .map(|(kind, (status, reason, message))| {
            let old = known.and_then(|all| all.iter().find(|one| one.type_ == kind && one.status == status));
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: old.and_then(|one| one.last_transition_time.clone()).or(Some(now.clone())),
            }
        })
        .collect()
}

fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by_key(|image| std::cmp::Reverse(image.size));
    let shown = sorted.into_iter().take(IMAGES_MAX).map(|image| ContainerImage {
        names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(NAMES_PER_IMAGE_MAX).cloned().collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    shown.collect()
}

/// The strategic merge patch of a status. Addresses are merged by type, and there may be several of one type, so
/// they are replaced as a whole.
pub fn patch(before: Option<&NodeStatus>, status: &NodeStatus) -> Value {
    let Ok(Value::Object(mut patch)) = serde_json::to_value(status) else { return Value::Object(Map::new()) };
    let same_addresses = before.is_some_and(|before| before.addresses == status.addresses);
    if same_addresses {
        patch.remove("addresses");
    } else if let Some(Value::Array(addresses)) = patch.get_mut("addresses") {
        addresses.push(json!({"$patch": "replace"}));
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            memory_bytes: 4 << 30,
            ephemeral_storage_bytes: 100 << 30,
            architecture: "amd64",
            ..Machine::default()
        }
    }

    #[test]
    fn a_node_is_ready_when_its_runtime_and_network_are() {
        let condition = |name: &str, status| cri::v1::RuntimeCondition {
            r#type: name.to_owned(),
            status,
            reason: "R".to_owned(),
            message: "m".to_owned(),
        };
        let answer = |network| StatusResponse {
            status: Some(cri::v1::RuntimeStatus {
                conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", network)],
            }),
            ..StatusResponse::default()
        };
        assert!(Health::of(&answer(true)).problems.is_empty());
        assert_eq!(
            Health::of(&answer(false)).problems,
            ["container runtime network not ready: NetworkReady=false reason:R message:m"]
        );
        let temp = tempfile::tempdir().unwrap();
        let config = config(temp.path());
        let at = |second| Timestamp::from_second(second).unwrap();
        let seen = |ready| Seen { health: Health::of(&answer(ready)), images: vec![] };
        let first = status(&config, &machine(), &seen(true), None, at(100));
        let second = status(&config, &machine(), &seen(true), Some(&first), at(200));
        let third = status(&config, &machine(), &seen(false), Some(&second), at(300));
        let ready = |status: &NodeStatus| {
            let one = status.conditions.as_ref().unwrap().iter().find(|one| one.type_ == "Ready").unwrap().clone();
            (
                one.status,
                one.last_transition_time.unwrap().0.as_second(),
                one.last_heartbeat_time.unwrap().0.as_second(),
            )
        };
        assert_eq!(ready(&second), ("True".to_owned(), 100, 200));
        assert_eq!(ready(&third), ("False".to_owned(), 300, 300));
    }

    #[test]
    fn what_is_reserved_is_not_allocatable() {
        let temp = tempfile::tempdir().unwrap();
        let mut config = config(temp.path());
        config.reserved.cpu_milli = 250;
        config.reserved.memory_bytes = 1 << 30;
        let made = node(&config, &machine()).status.unwrap();
        assert_eq!(made.capacity.as_ref().unwrap()["cpu"].0, "2");
        assert_eq!(made.allocatable.as_ref().unwrap()["cpu"].0, "1750m");
        assert_eq!(made.allocatable.as_ref().unwrap()["memory"].0, "3145728Ki");
        assert_eq!(made.capacity.as_ref().unwrap()["pods"].0, "110");
    }
}
