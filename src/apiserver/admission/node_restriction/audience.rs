//! For whom a kubelet's tokens are (KEP-4412): audiences that the Pod's volumes name, or that its volumes' drivers ask
//! for, and others only where the node is allowed to by name.

use api::{Failure, Fields};
use serde_json::Value;

use crate::admission::{Attributes, look_up};
use crate::authz::Action;
use crate::cache::Cache;
use crate::server::ApiServer;

/// Volumes of old and the drivers that serve them now.
const MIGRATED: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

/// `request` is the TokenRequest of a Pod that is known to be the node's.
pub async fn check(server: &ApiServer, attributes: &Attributes<'_>, request: &Value) -> Result<(), Failure> {
    let audience = match request.part("spec").list("audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(attributes.refuse("node may only request 0 or 1 audiences")),
    };
    let pod = request.part("spec").part("boundObjectRef").text("name");
    let cache = server.cache();
    let Some(pod) = look_up(cache, "/registry/pods/", &format!("{}/{pod}", attributes.namespace)) else {
        return Ok(());
    };
    match is_named(cache, &pod, attributes.namespace, audience) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(why) => return Err(attributes.refuse(format!("error validating audience \"{audience}\": {why}"))),
    }
    let action = Action::Resource {
        verb: "request-serviceaccounts-token-audience",
        group: "",
        resource: audience,
        subresource: "",
        namespace: attributes.namespace,
        name: attributes.name,
    };
    if server.authorizer().decide(attributes.user, &action.into()).await.is_allowed() {
        return Ok(());
    }
    Err(attributes.refuse(format!(
        "audience \"{audience}\" not found in pod spec volume, {} is not authorized to request tokens for this audience",
        attributes.user.name
    )))
}

/// What could not be found out counts only where nothing else names the audience.
fn is_named(cache: &Cache, pod: &Value, namespace: &str, audience: &str) -> Result<bool, String> {
    let mut unknown = Vec::new();
    for volume in pod.part("spec").list("volumes") {
        let sources = volume.part("projected").list("sources").iter();
        let mut tokens = sources.filter_map(|source| source.at("serviceAccountToken"));
        if tokens.any(|token| token.text("audience") == audience) {
            return Ok(true);
        }
        let asks = driver(cache, pod, namespace, volume).and_then(|driver| match driver {
            Some(driver) => asks_for(cache, &driver, audience),
            None => Ok(false),
        });
        match asks {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(why) => unknown.push(why),
        }
    }
    match unknown.as_slice() {
        [] => Ok(false),
        [one] => Err(one.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

/// The driver of a volume, if it has one.
fn driver(cache: &Cache, pod: &Value, namespace: &str, volume: &Value) -> Result<Option<String>, String> {
    if volume.part("ephemeral").has("volumeClaimTemplate") {
        let claim = format!("{}-{}", pod.part("metadata").text("name"), volume.text("name"));
        return driver_of_claim(cache, namespace, &claim);
    }
    if let Some(claim) = volume.at("persistentVolumeClaim") {
        return driver_of_claim(cache, namespace, claim.text("claimName"));
    }
    Ok(driver_of_source(volume))
}

fn driver_of_claim(cache: &Cache, namespace: &str, name: &str) -> Result<Option<String>, String> {
    let claim = look_up(cache, "/registry/persistentvolumeclaims/", &format!("{namespace}/{name}"));
    let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
    let name = claim.part("spec").text("volumeName");
    let volume = look_up(cache, "/registry/persistentvolumes/", name);
    let volume = volume.ok_or_else(|| format!("persistentvolume \"{name}\" not found"))?;
    Ok(driver_of_source(volume.part("spec")))
}

fn driver_of_source(source: &Value) -> Option<String> {
    let named = source.part("csi").text("driver");
    if !named.is_empty() {
        return Some(named.to_owned());
    }
    MIGRATED.iter().find(|(field, _)| source.has(field)).map(|(_, driver)| (*driver).to_owned())
}

fn asks_for(cache: &Cache, name: &str, audience: &str) -> Result<bool, String> {
    let driver = look_up(cache, "/registry/csidrivers/", name);
    let driver = driver.ok_or_else(|| format!("csidriver.storage.k8s.io \"{name}\" not found"))?;
    Ok(driver.part("spec").list("tokenRequests").iter().any(|request| request.text("audience") == audience))
}

#[cfg(test)]
mod tests {
    use api::Verb;
    use serde_json::json;

    use crate::identity::Identity;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_kubelet_gets_tokens_for_whom_its_pods_name() {
        let t = Fixture::start().await.with_account().await;
        t.create("", "nodes", json!({"metadata": {"name": "n"}})).await.unwrap();
        t.create(
            "storage.k8s.io",
            "csidrivers",
            json!({"metadata": {"name": "d.example.com"},
            "spec": {"tokenRequests": [{"audience": "vault"}]}}),
        )
        .await
        .unwrap();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "shop"}}]}},
            {"name": "d", "csi": {"driver": "d.example.com"}},
        ]}});
        let pod = t.create("", "pods", pod).await.unwrap();
        t.catch_up().await;
        let node = Identity::node("n");
        let ask = |audiences: &[&str]| {
            let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]});
            let body = json!({"spec": {"audiences": audiences, "boundObjectRef": reference}});
            t.server.call(&node, t.ask(Verb::Create, "", "serviceaccounts/default/token", Some(body)))
        };
        for audiences in [&[][..], &["shop"], &["vault"]] {
            ask(audiences).await.unwrap();
        }
        let failure = ask(&["bank"]).await.unwrap_err();
        assert_eq!(
            failure.message,
            "serviceaccounts \"default\" is forbidden: audience \"bank\" not found in pod spec volume, system:node:n \
             is not authorized to request tokens for this audience"
        );
        let failure = ask(&["shop", "vault"]).await.unwrap_err();
        assert!(failure.message.ends_with("node may only request 0 or 1 audiences"), "{failure}");

        const RBAC: &str = "rbac.authorization.k8s.io";
        let rules = json!([{"apiGroups": [""], "resources": ["bank"], "resourceNames": ["default"],
            "verbs": ["request-serviceaccounts-token-audience"]}]);
        t.create(RBAC, "clusterroles", json!({"metadata": {"name": "bank"}, "rules": rules})).await.unwrap();
        let binding = json!({"metadata": {"name": "bank"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "bank"},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": "system:nodes"}]});
        t.create(RBAC, "clusterrolebindings", binding).await.unwrap();
        t.catch_up().await;
        ask(&["bank"]).await.unwrap();
    }
}
