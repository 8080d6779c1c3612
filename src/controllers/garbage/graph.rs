//! Who owns whom, and what follows from it. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde::Deserialize;

/// What of an object's `metadata` the graph is made from. Its managed fields weigh more than all of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub uid: Option<String>,
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub deletion_timestamp: Option<Time>,
    pub finalizers: Option<Vec<String>>,
    pub owner_references: Option<Vec<OwnerReference>>,
}

/// An object, by what is needed to call the API about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub resource: Arc<Resource>,
    pub namespace: Option<String>,
    pub name: String,
    pub uid: String,
}

/// An owner as its dependent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    blocks: bool,
}

/// What is to be done about an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Todo {
    Nothing,
    /// It waits for its dependents and has none left that it waits for: its finalizer can go.
    FinishForeground(Identity),
    /// It waits for these to go.
    DeleteDependents(Vec<Identity>),
    /// It leaves these behind: they lose their reference to it, then its finalizer can go.
    Orphan(Identity, Vec<Identity>),
    /// None of its owners was seen: if none of these exists it has to go.
    CheckOwners(Identity, Vec<Owner>),
}

#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// By the owner's uid, which may never have been seen.
    dependents: HashMap<String, HashSet<String>>,
    cluster_scoped: HashSet<Resource>,
    resources: HashMap<Resource, Arc<Resource>>,
}

