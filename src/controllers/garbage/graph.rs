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
    /// It waits for these to go, each of which is looked at by itself: another owner may keep it.
    LookAt(Vec<String>),
    /// It leaves these behind: they lose their reference to it, then its finalizer can go.
    Orphan(Identity, Vec<Identity>),
    /// Some of its owners are on their way out or were never seen.
    CheckOwners(Owned),
}

/// An object whose owners do not all keep it.
#[derive(Debug, PartialEq, Eq)]
pub struct Owned {
    pub object: Identity,
    /// The uids of all its owners.
    pub owners: Vec<String>,
    /// An owner was seen that keeps it.
    kept: bool,
    /// The uids of owners that wait for their dependents.
    leaving: Vec<String>,
    /// Owners that may or may not exist.
    pub unseen: Vec<Owner>,
    /// It has dependents itself.
    owns: bool,
    /// A dependent of its waits already, so that they might wait for each other in a circle.
    circle: bool,
    /// What its finalizers ask for when it goes.
    propagation: &'static str,
}

/// What becomes of an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Stays,
    /// It stays, without its references to the owners with these uids.
    Loses(Vec<String>),
    /// It goes; before that its owners stop waiting for it if it is `unblocked`.
    Goes {
        propagation: &'static str,
        unblocked: bool,
    },
}

impl Owned {
    /// `missing` are the uids of those [`Owned::unseen`] that do not exist.
    pub fn fate(&self, missing: &[String]) -> Fate {
        let found = self.unseen.iter().any(|owner| !missing.contains(&owner.uid));
        if self.kept || found {
            let lost: Vec<String> = self.leaving.iter().chain(missing).cloned().collect();
            return if lost.is_empty() { Fate::Stays } else { Fate::Loses(lost) };
        }
        if !self.leaving.is_empty() && self.owns {
            return Fate::Goes { propagation: "Foreground", unblocked: self.circle };
        }
        Fate::Goes { propagation: self.propagation, unblocked: false }
    }
}

#[derive(Default)]
pub struct Graph {
    /// By uid. Every object of the cluster is in there, so each weighs little.
    nodes: HashMap<String, Node>,
    /// By the owner's uid, which may never have been seen.
    dependents: HashMap<String, HashSet<String>>,
    cluster_scoped: HashSet<Resource>,
    resources: HashMap<Resource, Arc<Resource>>,
}

