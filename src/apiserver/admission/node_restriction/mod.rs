//! NodeRestriction: a kubelet writes its own Node, its own Lease and the Pods that are bound to it,
//! and gets tokens and certificates for those and itself.

use api::{Failure, Fields};
use futures::future::BoxFuture;
use serde_json::Value;

use super::certificates::subject;
use super::{Attributes, Operation, Plugin, look_up};
use crate::cache::Cache;
use crate::identity::Identity;
use crate::server::ApiServer;

mod audience;
mod pods;

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
        let refuse = |why: &str| Err(attributes.refuse(why));
        match (resource.group.as_ref(), resource.plural.as_ref()) {
            ("", "nodes") => own_node(attributes, node, object, old),
            ("", "pods") => pods::admit(cache, attributes, node, object, old),
            ("", "persistentvolumeclaims") => claim_status(attributes, node, object, old),
            ("", "serviceaccounts") => token(cache, attributes, node, object),
            ("coordination.k8s.io", "leases") if attributes.namespace != "kube-node-lease" => {
                refuse("can only access leases in the \"kube-node-lease\" system namespace")
            }
            ("coordination.k8s.io", "leases") if attributes.name != node => {
                refuse("can only access node lease with the same name as the requesting node")
            }
            ("storage.k8s.io", "csinodes") if attributes.name != node => {
                refuse("can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => {
                let verb = match attributes.operation {
                    Operation::Create => "create",
                    Operation::Delete => "delete",
                    Operation::Update | Operation::Connect => return Ok(()),
                };
                let own = object.or(old).is_some_and(|slice| slice.part("spec").text("nodeName") == node);
                if own {
                    return Ok(());
                }
                refuse(&format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
            }
            ("certificates.k8s.io", "certificatesigningrequests") => signing_request(attributes, node, object),
            _ => Ok(()),
        }
    }

    fn asks(&self, attributes: &Attributes<'_>) -> bool {
        let resource = &attributes.row.resource;
        attributes.operation == Operation::Create
            && attributes.subresource == Some("token")
            && resource.group.is_empty()
            && resource.plural == "serviceaccounts"
            && attributes.user.node_name().is_some()
    }

    fn ask<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match object {
                Some(request) => audience::check(server, attributes, request).await,
                None => Ok(()),
            }
        })
    }
}

/// Of claims a kubelet says how big they are.
fn claim_status(
    attributes: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Failure> {
    if attributes.subresource != Some("status") {
        return Err(attributes.refuse("may only update PVC status"));
    }
    let (Operation::Update, Some(object), Some(old)) = (attributes.operation, object, old) else {
        let operation = attributes.operation.as_str();
        return Err(attributes.refuse(format!("unexpected operation \"{operation}\"")));
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(metadata) = claim.object("metadata") {
            metadata.unset("resourceVersion");
            metadata.unset("managedFields");
        }
        if let Some(status) = claim.object("status") {
            for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.unset(field);
            }
        }
        claim
    };
    if rest(object) == rest(old) {
        return Ok(());
    }
    Err(attributes.refuse(format!(
        "node \"{node}\" is not allowed to update fields other than status.quantity and status.conditions"
    )))
}

/// A kubelet gets tokens for Pods that are bound to it.
fn token(cache: &Cache, attributes: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), Failure> {
    let (Operation::Create, Some("token"), Some(request)) = (attributes.operation, attributes.subresource, object)
    else {
        return Ok(());
    };
    let reference = request.part("spec").part("boundObjectRef");
    let (name, uid) = (reference.text("name"), reference.text("uid"));
    if reference.text("apiVersion") != "v1" || reference.text("kind") != "Pod" || name.is_empty() {
        return Err(attributes.refuse("node requested token not bound to a pod"));
    }
    if uid.is_empty() {
        return Err(attributes.refuse("node requested token with a pod binding without a uid"));
    }
    let pod = look_up(cache, "/registry/pods/", &format!("{}/{name}", attributes.namespace));
    let pod = pod.ok_or_else(|| Failure::not_found("", "pods", name))?;
    if pod.part("metadata").text("uid") != uid {
        return Err(attributes.refuse(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        )));
    }
    if pod.part("spec").text("nodeName") != node {
        return Err(attributes.refuse("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

/// A kubelet asks for certificates in its own name.
fn signing_request(attributes: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), Failure> {
    let (Operation::Create, None, Some(request)) = (attributes.operation, attributes.subresource, object) else {
        return Ok(());
    };
    let spec = request.part("spec");
    let signer = spec.text("signerName");
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let subject = subject(spec.text("request"));
    let subject =
        subject.ok_or_else(|| attributes.refuse("unable to parse csr: PEM block type must be CERTIFICATE REQUEST"))?;
    let name = format!("{}{node}", Identity::NODE_PREFIX);
    if subject.common_name == name {
        return Ok(());
    }
    Err(attributes.refuse(format!("can only create a node CSR with CN={name}")))
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
    if attributes.operation == Operation::Update {
        let taints = |value: Option<&Value>| value.map(|value| value.part("spec").part("taints").clone());
        if taints(Some(object)) != taints(old) {
            return Err(attributes.refuse(format!("node \"{node}\" is not allowed to modify taints")));
        }
        let owners = |value: Option<&Value>| value.map(|value| value.part("metadata").list("ownerReferences").to_vec());
        if owners(Some(object)) != owners(old) {
            return Err(attributes.refuse(format!("node \"{node}\" is not allowed to modify ownerReferences")));
        }
    }
    let labels = |value: Option<&Value>| value.and_then(|value| value.part("metadata").map("labels").cloned());
    let (new, before) = (labels(Some(object)).unwrap_or_default(), labels(old).unwrap_or_default());
    let changed = new
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, _)| key)
        .chain(before.keys().filter(|key| !new.contains_key(*key)));
    let mut forbidden: Vec<&str> = changed.map(String::as_str).filter(|key| !may_set(key)).collect();
    if forbidden.is_empty() {
        return Ok(());
    }
    forbidden.sort_unstable();
    if attributes.operation == Operation::Create {
        let labels = forbidden.join(", ");
        return Err(attributes.refuse(format!("node \"{node}\" is not allowed to set the following labels: {labels}")));
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
