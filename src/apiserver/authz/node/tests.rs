//! What upstream's kubelets may and may not do.

use serde_json::json;

use super::*;
use crate::authz::Selector;
use crate::testing::Fixture;

fn action<'a>(verb: &'a str, group: &'a str, path: &'a str, namespace: &'a str, name: &'a str) -> Action<'a> {
    let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
    Action::Resource { verb, group, resource, subresource, namespace, name }
}

#[tokio::test]
async fn a_kubelet_reads_what_its_pods_refer_to_and_no_more() {
    let t = Fixture::start().await.with_account().await;
    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "here", "containers": [{"name": "a", "image": "a"}],
        "volumes": [{"name": "k", "secret": {"secretName": "keys"}}, {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}}]}});
    t.create("", "pods", pod).await.unwrap();
    let claim = json!({"metadata": {"name": "disk"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "vol",
        "resources": {"requests": {"storage": "1Gi"}}}});
    t.create("", "persistentvolumeclaims", claim).await.unwrap();
    let volume = json!({"metadata": {"name": "vol"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "default", "name": "disk"},
        "csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"namespace": "store", "name": "stage"}}}});
    t.create("", "persistentvolumes", volume).await.unwrap();
    t.catch_up().await;
    let nodes = NodeAuthorizer::new(t.server.cache().clone());
    let may = |node: &str, action: Action<'_>| nodes.decide(node, &action.into());
    let related = |verb, group, path, namespace, name| {
        assert_eq!(may("here", action(verb, group, path, namespace, name)), Ok(()), "{verb} {path} {name}");
        let refused = may("there", action(verb, group, path, namespace, name)).unwrap_err();
        assert_eq!(refused, "no relationship found between node 'there' and this object", "{verb} {path} {name}");
    };
    related("get", "", "secrets", "default", "keys");
    related("watch", "", "secrets", "default", "keys");
    related("get", "", "secrets", "store", "stage");
    related("get", "", "persistentvolumeclaims", "default", "disk");
    related("patch", "", "persistentvolumeclaims/status", "default", "disk");
    related("get", "", "persistentvolumes", "", "vol");
    related("create", "", "serviceaccounts/token", "default", "default");
    related("get", "", "pods", "default", "web");

    for (verb, group, path, namespace, name, why) in [
        ("get", "", "secrets", "default", "other", "no relationship found between node 'here' and this object"),
        ("update", "", "secrets", "default", "keys", "can only read resources of this type"),
        ("list", "", "secrets", "default", "", "No Object name found"),
        ("list", "", "secrets", "", "", "can only read namespaced object of this type"),
        ("list", "", "persistentvolumes", "", "", "can only get individual resources of this type"),
        ("list", "", "nodes", "", "", "node 'here' cannot read all nodes, only its own Node object"),
        ("get", "", "nodes", "", "there", "node 'here' cannot read 'there', only its own Node object"),
        ("list", "", "pods", "", "", "can only list/watch pods with spec.nodeName field selector"),
        (
            "update",
            "coordination.k8s.io",
            "leases",
            "kube-node-lease",
            "there",
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "get",
            "coordination.k8s.io",
            "leases",
            "default",
            "here",
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            "update",
            "storage.k8s.io",
            "csinodes",
            "",
            "there",
            "can only access CSINode with the same name as the requesting node",
        ),
        ("delete", "", "nodes", "", "here", ""),
        ("get", "", "namespaces", "", "default", ""),
    ] {
        assert_eq!(may("here", action(verb, group, path, namespace, name)), Err(why.to_owned()), "{verb} {path}");
    }
    let mut own = Attributes::from(action("list", "", "pods", "", ""));
    own.fields = Selector::Raw("spec.nodeName=here");
    assert_eq!(nodes.decide("here", &own), Ok(()));
    assert!(nodes.decide("there", &own).is_err());

    t.delete("", "pods/web", Some(json!({"gracePeriodSeconds": 0}))).await.unwrap();
    t.catch_up().await;
    assert!(may("here", action("get", "", "secrets", "default", "keys")).is_err(), "the Pod is gone");
}
