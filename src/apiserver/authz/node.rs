//! The Node authorizer: a kubelet may read what its own Pods refer to and nothing else of that kind.
//!
//! What every kubelet may do regardless of its Pods is data: the rules that upstream calls `system:node`.
//! Limitation: references are looked up in the node's Pods at each request for a Secret, ConfigMap, claim or token;
//! a node has few Pods.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::Action;
use super::policy::Rule;
use crate::cache::{Cache, ResourceCache};

pub struct NodeAuthorizer {
    cache: Arc<Cache>,
    pods: Option<Arc<ResourceCache>>,
}

impl NodeAuthorizer {
    pub fn new(cache: Arc<Cache>) -> NodeAuthorizer {
        let pods = cache.resource(b"/registry/pods/");
        NodeAuthorizer { cache, pods }
    }

    pub fn decide(&self, node: &str, action: &Action<'_>) -> Result<(), String> {
        let by_rule = || RULES.iter().any(|rule| rule.allows(action));
        let Action::Resource { verb, group, resource, subresource, namespace, name, .. } = *action else {
            return if by_rule() { Ok(()) } else { Err(String::new()) };
        };
        match (group, resource) {
            ("", "secrets" | "configmaps") => self.referenced(node, verb, resource, namespace, name),
            ("", "persistentvolumeclaims") if subresource.is_empty() => {
                self.referenced(node, verb, resource, namespace, name)
            }
            ("", "persistentvolumes") if verb == "get" && subresource.is_empty() => self.volume(node, name),
            ("", "serviceaccounts") if subresource == "token" && verb == "create" => {
                let wanted = Reference { kind: "serviceaccounts", name };
                if self.any_pod(node, namespace, |pod| refers(pod, &wanted)) { Ok(()) } else { Err(unrelated(node)) }
            }
            ("coordination.k8s.io", "leases") if namespace == "kube-node-lease" => {
                let own = verb == "create" || name == node;
                match verb {
                    "get" | "create" | "update" | "patch" | "delete" if own => Ok(()),
                    _ => Err("can only access node lease with the same name as the requesting node".to_owned()),
                }
            }
            ("storage.k8s.io", "csinodes") => {
                let own = verb == "create" || name == node;
                match verb {
                    "get" | "create" | "update" | "patch" | "delete" if own => Ok(()),
                    _ => Err("can only access CSINode with the same name as the requesting node".to_owned()),
                }
            }
            ("storage.k8s.io", "volumeattachments") if verb == "get" => Ok(()),
            _ if by_rule() => Ok(()),
            _ => Err(String::new()),
        }
    }