struct Node {
    resource: Arc<Resource>,
    namespace: Option<Box<str>>,
    name: Box<str>,
    owners: Box<[Owner]>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl Node {
    fn waits(&self) -> bool {
        self.deleting && self.foreground
    }

    fn identity(&self, uid: &str) -> Identity {
        Identity {
            resource: self.resource.clone(),
            namespace: self.namespace.as_deref().map(str::to_owned),
            name: self.name.to_string(),
            uid: uid.to_owned(),
        }
    }
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
            resource,
            namespace: meta.namespace.as_deref().map(Box::from),
            name: name.as_str().into(),
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
            .filter(|(uid, node)| *node.resource == *resource && !there.contains(uid.as_str()))
            .map(|(uid, _)| uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    pub fn is_cluster_scoped(&self, resource: &Resource) -> bool {
        self.cluster_scoped.contains(resource)
    }

    pub fn todo(&self, uid: &str) -> Todo {
        let Some(node) = self.nodes.get(uid) else { return Todo::Nothing };
        let dependents = || {
            let uids = self.dependents.get(uid).into_iter().flatten();
            uids.filter_map(|uid| self.nodes.get(uid).map(|node| (uid, node)))
        };
        if node.deleting {
            if node.orphan {
                let dependents = dependents().map(|(uid, node)| node.identity(uid)).collect();
                return Todo::Orphan(node.identity(uid), dependents);
            }
            if node.foreground {
                let blocks = |node: &Node| node.owners.iter().any(|owner| owner.uid == uid && owner.blocks);
                if !dependents().any(|(_, node)| blocks(node)) {
                    return Todo::FinishForeground(node.identity(uid));
                }
                let living = dependents().filter(|(_, node)| !node.deleting).map(|(uid, _)| uid.clone());
                return Todo::LookAt(living.collect());
            }
            return Todo::Nothing;
        }
        let mut owned = Owned {
            object: node.identity(uid),
            owners: node.owners.iter().map(|owner| owner.uid.clone()).collect(),
            kept: false,
            leaving: Vec::new(),
            unseen: Vec::new(),
            owns: dependents().next().is_some(),
            circle: dependents().any(|(_, node)| node.waits()),
            propagation: match (node.orphan, node.foreground) {
                (true, _) => "Orphan",
                (false, true) => "Foreground",
                (false, false) => "Background",
            },
        };
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                Some(seen) if seen.waits() => owned.leaving.push(owner.uid.clone()),
                Some(_) => owned.kept = true,
                None => owned.unseen.push(owner.clone()),
            }
        }
        if owned.leaving.is_empty() && owned.unseen.is_empty() {
            return Todo::Nothing;
        }
        Todo::CheckOwners(owned)
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

    fn checked(graph: &Graph, uid: &str) -> Owned {
        match graph.todo(uid) {
            Todo::CheckOwners(owned) => owned,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_dependent_goes_when_its_owner_is_gone() {
        let mut graph = Graph::default();
        put(&mut graph, &SETS, "set", json!({}));
        put(&mut graph, &PODS, "pod", owned_by("set"));
        assert_eq!(graph.todo("pod"), Todo::Nothing);
        assert_eq!(graph.remove("set"), ["pod"]);
        let pod = checked(&graph, "pod");
        assert_eq!((pod.object.name.as_str(), pod.unseen[0].uid.as_str()), ("pod", "set"));
        assert_eq!(pod.fate(&["set".to_owned()]), Fate::Goes { propagation: "Background", unblocked: false });
        assert_eq!(pod.fate(&[]), Fate::Stays);
        graph.remove("pod");
        assert!(graph.nodes.is_empty() && graph.dependents.is_empty());
    }

    #[test]
    fn an_owner_in_the_foreground_waits_for_its_dependents() {
        let mut graph = Graph::default();
        put(&mut graph, &PODS, "pod", owned_by("set"));
        let leaving = json!({"deletionTimestamp": NOW, "finalizers": ["foregroundDeletion"]});
        put(&mut graph, &SETS, "set", leaving);
        assert_eq!(graph.todo("set"), Todo::LookAt(vec!["pod".to_owned()]));
        let goes = Fate::Goes { propagation: "Background", unblocked: false };
        assert_eq!(checked(&graph, "pod").fate(&[]), goes, "its owner is leaving");
        let woken = put(&mut graph, &PODS, "pod", with(owned_by("set"), json!({"deletionTimestamp": NOW})));
        assert!(woken.contains(&"set".to_owned()));
        assert_eq!(graph.todo("set"), Todo::LookAt(vec![]), "it is on its way");
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
        assert_eq!(graph.todo("set"), Todo::Orphan(graph.nodes["set"].identity("set"), vec![]));
    }

    #[test]
    fn one_living_owner_is_enough_and_the_others_are_forgotten() {
        let mut graph = Graph::default();
        put(&mut graph, &SETS, "b", json!({}));
        let mut two = owned_by("a");
        two["ownerReferences"].as_array_mut().unwrap().push(owned_by("b")["ownerReferences"][0].clone());
        put(&mut graph, &PODS, "pod", two);
        let lost = Fate::Loses(vec!["a".to_owned()]);
        assert_eq!(checked(&graph, "pod").fate(&["a".to_owned()]), lost);
        assert_eq!(checked(&graph, "pod").fate(&[]), Fate::Stays);
        put(&mut graph, &SETS, "a", json!({}));
        assert_eq!(graph.todo("pod"), Todo::Nothing);
        put(&mut graph, &SETS, "a", json!({"deletionTimestamp": NOW, "finalizers": ["foregroundDeletion"]}));
        assert_eq!(graph.todo("a"), Todo::LookAt(vec!["pod".to_owned()]));
        assert_eq!(checked(&graph, "pod").fate(&[]), lost, "only one of them waits for it");
    }

    #[test]
    fn a_circle_of_owners_is_cut_where_it_closes() {
        let mut graph = Graph::default();
        let leaving = json!({"deletionTimestamp": NOW, "finalizers": ["foregroundDeletion"]});
        for (pod, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
            put(&mut graph, &PODS, pod, owned_by(owner));
        }
        put(&mut graph, &PODS, "a", with(owned_by("c"), leaving.clone()));
        assert_eq!(checked(&graph, "b").fate(&[]), Fate::Goes { propagation: "Foreground", unblocked: false });
        put(&mut graph, &PODS, "b", with(owned_by("a"), leaving.clone()));
        assert_eq!(checked(&graph, "c").fate(&[]), Fate::Goes { propagation: "Foreground", unblocked: true });
        let mut unblocked = with(owned_by("b"), leaving);
        unblocked["ownerReferences"][0]["blockOwnerDeletion"] = json!(false);
        put(&mut graph, &PODS, "c", unblocked);
        assert!(matches!(graph.todo("b"), Todo::FinishForeground(_)));
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
