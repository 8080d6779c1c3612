//! A kubelet and Pods: it shows its own as mirror pods, and says how those are that are bound to it.

use api::{Failure, Fields};
use serde_json::{Value, json};

use crate::admission::service_account_secrets::names_any;
use crate::admission::{Attributes, Operation, look_up};
use crate::cache::Cache;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn admit(
    cache: &Cache,
    attributes: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Failure> {
    let refuse = |why: String| Err(attributes.refuse(why));
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, None) => {
            let Some(pod) = object else { return Ok(()) };
            let uid =
                look_up(cache, "/registry/minions/", node).map(|node| node.part("metadata").text("uid").to_owned());
            match uid {
                None => Err(Failure::not_found("", "nodes", node)),
                Some(uid) => mirror(pod, node, &uid).map_err(|why| attributes.refuse(why)),
            }
        }
        (Operation::Delete, None) if is_bound(cache, attributes, node, old) => Ok(()),
        (Operation::Delete, None) => {
            refuse(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
        }
        (operation, None) => refuse(format!(
            "unexpected operation \"{}\", node \"{node}\" can only create and delete mirror pods",
            operation.as_str()
        )),
        (Operation::Update, Some("status")) => {
            let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
            status(new, old, node).map_err(|why| attributes.refuse(why))
        }
        (Operation::Create, Some("eviction")) if is_bound(cache, attributes, node, None) => Ok(()),
        (Operation::Create, Some("eviction")) => {
            refuse(format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        (operation, Some("status" | "eviction")) => refuse(format!("unexpected operation \"{}\"", operation.as_str())),
        (_, Some(other)) => {
            refuse(format!("unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed"))
        }
    }
}

fn is_bound(cache: &Cache, attributes: &Attributes<'_>, node: &str, old: Option<&Value>) -> bool {
    let bound = |pod: &Value| pod.part("spec").text("nodeName") == node;
    match old {
        Some(old) => bound(old),
        None => {
            let path = format!("{}/{}", attributes.namespace, attributes.name);
            look_up(cache, "/registry/pods/", &path).is_some_and(|pod| bound(&pod))
        }
    }
}

fn status(new: &Value, old: &Value, node: &str) -> Result<(), String> {
    if old.part("spec").text("nodeName") != node {
        return Err(format!("node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"));
    }
    let labels = |pod: &Value| pod.part("metadata").map("labels").cloned().unwrap_or_default();
    if labels(old) != labels(new) {
        return Err(format!("node \"{node}\" cannot update labels through pod status"));
    }
    let claims = |pod: &Value| -> Vec<Value> {
        let all = pod.part("status").list("resourceClaimStatuses").iter();
        all.map(|one| json!([one.part("name"), one.part("resourceClaimName")])).collect()
    };
    if claims(old) != claims(new) {
        return Err(format!("node \"{node}\" cannot update resource claim statues"));
    }
    if old.part("status").part("extendedResourceClaimStatus") != new.part("status").part("extendedResourceClaimStatus")
    {
        return Err(format!("node \"{node}\" cannot update extended resource claim status"));
    }
    Ok(())
}

/// A Pod that the node runs by itself: it belongs to the node and needs nothing of the API.
fn mirror(pod: &Value, node: &str, uid: &str) -> Result<(), String> {
    let metadata = pod.part("metadata");
    if !metadata.map("annotations").is_some_and(|all| all.contains_key(MIRROR)) {
        return Err(format!("pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"));
    }
    if pod.part("spec").text("nodeName") != node {
        return Err(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"));
    }
    let owner = match metadata.list("ownerReferences") {
        [owner] => owner,
        [] => return Err(format!("node \"{node}\" can only create pods with an owner reference set to itself")),
        _ => return Err(format!("node \"{node}\" can only create pods with a single owner reference set to itself")),
    };
    if owner.text("apiVersion") != "v1" || owner.text("kind") != "Node" || owner.text("name") != node {
        return Err(format!("node \"{node}\" can only create pods with an owner reference set to itself"));
    }
    if !owner.flag("controller") {
        return Err(format!("node \"{node}\" can only create pods with a controller owner reference set to itself"));
    }
    if owner.flag("blockOwnerDeletion") {
        return Err(format!("node \"{node}\" must not set blockOwnerDeletion on an owner reference"));
    }
    if owner.text("uid") != uid {
        return Err(format!("node {node} UID mismatch: expected {} got {uid}", owner.text("uid")));
    }
    match needs(pod) {
        Some(what) => Err(format!("node \"{node}\" can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// What of the API a Pod needs.
fn needs(pod: &Value) -> Option<&'static str> {
    const VOLUMES: [(&str, &str); 7] = [
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const PROJECTED: [(&str, &str); 5] = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let spec = pod.part("spec");
    if !spec.text("serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    if names_any(pod) {
        return Some("secrets");
    }
    let config_map = |container: &Value| {
        container.list("env").iter().any(|env| env.part("valueFrom").has("configMapKeyRef"))
            || container.list("envFrom").iter().any(|source| source.has("configMapRef"))
    };
    if ["containers", "initContainers"].iter().any(|field| spec.list(field).iter().any(config_map)) {
        return Some("configmaps");
    }
    if !spec.list("resourceClaims").is_empty() {
        return Some("resourceclaims");
    }
    let first = |table: &[(&str, &'static str)], source: &Value| {
        table.iter().find(|(kind, _)| source.has(kind)).map(|(_, what)| *what)
    };
    spec.list("volumes").iter().find_map(|volume| {
        let sources = volume.part("projected").list("sources").iter();
        first(&VOLUMES, volume).or_else(|| sources.filter_map(|source| first(&PROJECTED, source)).next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_pod_belongs_to_its_node_and_needs_nothing() {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true});
        let pod = json!({
            "metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": [owner]},
            "spec": {"nodeName": "n", "volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
        });
        assert_eq!(mirror(&pod, "n", "u"), Ok(()));
        assert_eq!(mirror(&pod, "n", "v").unwrap_err(), "node n UID mismatch: expected u got v");
        let mut with = pod.clone();
        with["spec"]["volumes"] = json!([{"projected": {"sources": [{"configMap": {}}]}}]);
        let text = "node \"n\" can not create pods that reference configmaps (via projected volumes)";
        assert_eq!(mirror(&with, "n", "u").unwrap_err(), text);
        let mut alone = pod;
        alone["metadata"]["ownerReferences"] = json!([]);
        assert!(mirror(&alone, "n", "u").unwrap_err().ends_with("with an owner reference set to itself"));
    }
}
