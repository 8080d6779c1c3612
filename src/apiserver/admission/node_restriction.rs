//! NodeRestriction: a kubelet writes its own Node, its own Lease and the Pods that are bound to it.

use api::{Failure, Fields};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, look_up};
use crate::cache::Cache;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels below these that a kubelet may set on its Node.
const OWN_LABELS: [&str; 10] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
];
const OWN_LABEL_DOMAINS: [&str; 3] = ["kubelet.kubernetes.io", "node.kubernetes.io", "beta.kubernetes.io"];

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn validate(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let Some(node) = attributes.user.node_name() else { return Ok(()) };
        let resource = &attributes.row.resource;
        match (resource.group.as_ref(), resource.plural.as_ref()) {
            ("", "nodes") => own_node(attributes, node, object, old),
            ("", "pods") => own_pod(cache, attributes, node, object, old),
            ("coordination.k8s.io", "leases") => {
                let own = attributes.namespace == "kube-node-lease" && attributes.name == node;
                if own {
                    Ok(())
                } else {
                    Err(attributes.refuse("can only access node lease with the same name as the requesting node"))
                }
            }
            ("storage.k8s.io", "csinodes") if attributes.name != node => {
                Err(attributes.refuse("can only access CSINode with the same name as the requesting node"))
            }
            _ => Ok(()),
        }
    }
}

fn own_node(
    attributes: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Failure> {
    if attributes.name != node {
        return Err(attributes.refuse(format!("node \"{node}\" is not allowed to modify node \"{}\"", attributes.name)));
    }
    let Some(object) = object else { return Ok(()) };
    if attributes.operation == Operation::Update && attributes.subresource.is_none() {
        let taints = |value: Option<&Value>| value.map(|value| value.part("spec").part("taints").clone());
        if taints(Some(object)) != taints(old) {
            return Err(attributes.refuse(format!("node \"{node}\" is not allowed to modify taints")));
        }
    }
    let labels = |value: Option<&Value>| value.and_then(|value| value.part("metadata").map("labels").cloned());
    let (new, before) = (labels(Some(object)).unwrap_or_default(), labels(old).unwrap_or_default());
    let changed = new
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, _)| key)
        .chain(before.keys().filter(|key| !new.contains_key(*key)));
    let forbidden: Vec<&str> = changed.map(String::as_str).filter(|key| !may_set(key)).collect();
    if forbidden.is_empty() {
        return Ok(());
    }
    Err(attributes.refuse(format!("is not allowed to modify labels: {}", forbidden.join(", "))))
}

fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&label) || label == "beta.kubernetes.io/arch" || OWN_LABEL_DOMAINS.iter().any(|one| within(one))
}

fn own_pod(
    cache: &Cache,
    attributes: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Failure> {
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, None) => {
            let Some(pod) = object else { return Ok(()) };
            if !pod.part("metadata").map("annotations").is_some_and(|all| all.contains_key(MIRROR)) {
                return Err(attributes.refuse(format!(
                    "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
                )));
            }
            if pod.part("spec").text("nodeName") != node {
                return Err(
                    attributes.refuse(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"))
                );
            }
            Ok(())
        }
        (Operation::Delete, _) | (Operation::Update, Some("status")) => {
            let bound = old.map(|pod| pod.part("spec").text("nodeName") == node).unwrap_or_else(|| {
                let path = format!("{}/{}", attributes.namespace, attributes.name);
                look_up(cache, "/registry/pods/", &path).is_some_and(|pod| pod.part("spec").text("nodeName") == node)
            });
            if bound {
                return Ok(());
            }
            let verb = if attributes.operation == Operation::Delete { "delete" } else { "update status for" };
            Err(attributes.refuse(format!("node \"{node}\" can only {verb} pods with spec.nodeName set to itself")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_labels_its_node_within_its_bounds() {
        for label in ["color", "example.com/x", "kubernetes.io/hostname", "node.kubernetes.io/anything"] {
            assert!(may_set(label), "{label}");
        }
        for label in [
            "node-role.kubernetes.io/control-plane",
            "x.node-restriction.kubernetes.io/y",
            "foo.k8s.io/x",
            "kubernetes.io/role",
        ] {
            assert!(!may_set(label), "{label}");
        }
    }
}
