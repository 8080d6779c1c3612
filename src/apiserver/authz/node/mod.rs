//! The Node authorizer: a kubelet may read what its own Pods refer to and nothing else of that kind, its own Node and
//! Pods, and what every kubelet may do regardless of its Pods (upstream: `system:node`'s rules).

mod graph;
mod rules;

use std::sync::Arc;

use serde_json::Value;

use super::{Action, Attributes};
use crate::cache::Cache;
use graph::{Graph, Kind};
use rules::RULES;

pub struct NodeAuthorizer {
    cache: Arc<Cache>,
    graph: Option<Graph>,
}

/// One request for a resource.
struct Asked<'a> {
    node: &'a str,
    verb: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// `Err` says why there is no opinion; the text may be empty.
type Verdict = Result<(), String>;

impl NodeAuthorizer {
    pub fn new(cache: Arc<Cache>) -> NodeAuthorizer {
        let graph = cache.resource(b"/registry/pods/").map(Graph::new);
        NodeAuthorizer { cache, graph }
    }

    pub fn decide(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        let by_rule = || if RULES.iter().any(|rule| rule.allows(&attributes.action)) { Ok(()) } else { no("") };
        let Action::Resource { verb, group, resource, subresource, namespace, name } = attributes.action else {
            return by_rule();
        };
        let asked = Asked { node, verb, subresource, namespace, name };
        match (group, resource) {
            ("", "secrets") => self.read(&asked, Kind::Secret),
            ("", "configmaps") => self.read(&asked, Kind::ConfigMap),
            ("", "persistentvolumeclaims") if subresource == "status" => self.update_status(&asked),
            ("", "persistentvolumeclaims") => self.get(&asked, |asked| self.refers(asked, Kind::Claim)),
            ("", "persistentvolumes") => self.get(&asked, |asked| self.has_volume(asked)),
            ("resource.k8s.io", "resourceclaims") => self.get(&asked, |asked| self.refers(asked, Kind::ResourceClaim)),
            ("storage.k8s.io", "volumeattachments") => {
                self.get(&asked, |asked| self.names_node(b"/registry/volumeattachments/", asked))
            }
            ("", "serviceaccounts") => self.service_account(&asked),
            ("coordination.k8s.io", "leases") => asked.lease(),
            ("storage.k8s.io", "csinodes") => asked.csi_node(),
            ("resource.k8s.io", "resourceslices") => self.slice(&asked, attributes),
            ("", "nodes") => asked.node_object(),
            ("", "pods") => self.pod(&asked, attributes),
            _ => by_rule(),
        }
    }

    /// Single objects of a namespace, by name.
    fn read(&self, asked: &Asked<'_>, kind: Kind) -> Verdict {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !asked.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if asked.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        asked.related(|| self.refers(asked, kind) || (kind == Kind::Secret && self.is_volumes_secret(asked)))
    }

