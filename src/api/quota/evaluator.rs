//! Who counts what: one evaluator for each resource (upstream: `pkg/quota/v1/evaluator/core`).

use jiff::Timestamp;
use serde_json::Value;

use super::facts::{Facts, Kind};
use super::pod::{Amount, Counting, has_pod_level, total};
use super::{Amounts, amounts};
use crate::{Fields, Quantity, Resource};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

const POD_RESOURCES: [&str; 11] = [
    "count/pods",
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const SERVICE_RESOURCES: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];
/// What nobody counts: nothing is kept of them, or too much comes and goes.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluator {
    Pods,
    Services,
    PersistentVolumeClaims,
    /// Objects by number, under these names.
    Count(Vec<String>),
}

impl Evaluator {
    /// `None` for what is never counted.
    pub fn of(group: &str, plural: &str) -> Option<Evaluator> {
        if IGNORED.contains(&(group, plural)) {
            return None;
        }
        Some(match (group, plural) {
            ("", "pods") => Evaluator::Pods,
            ("", "services") => Evaluator::Services,
            ("", "persistentvolumeclaims") => Evaluator::PersistentVolumeClaims,
            ("", "configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets") => {
                Evaluator::Count(vec![format!("count/{plural}"), plural.to_owned()])
            }
            ("", _) => Evaluator::Count(vec![format!("count/{plural}")]),
            _ => Evaluator::Count(vec![format!("count/{plural}.{group}")]),
        })
    }

    /// The one of a resource.
    pub fn of_resource(resource: &Resource) -> Option<Evaluator> {
        Evaluator::of(&resource.group, &resource.plural)
    }

    /// The name in a quota is about objects of this kind.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Evaluator::Pods => {
                POD_RESOURCES.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || (name.starts_with("requests.") && is_extended(name))
            }
            Evaluator::Services => SERVICE_RESOURCES.contains(&name),
            Evaluator::PersistentVolumeClaims => {
                let counted = ["persistentvolumeclaims", "requests.storage"];
                let of_class = || name.split_once(CLASS_SUFFIX).is_some_and(|(_, what)| counted.contains(&what));
                name == "count/persistentvolumeclaims" || counted.contains(&name) || of_class()
            }
            Evaluator::Count(names) => names.iter().any(|one| one == name),
        }
    }

    /// Whether a request changes what is used; `old` is there for an update.
    pub fn handles(&self, subresource: Option<&str>, object: &Value, old: Option<&Value>) -> bool {
        match (self, subresource, old) {
            (Evaluator::Pods, None, Some(old)) => is_terminating(old) != is_terminating(object),
            (Evaluator::Pods, Some("resize"), Some(_)) => true,
            (Evaluator::Services | Evaluator::PersistentVolumeClaims, None, Some(_)) => true,
            (Evaluator::PersistentVolumeClaims, Some("status"), Some(old)) => {
                let allocated = |claim: &Value| claim.part("status").part("allocatedResources").clone();
                allocated(old) != allocated(object) || attributes_classes(old) != attributes_classes(object)
            }
            (_, None, None) => true,
            _ => false,
        }
    }

    pub fn facts(&self, object: &Value, now: Timestamp) -> Facts {
        match self {
            Evaluator::Pods => pod(object, now),
            Evaluator::Services => Facts { usage: service(object), ..Facts::default() },
            Evaluator::PersistentVolumeClaims => Facts {
                usage: claim(object),
                kind: Kind::Claim { attributes_classes: attributes_classes(object) },
                containers: None,
            },
            Evaluator::Count(names) => {
                Facts { usage: names.iter().map(|name| (name.clone(), one())).collect(), ..Facts::default() }
            }
        }
    }
}

fn one() -> Quantity {
    Quantity::millis(1000)
}

fn number(count: usize) -> Quantity {
    Quantity::millis(i64::try_from(count).unwrap_or_default().saturating_mul(1000))
}

/// Not one of Kubernetes' own resources.
fn is_extended(name: &str) -> bool {
    (name.contains('/') && !name.contains("kubernetes.io/")) || name.contains("deviceclass.resource.kubernetes.io/")
}