struct Node {
    identity: Identity,
    owners: Vec<Owner>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl Graph {
    /// Takes an object in as it is now. Yields the uids of those to look at.
    pub fn put(&mut self, resource: &Resource, meta: &Metadata) -> Vec<String> {
        let (Some(uid), Some(name)) = (&meta.uid, &meta.name) else { return Vec::new() };
        if meta.namespace.is_none() && !self.cluster_scoped.contains(resource) {
            self.cluster_scoped.insert(resource.clone());
        }
        let resource = self.resources.entry(resource.clone()).or_insert_with(|| Arc::new(resource.clone())).clone();
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|one| one == finalizer);
        let node = Node {
            identity: Identity { resource, namespace: meta.namespace.clone(), name: name.clone(), uid: uid.clone() },
            owners: meta
                .owner_references
                .iter()
                .flatten()
                .map(|reference| Owner {
                    api_version: reference.api_version.clone(),
                    kind: reference.kind.clone(),
                    name: reference.name.clone(),
                    uid: reference.uid.clone(),
                    blocks: reference.block_owner_deletion == Some(true),
                })
                .collect(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has("foregroundDeletion"),
            orphan: has("orphan"),
        };
        // An owner that waits for this one wants to know that it lost its reference.
        let mut woken = self.unlink(uid);
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            woken.push(owner.uid.clone());
        }
        if node.owners.is_empty() && !node.deleting {
            woken.retain(|woken| self.nodes.get(woken).is_some_and(|node| node.deleting));
        } else {
            woken.push(uid.clone());
        }
        self.nodes.insert(uid.clone(), node);
        woken
    }

    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut woken = self.unlink(uid);
        self.nodes.remove(uid);
        woken.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        woken
    }

    /// Removes the objects of a resource that are not among `there`.
    pub fn keep_only(&mut self, resource: &Resource, there: &HashSet<&str>) -> Vec<String> {
        let gone: Vec<String> = self
            .nodes
            .iter()
            .filter(|(uid, node)| *node.identity.resource == *resource && !there.contains(uid.as_str()))
            .map(|(uid, _)| uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    pub fn is_cluster_scoped(&self, resource: &Resource) -> bool {
        self.cluster_scoped.contains(resource)
    }

    pub fn todo(&self, uid: &str) -> Todo {
        let Some(node) = self.nodes.get(uid) else { return Todo::Nothing };
        let dependents = || self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid));
        if node.deleting {
            if node.orphan {
                let dependents = dependents().map(|node| node.identity.clone()).collect();
                return Todo::Orphan(node.identity.clone(), dependents);
            }
            if node.foreground {
                let blocks = |node: &&Node| node.owners.iter().any(|owner| owner.uid == uid && owner.blocks);
                if !dependents().any(|node| blocks(&node)) {
                    return Todo::FinishForeground(node.identity.clone());
                }
                let living = dependents().filter(|node| !node.deleting).map(|node| node.identity.clone()).collect();
                return Todo::DeleteDependents(living);
            }
            return Todo::Nothing;
        }
        // An owner that waits for its dependents is on its way out and keeps nobody.
        let keeps = |owner: &Owner| self.nodes.get(&owner.uid).is_some_and(|node| !(node.deleting && node.foreground));
        if node.owners.is_empty() || node.owners.iter().any(keeps) {
            return Todo::Nothing;
        }
        let unseen = node.owners.iter().filter(|owner| !self.nodes.contains_key(&owner.uid)).cloned().collect();
        Todo::CheckOwners(node.identity.clone(), unseen)
    }

    /// Takes an object's references out of the index; yields its owners.
    fn unlink(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        let mut owners = Vec::new();
        for owner in &node.owners {
            owners.push(owner.uid.clone());
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PODS: Resource = Resource::new("", "v1", "pods");
    const SETS: Resource = Resource::new("apps", "v1", "replicasets");

    fn put(graph: &mut Graph, resource: &Resource, uid: &str, over: Value) -> Vec<String> {
        let mut meta = json!({"name": uid, "namespace": "default", "uid": uid});
        for (key, value) in over.as_object().unwrap() {
            meta[key] = value.clone();
        }
        graph.put(resource, &serde_json::from_value(meta).unwrap())
    }

    fn owned_by(uid: &str) -> Value {
        json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid,
                                    "controller": true, "blockOwnerDeletion": true}]})
    }

    fn with(mut base: Value, over: Value) -> Value {
        for (key, value) in over.as_object().unwrap() {
            base[key] = value.clone();
        }
        base
    }

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn a_dependent_goes_when_its_owner_is_gone() {
        let mut graph = Graph::default();
        put(&mut graph, &SETS, "set", json!({}));
        put(&mut graph, &PODS, "pod", owned_by("set"));
        assert_eq!(graph.todo("pod"), Todo::Nothing);
        assert_eq!(graph.remove("set"), ["pod"]);
        let Todo::CheckOwners(pod, owners) = graph.todo("pod") else { panic!() };
        assert_eq!((pod.name.as_str(), owners[0].uid.as_str()), ("pod", "set"));
        graph.remove("pod");
        assert!(graph.nodes.is_empty() && graph.dependents.is_empty());
    }

    #[test]
    fn an_owner_in_the_foreground_waits_for_its_dependents() {
        let mut graph = Graph::default();
        put(&mut graph, &PODS, "pod", owned_by("set"));
        let leaving = json!({"deletionTimestamp": NOW, "finalizers": ["foregroundDeletion"]});
        put(&mut graph, &SETS, "set", leaving);
        let Todo::DeleteDependents(pods) = graph.todo("set") else { panic!() };
        assert_eq!(pods[0].name, "pod");
        assert!(matches!(graph.todo("pod"), Todo::CheckOwners(..)), "its owner is leaving");
        let woken = put(&mut graph, &PODS, "pod", with(owned_by("set"), json!({"deletionTimestamp": NOW})));
        assert!(woken.contains(&"set".to_owned()));
        assert_eq!(graph.todo("set"), Todo::DeleteDependents(vec![]), "it is on its way");
        assert_eq!(graph.remove("pod"), ["set"]);
        assert!(matches!(graph.todo("set"), Todo::FinishForeground(_)));
    }

    #[test]
    fn orphans_are_let_go_before_their_owner() {
        let mut graph = Graph::default();
        put(&mut graph, &PODS, "pod", owned_by("set"));
        put(&mut graph, &SETS, "set", json!({"deletionTimestamp": NOW, "finalizers": ["orphan"]}));
        let Todo::Orphan(_, pods) = graph.todo("set") else { panic!() };
        assert_eq!(pods.len(), 1);
        let woken = put(&mut graph, &PODS, "pod", json!({}));
        assert_eq!(woken, ["set"], "the owner that waits hears of it");
        assert_eq!(graph.todo("set"), Todo::Orphan(graph.nodes["set"].identity.clone(), vec![]));
    }

    #[test]
    fn one_living_owner_is_enough() {
        let mut graph = Graph::default();
        put(&mut graph, &SETS, "b", json!({}));
        let mut two = owned_by("a");
        two["ownerReferences"].as_array_mut().unwrap().push(owned_by("b")["ownerReferences"][0].clone());
        put(&mut graph, &PODS, "pod", two);
        assert_eq!(graph.todo("pod"), Todo::Nothing);
    }

    #[test]
    fn a_relist_finds_what_went_meanwhile() {
        let mut graph = Graph::default();
        put(&mut graph, &SETS, "set", json!({}));
        put(&mut graph, &PODS, "pod", owned_by("set"));
        assert_eq!(graph.keep_only(&SETS, &HashSet::new()), ["pod"]);
        assert!(!graph.is_cluster_scoped(&SETS));
    }
}