    fn get(&self, asked: &Asked<'_>, related: impl Fn(&Asked<'_>) -> bool) -> Verdict {
        if asked.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !asked.subresource.is_empty() {
            return no("cannot get subresource");
        }
        asked.related(|| related(asked))
    }

    fn update_status(&self, asked: &Asked<'_>) -> Verdict {
        if !matches!(asked.verb, "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        asked.related(|| self.refers(asked, Kind::Claim))
    }

    fn service_account(&self, asked: &Asked<'_>) -> Verdict {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.read(asked, Kind::ServiceAccount);
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if asked.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        asked.related(|| self.refers(asked, Kind::ServiceAccount))
    }

    fn slice(&self, asked: &Asked<'_>, attributes: &Attributes<'_>) -> Verdict {
        if !asked.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match asked.verb {
            // Admission sees whose it is.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                asked.related(|| self.names_node(b"/registry/resourceslices/", asked))
            }
            "watch" | "list" | "deletecollection" if asked.selects_own(attributes) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                     delete, deletecollection",
            ),
        }
    }

    fn pod(&self, asked: &Asked<'_>, attributes: &Attributes<'_>) -> Verdict {
        let runs_here = || self.graph.as_ref().is_some_and(|graph| graph.runs(asked.node, asked.namespace, asked.name));
        match (asked.subresource, asked.verb) {
            ("", "get") => asked.related(runs_here),
            ("", "list" | "watch") if asked.selects_own(attributes) => Ok(()),
            ("", "list" | "watch") if !asked.name.is_empty() => asked.related(runs_here),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            // Admission sees whether these are its own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        }
    }

    /// One of the node's Pods refers to it.
    fn refers(&self, asked: &Asked<'_>, kind: Kind) -> bool {
        self.graph.as_ref().is_some_and(|graph| graph.refers(asked.node, asked.namespace, kind, asked.name))
    }

    /// The volume is bound to a claim of one of the node's Pods.
    fn has_volume(&self, asked: &Asked<'_>) -> bool {
        let Some(volume) = self.object(b"/registry/persistentvolumes/", asked.name) else { return false };
        let claim = |field: &str| volume.pointer("/spec/claimRef")?.get(field)?.as_str().map(str::to_owned);
        let (Some(namespace), Some(claim)) = (claim("namespace"), claim("name")) else { return false };
        self.graph.as_ref().is_some_and(|graph| graph.refers(asked.node, &namespace, Kind::Claim, &claim))
    }

    /// The Secret is one that a volume needs, and the volume is bound to a claim of one of the node's Pods.
    fn is_volumes_secret(&self, asked: &Asked<'_>) -> bool {
        let Some(graph) = &self.graph else { return false };
        graph.claims(asked.node).into_iter().any(|(namespace, claim)| {
            let bound = self.object(b"/registry/persistentvolumeclaims/", &format!("{namespace}/{claim}"));
            let name = bound.and_then(|claim| claim.pointer("/spec/volumeName")?.as_str().map(str::to_owned));
            let volume = name.and_then(|name| self.object(b"/registry/persistentvolumes/", &name));
            volume.is_some_and(|volume| {
                let of_claim = |field: &str| volume.pointer("/spec/claimRef")?.get(field)?.as_str();
                of_claim("namespace") == Some(&namespace)
                    && of_claim("name") == Some(&claim)
                    && graph::needs_secret(&volume, &namespace, asked.namespace, asked.name)
            })
        })
    }

    fn names_node(&self, prefix: &[u8], asked: &Asked<'_>) -> bool {
        let object = self.object(prefix, asked.name);
        object.is_some_and(|object| object.pointer("/spec/nodeName").and_then(Value::as_str) == Some(asked.node))
    }

    fn object(&self, prefix: &[u8], path: &str) -> Option<Value> {
        serde_json::from_slice(&self.cache.resource(prefix)?.get(path)?.value).ok()
    }
}

impl Asked<'_> {
    fn related(&self, related: impl Fn() -> bool) -> Verdict {
        if self.name.is_empty() {
            return no("No Object name found");
        }
        if related() {
            return Ok(());
        }
        Err(format!("no relationship found between node '{}' and this object", self.node))
    }

    /// The field selector demands the node's own name.
    fn selects_own(&self, attributes: &Attributes<'_>) -> bool {
        attributes.field_requirements().known.iter().any(|one| {
            one.key == "spec.nodeName" && one.operator == "In" && one.values.as_slice() == [self.node.to_owned()]
        })
    }

    fn lease(&self) -> Verdict {
        const NAMESPACE: &str = "kube-node-lease";
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            return no("can only get, create, update, patch, or delete a node lease");
        }
        if self.namespace != NAMESPACE {
            return Err(format!("can only access leases in the \"{NAMESPACE}\" system namespace"));
        }
        if self.verb != "create" && self.name != self.node {
            return no("can only access node lease with the same name as the requesting node");
        }
        Ok(())
    }

    fn csi_node(&self) -> Verdict {
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            return no("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.subresource.is_empty() {
            return no("cannot authorize CSINode subresources");
        }
        if self.verb != "create" && self.name != self.node {
            return no("can only access CSINode with the same name as the requesting node");
        }
        Ok(())
    }

    fn node_object(&self) -> Verdict {
        match (self.subresource, self.verb) {
            // Admission sees whether it is its own.
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") if self.name == self.node => Ok(()),
            ("", "get" | "list" | "watch") if self.name.is_empty() => {
                Err(format!("node '{}' cannot read all nodes, only its own Node object", self.node))
            }
            ("", "get" | "list" | "watch") => {
                Err(format!("node '{}' cannot read '{}', only its own Node object", self.node, self.name))
            }
            _ => no(""),
        }
    }
}

fn no(why: &str) -> Verdict {
    Err(why.to_owned())
}

#[cfg(test)]
mod tests;