    fn referenced(&self, node: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> Result<(), String> {
        if !matches!(verb, "get" | "list" | "watch") {
            return Err(format!("can only read resources of this type: {resource}"));
        }
        if name.is_empty() || namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        let kind = match resource {
            "secrets" => "secrets",
            "configmaps" => "configmaps",
            _ => "persistentvolumeclaims",
        };
        let wanted = Reference { kind, name };
        if self.any_pod(node, namespace, |pod| refers(pod, &wanted)) { Ok(()) } else { Err(unrelated(node)) }
    }

    /// A volume belongs to a claim of one of the node's Pods.
    fn volume(&self, node: &str, name: &str) -> Result<(), String> {
        let volume = self.cache.resource(b"/registry/persistentvolumes/").and_then(|volumes| volumes.get(name));
        let claim = volume.and_then(|volume| {
            let volume: Value = serde_json::from_slice(&volume.value).ok()?;
            let text = |path: &str| volume.pointer(path).and_then(Value::as_str).map(str::to_owned);
            Some((text("/spec/claimRef/namespace")?, text("/spec/claimRef/name")?))
        });
        let Some((namespace, claim)) = claim else { return Err(unrelated(node)) };
        let wanted = Reference { kind: "persistentvolumeclaims", name: &claim };
        if self.any_pod(node, &namespace, |pod| refers(pod, &wanted)) { Ok(()) } else { Err(unrelated(node)) }
    }

    fn any_pod(&self, node: &str, namespace: &str, matches: impl Fn(&Value) -> bool) -> bool {
        let Some(pods) = &self.pods else { return false };
        // The name of the node appears literally in the bytes of its Pods, which spares decoding all the others.
        let mark = format!("\"nodeName\":\"{node}\"");
        pods.objects(Some(namespace)).iter().any(|stored| {
            contains(&stored.value, mark.as_bytes())
                && serde_json::from_slice::<Value>(&stored.value).is_ok_and(|pod| {
                    pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node) && matches(&pod)
                })
        })
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

struct Reference<'a> {
    kind: &'static str,
    name: &'a str,
}

/// A Pod names the object in its volumes, environment, pull secrets or as its account.
fn refers(pod: &Value, wanted: &Reference<'_>) -> bool {
    let Some(spec) = pod.get("spec") else { return false };
    let is = |value: Option<&Value>| value.and_then(Value::as_str) == Some(wanted.name);
    match wanted.kind {
        "serviceaccounts" => {
            is(spec.get("serviceAccountName")) || (wanted.name == "default" && spec.get("serviceAccountName").is_none())
        }
        "persistentvolumeclaims" => volumes(spec).any(|volume| {
            is(volume.pointer("/persistentVolumeClaim/claimName"))
                || (volume.get("ephemeral").is_some() && ephemeral_claim(pod, volume).as_deref() == Some(wanted.name))
        }),
        "configmaps" => {
            volumes(spec).any(|volume| is(volume.pointer("/configMap/name")))
                || sources(spec).any(|source| is(source.pointer("/configMap/name")))
                || environments(spec, "/valueFrom/configMapKeyRef/name", "/configMapRef/name")
                    .any(|name| is(Some(name)))
        }
        _ => {
            volumes(spec).any(|volume| {
                is(volume.pointer("/secret/secretName"))
                    || volume.as_object().into_iter().flatten().any(|(_, kind)| is(kind.pointer("/secretRef/name")))
            }) || sources(spec).any(|source| is(source.pointer("/secret/name")))
                || items(spec, "imagePullSecrets").any(|secret| is(secret.get("name")))
                || environments(spec, "/valueFrom/secretKeyRef/name", "/secretRef/name").any(|name| is(Some(name)))
        }
    }
}

fn ephemeral_claim(pod: &Value, volume: &Value) -> Option<String> {
    let pod = pod.pointer("/metadata/name")?.as_str()?;
    Some(format!("{pod}-{}", volume.get("name")?.as_str()?))
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn volumes(spec: &Value) -> impl Iterator<Item = &Value> {
    items(spec, "volumes")
}

/// The sources of projected volumes.
fn sources(spec: &Value) -> impl Iterator<Item = &Value> {
    volumes(spec).filter_map(|volume| volume.get("projected")).flat_map(|projected| items(projected, "sources"))
}

fn environments<'a>(spec: &'a Value, one: &'static str, all: &'static str) -> impl Iterator<Item = &'a Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|field| items(spec, field)).flat_map(
        move |container| {
            let vars = items(container, "env").filter_map(move |var| var.pointer(one));
            vars.chain(items(container, "envFrom").filter_map(move |source| source.pointer(all)))
        },
    )
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |verbs: &[&str], group: &str, resources: &[&str]| Rule {
        verbs: verbs.iter().map(|one| (*one).to_owned()).collect(),
        api_groups: vec![group.to_owned()],
        resources: resources.iter().map(|one| (*one).to_owned()).collect(),
        ..Rule::default()
    };
    const READ: &[&str] = &["get", "list", "watch"];
    vec![
        rule(&["create"], "authentication.k8s.io", &["tokenreviews"]),
        rule(&["create"], "authorization.k8s.io", &["subjectaccessreviews", "localsubjectaccessreviews"]),
        rule(READ, "", &["services"]),
        rule(&["create", "get", "list", "watch"], "", &["nodes"]),
        rule(&["update", "patch", "delete"], "", &["nodes"]),
        rule(&["update", "patch"], "", &["nodes/status"]),
        rule(&["create", "update", "patch"], "", &["events"]),
        rule(&["create", "update", "patch"], "events.k8s.io", &["events"]),
        rule(READ, "", &["pods"]),
        rule(&["create", "delete"], "", &["pods"]),
        rule(&["update", "patch"], "", &["pods/status"]),
        rule(&["create"], "", &["pods/eviction"]),
        rule(READ, "", &["serviceaccounts"]),
        rule(&["get"], "", &["endpoints"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(&["create", "get", "list", "watch"], "certificates.k8s.io", &["certificatesigningrequests"]),
        rule(READ, "certificates.k8s.io", &["clustertrustbundles"]),
        rule(READ, "node.k8s.io", &["runtimeclasses"]),
        rule(READ, "storage.k8s.io", &["csidrivers"]),
        rule(&["get", "patch", "update"], "", &["persistentvolumeclaims/status"]),
        rule(READ, "resource.k8s.io", &["resourceclaims"]),
        rule(&["get", "list", "watch", "create", "update", "patch", "delete"], "resource.k8s.io", &["resourceslices"]),
    ]
});

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
            ],
            "initContainers": [{"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env", "key": "x"}}}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "all"}}]}],
        }});
        for (kind, name) in [
            ("serviceaccounts", "robot"),
            ("secrets", "pull"),
            ("secrets", "keys"),
            ("secrets", "mixed"),
            ("secrets", "env"),
            ("configmaps", "settings"),
            ("configmaps", "root"),
            ("configmaps", "all"),
            ("persistentvolumeclaims", "disk"),
            ("persistentvolumeclaims", "web-e"),
        ] {
            assert!(refers(&pod, &Reference { kind, name }), "{kind} {name}");
        }
        assert!(!refers(&pod, &Reference { kind: "secrets", name: "settings" }));
        assert!(!refers(&pod, &Reference { kind: "serviceaccounts", name: "default" }));
    }
}