fn is_terminating(pod: &Value) -> bool {
    pod.part("spec").int("activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

fn pod(pod: &Value, now: Timestamp) -> Facts {
    let spec = pod.part("spec");
    let mut usage = Amounts::from([("count/pods".to_owned(), one())]);
    if is_used(pod, now) {
        let counting = Counting { overhead: true, status: true };
        let requests = total(pod, Amount::Requests, counting);
        let limits = total(pod, Amount::Limits, counting);
        usage.extend(named(&requests, &limits));
    }
    let containers = (!has_pod_level(pod)).then(|| {
        let all = spec.list("containers").iter().chain(spec.list("initContainers"));
        all.map(|container| {
            let resources = container.part("resources");
            let said = named(&amounts(resources.part("requests")), &amounts(resources.part("limits")));
            (container.text("name").to_owned(), said.into_keys().collect())
        })
        .collect()
    });
    let class = spec.text("priorityClassName");
    Facts {
        usage,
        kind: Kind::Pod {
            terminating: is_terminating(pod),
            best_effort: is_best_effort(pod),
            priority_class: if class.is_empty() { Vec::new() } else { vec![class.to_owned()] },
            cross_namespace: is_cross_namespace(spec.part("affinity")),
        },
        containers,
    }
}

/// A Pod that is through, or should have been gone by now, uses nothing but its name.
fn is_used(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod.part("status").text("phase"), "Failed" | "Succeeded") {
        return false;
    }
    let metadata = pod.part("metadata");
    let deleted = metadata.text("deletionTimestamp").parse::<Timestamp>().ok();
    let (Some(deleted), Some(grace)) = (deleted, metadata.int("deletionGracePeriodSeconds")) else { return true };
    now.as_second().saturating_sub(deleted.as_second()) <= grace
}

/// Amounts under the names that quotas have for them.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut all = Amounts::from([("pods".to_owned(), one())]);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            all.insert(name.to_owned(), *request);
            all.insert(format!("requests.{name}"), *request);
        }
        if let Some(limit) = limits.get(name) {
            all.insert(format!("limits.{name}"), *limit);
        }
    }
    for (name, request) in requests {
        if name.starts_with("hugepages-") {
            all.insert(name.clone(), *request);
        }
        if name.starts_with("hugepages-") || is_extended(name) {
            all.insert(format!("requests.{name}"), *request);
        }
    }
    all
}

/// `PodQOSBestEffort`: nobody asks for processors or memory, and nobody is limited in them.
fn is_best_effort(pod: &Value) -> bool {
    let class = pod.part("status").text("qosClass");
    if !class.is_empty() {
        return class == "BestEffort";
    }
    let spec = pod.part("spec");
    let asks = |resources: &Value| {
        ["requests", "limits"].iter().any(|field| {
            let said = amounts(resources.part(field));
            ["cpu", "memory"].iter().any(|name| said.get(*name).is_some_and(|amount| !amount.is_zero()))
        })
    };
    let mut containers = spec.list("containers").iter().chain(spec.list("initContainers"));
    !asks(spec.part("resources")) && !containers.any(|container| asks(container.part("resources")))
}

fn is_cross_namespace(affinity: &Value) -> bool {
    let crosses = |term: &Value| !term.list("namespaces").is_empty() || term.has("namespaceSelector");
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let rules = affinity.part(kind);
        rules.list("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || rules
                .list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| crosses(weighted.part("podAffinityTerm")))
    })
}

fn service(service: &Value) -> Amounts {
    let spec = service.part("spec");
    let ports = spec.list("ports");
    let (node_ports, balancers) = match spec.text("type") {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if spec.at("allocateLoadBalancerNodePorts") == Some(&Value::Bool(false)) => {
            (ports.iter().filter(|port| port.int("nodePort").is_some_and(|port| port != 0)).count(), 1)
        }
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    [
        ("count/services", one()),
        ("services", one()),
        ("services.nodeports", number(node_ports)),
        ("services.loadbalancers", number(balancers)),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), amount))
    .collect()
}

fn claim(claim: &Value) -> Amounts {
    let mut usage = Amounts::from([
        ("persistentvolumeclaims".to_owned(), one()),
        ("count/persistentvolumeclaims".to_owned(), one()),
    ]);
    let annotations = claim.part("metadata").part("annotations");
    let spec = claim.part("spec");
    let class = if annotations.has(OLD_CLASS) { annotations.text(OLD_CLASS) } else { spec.text("storageClassName") };
    if !class.is_empty() {
        usage.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), one());
    }
    let storage = |map: &Value| map.at("storage").and_then(|amount| Quantity::from_value(amount).ok());
    let Some(mut size) = storage(spec.part("resources").part("requests")) else { return usage };
    if let Some(allocated) = storage(claim.part("status").part("allocatedResources")) {
        size = size.max(allocated);
    }
    if !size.is_whole() {
        size = Quantity::units(size.value(), size.form());
    }
    usage.insert("requests.storage".to_owned(), size);
    if !class.is_empty() {
        usage.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), size);
    }
    usage
}

/// The classes of attributes that a claim has, wants or is getting.
fn attributes_classes(claim: &Value) -> Vec<String> {
    let status = claim.part("status");
    let mut names: Vec<String> = [
        claim.part("spec").text("volumeAttributesClassName"),
        status.text("currentVolumeAttributesClassName"),
        status.part("modifyVolumeStatus").text("targetVolumeAttributesClassName"),
    ]
    .into_iter()
    .filter(|name| !name.is_empty())
    .map(str::to_owned)
    .collect();
    names.sort();
    names.dedup();
    names
}
