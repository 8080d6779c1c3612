//! Which objects the Pods of each node refer to.
//!
//! Pods are decoded once for each change, and only when a kubelet asks: the graph then takes over what changed since
//! the last question. When too much did, it compares revisions with the watch cache's Pods and decodes those that
//! differ.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::{Follower, ResourceCache, Stored};

/// What a Pod may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

pub struct Graph {
    pods: Arc<ResourceCache>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    follower: Option<Follower>,
    pods: HashMap<Bytes, Pod>,
    /// Keys of the Pods on each node.
    nodes: HashMap<Arc<str>, Vec<Bytes>>,
}

struct Pod {
    revision: u64,
    node: Option<Arc<str>>,
    namespace: Box<str>,
    name: Box<str>,
    references: Box<[(Kind, Box<str>)]>,
}

impl Graph {
    pub fn new(pods: Arc<ResourceCache>) -> Graph {
        Graph { pods, state: Mutex::default() }
    }

    /// A Pod of the node, in this namespace, refers to the object.
    pub fn refers(&self, node: &str, namespace: &str, kind: Kind, name: &str) -> bool {
        let state = self.state();
        state.on(node).any(|pod| {
            *pod.namespace == *namespace && pod.references.iter().any(|(one, named)| *one == kind && **named == *name)
        })
    }

    pub fn runs(&self, node: &str, namespace: &str, name: &str) -> bool {
        let state = self.state();
        state.on(node).any(|pod| *pod.namespace == *namespace && *pod.name == *name)
    }

    /// Namespaces and names of the claims that the node's Pods refer to.
    pub fn claims(&self, node: &str) -> Vec<(String, String)> {
        let state = self.state();
        let claims = state.on(node).flat_map(|pod| {
            let names = pod.references.iter().filter(|(kind, _)| *kind == Kind::Claim);
            names.map(|(_, name)| (pod.namespace.to_string(), name.to_string()))
        });
        claims.collect()
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.catch_up(&self.pods);
        state
    }
}

impl State {
    fn on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.nodes.get(node).into_iter().flatten().filter_map(|key| self.pods.get(key))
    }

    fn catch_up(&mut self, pods: &Arc<ResourceCache>) {
        while let Some(follower) = &mut self.follower {
            let Ok(changes) = follower.ready() else { break };
            if changes.is_empty() {
                return;
            }
            for change in &changes {
                self.change(&change.object, change.deleted);
            }
        }
        let (snapshot, follower) = pods.snapshot_and_follow(None, 0);
        let there: HashMap<&Bytes, u64> =
            snapshot.objects.iter().map(|stored| (&stored.key, stored.mod_revision)).collect();
        let gone: Vec<Bytes> = self.pods.keys().filter(|key| !there.contains_key(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        for stored in &snapshot.objects {
            if self.pods.get(&stored.key).is_none_or(|known| known.revision != stored.mod_revision) {
                self.change(stored, false);
            }
        }
        self.follower = Some(follower);
    }

    fn change(&mut self, stored: &Stored, deleted: bool) {
        self.remove(&stored.key);
        if deleted {
            return;
        }
        let Ok(object) = serde_json::from_slice::<Value>(&stored.value) else { return };
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let node = Some(text("/spec/nodeName")).filter(|node| !node.is_empty());
        let node = node.map(|node| match self.nodes.get_key_value(node) {
            Some((known, _)) => known.clone(),
            None => Arc::from(node),
        });
        // A node makes its mirror Pods itself: they must give it nothing.
        let references = match &node {
            Some(_) if !is_mirror(&object) => references(&object),
            _ => Vec::new(),
        };
        if let Some(node) = &node {
            self.nodes.entry(node.clone()).or_default().push(stored.key.clone());
        }
        let pod = Pod {
            revision: stored.mod_revision,
            node,
            namespace: stored.namespace().into(),
            name: stored.name().into(),
            references: references.into(),
        };
        self.pods.insert(stored.key.clone(), pod);
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(node) = self.pods.remove(key).and_then(|pod| pod.node) else { return };
        if let Some(keys) = self.nodes.get_mut(&node) {
            keys.retain(|one| one != key);
            if keys.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }
}

fn is_mirror(pod: &Value) -> bool {
    let annotations = pod.pointer("/metadata/annotations");
    annotations.is_some_and(|annotations| annotations.get("kubernetes.io/config.mirror").is_some())
}

/// What a Pod names in its volumes, environment, pull secrets, claims and as its account.
fn references(pod: &Value) -> Vec<(Kind, Box<str>)> {
    let mut found: Vec<(Kind, Box<str>)> = Vec::new();
    let mut add = |kind: Kind, name: Option<&Value>| {
        let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) else { return };
        if !found.iter().any(|(one, known)| *one == kind && **known == *name) {
            found.push((kind, name.into()));
        }
    };
    let Some(spec) = pod.get("spec") else { return found };
    add(Kind::ServiceAccount, spec.get("serviceAccountName"));
    for secret in items(spec, "imagePullSecrets") {
        add(Kind::Secret, secret.get("name"));
    }
    for volume in items(spec, "volumes") {
        add(Kind::Secret, volume.pointer("/secret/secretName"));
        add(Kind::Secret, volume.pointer("/azureFile/secretName"));
        // Of csi it is nodePublishSecretRef, of all others secretRef.
        for source in volume.as_object().into_iter().flatten().map(|(_, source)| source) {
            add(Kind::Secret, source.pointer("/secretRef/name"));
            add(Kind::Secret, source.pointer("/nodePublishSecretRef/name"));
        }
        add(Kind::ConfigMap, volume.pointer("/configMap/name"));
        for source in volume.get("projected").into_iter().flat_map(|projected| items(projected, "sources")) {
            add(Kind::Secret, source.pointer("/secret/name"));
            add(Kind::ConfigMap, source.pointer("/configMap/name"));
        }
        add(Kind::Claim, volume.pointer("/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some() {
            let name = |object: &Value| object.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let pod = pod.get("metadata").map(name).unwrap_or_default();
            add(Kind::Claim, Some(&Value::String(format!("{pod}-{}", name(volume)))));
        }
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    for container in containers.flat_map(|field| items(spec, field)) {
        for variable in items(container, "env") {
            add(Kind::Secret, variable.pointer("/valueFrom/secretKeyRef/name"));
            add(Kind::ConfigMap, variable.pointer("/valueFrom/configMapKeyRef/name"));
        }
        for source in items(container, "envFrom") {
            add(Kind::Secret, source.pointer("/secretRef/name"));
            add(Kind::ConfigMap, source.pointer("/configMapRef/name"));
        }
    }
    for claim in items(spec, "resourceClaims") {
        add(Kind::ResourceClaim, claim.get("resourceClaimName"));
    }
    for status in pod.get("status").into_iter().flat_map(|status| items(status, "resourceClaimStatuses")) {
        add(Kind::ResourceClaim, status.get("resourceClaimName"));
    }
    add(Kind::ResourceClaim, pod.pointer("/status/extendedResourceClaimStatus/resourceClaimName"));
    found
}

/// The volume, bound to a claim in `claim_namespace`, names the Secret as one that is needed on the node.
pub fn needs_secret(volume: &Value, claim_namespace: &str, namespace: &str, name: &str) -> bool {
    let Some(spec) = volume.get("spec") else { return false };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let is = |reference: Option<&Value>| {
        reference.is_some_and(|reference| {
            let place = text(reference.get("namespace"));
            let place = if place.is_empty() { claim_namespace } else { &place };
            place == namespace && text(reference.get("name")) == name
        })
    };
    let azure = spec.get("azureFile").is_some_and(|azure| {
        let place = text(azure.get("secretNamespace"));
        let place = if place.is_empty() { claim_namespace } else { &place };
        place == namespace && text(azure.get("secretName")) == name
    });
    let of_csi = |field: &str| spec.get("csi").and_then(|csi| csi.get(field));
    azure
        || spec.as_object().into_iter().flatten().any(|(_, source)| is(source.get("secretRef")))
        || ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"]
            .into_iter()
            .any(|field| is(of_csi(field)))
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_references_are_found_in_all_their_places() {
        let pod = json!({"metadata": {"name": "web"}, "spec": {
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "configMap": {"name": "settings"}},
                {"name": "b", "secret": {"secretName": "keys"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "mixed"}}, {"configMap": {"name": "root"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}},
                {"name": "e", "ephemeral": {}},
                {"name": "f", "csi": {"nodePublishSecretRef": {"name": "publish"}}},
                {"name": "g", "cephfs": {"secretRef": {"name": "ceph"}}},
            ],
            "initContainers": [{"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env", "key": "x"}}}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "all"}}]}],
            "resourceClaims": [{"name": "r", "resourceClaimName": "gpu"}],
        }, "status": {"resourceClaimStatuses": [{"name": "s", "resourceClaimName": "made"}]}});
        let found = references(&pod);
        let names = |kind: Kind| {
            let names: Vec<&str> = found.iter().filter(|(one, _)| *one == kind).map(|(_, name)| &**name).collect();
            names.join(" ")
        };
        assert_eq!(names(Kind::Secret), "pull keys mixed publish ceph env");
        assert_eq!(names(Kind::ConfigMap), "settings root all");
        assert_eq!(names(Kind::Claim), "disk web-e");
        assert_eq!(names(Kind::ServiceAccount), "robot");
        assert_eq!(names(Kind::ResourceClaim), "gpu made");
    }

    #[test]
    fn a_volumes_secrets_are_in_its_claims_namespace_unless_it_says_otherwise() {
        let volume = json!({"spec": {"csi": {"nodeStageSecretRef": {"namespace": "store", "name": "stage"}},
            "flexVolume": {"secretRef": {"name": "flex"}}}});
        assert!(needs_secret(&volume, "shop", "store", "stage"));
        assert!(!needs_secret(&volume, "shop", "shop", "stage"));
        assert!(needs_secret(&volume, "shop", "shop", "flex"));
    }
}
