//! What every cluster has from the start: namespaces, roles and bindings, priority classes, the Service `kubernetes`.
//!
//! Written through the same path as anybody's objects, as `system:apiserver`. What is there already is left alone,
//! but roles and bindings get back what they miss, unless they are marked to be left alone (upstream: RBAC
//! auto-reconciliation). A binding that leads to another role is made anew, since that cannot be changed.

use api::{Call, Failure, Fields, PatchKind, Resource, Verb};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::authz::{Rule, covers};
use crate::config::Error;
use crate::flowcontrol;
use crate::identity::Identity;
use crate::server::ApiServer;

const ROLES: &str = include_str!("../../embedded/apiserver/rbac.yaml");
const RBAC: &str = "rbac.authorization.k8s.io";
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Objects written at the same time: they share the store's syncs.
const PARALLEL: usize = 64;
const MANAGER: &str = "cluster";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// `embedded/apiserver/rbac.yaml`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Roles {
    cluster_roles: Vec<Role>,
    roles: Vec<Role>,
    cluster_role_bindings: Vec<Binding>,
    role_bindings: Vec<Binding>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    /// Labels beside the one that all have.
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    rules: Vec<Value>,
    /// Label whose bearers are aggregated.
    #[serde(default)]
    aggregates: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    /// `ClusterRole/name` or `Role/name`.
    role: String,
    /// `User/name`, `Group/name` or `ServiceAccount/namespace/name`.
    subjects: Vec<String>,
}

pub async fn run(server: &ApiServer) -> Result<(), Error> {
    let user = Identity::master("system:apiserver");
    let namespaces =
        NAMESPACES.map(|name| (Resource::new("", "v1", "namespaces"), None, json!({"metadata": {"name": name}})));
    write(server, &user, namespaces.to_vec()).await?;
    let failed = |object: &str| {
        let object = object.to_owned();
        move |source| Error::Bootstrap { object, source }
    };

    let mut objects = roles().map_err(failed("roles"))?;
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "For Pods without which the cluster does not work, but which may be moved to another node.",
        ),
        ("system-node-critical", 2_000_001_000, "For Pods without which a node does not work."),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        objects.push((Resource::new("scheduling.k8s.io", "v1", "priorityclasses"), None, class));
    }
    let ranges: Vec<String> = server.config().service_cluster_ip_ranges.iter().map(ToString::to_string).collect();
    objects.push((
        Resource::new("networking.k8s.io", "v1", "servicecidrs"),
        None,
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}}),
    ));
    objects.extend(kubernetes_service(server));
    write(server, &user, objects).await?;
    let kept_up = flowcontrol::keep_up(server).await;
    kept_up.map_err(|source| Error::Bootstrap { object: "priority and fairness".to_owned(), source })
}

type Object = (Resource, Option<&'static str>, Value);

async fn write(server: &ApiServer, user: &Identity, objects: Vec<Object>) -> Result<(), Error> {
    let results: Vec<Result<(), Error>> = futures::stream::iter(objects)
        .map(|(resource, namespace, object)| async move {
            let named = format!("{resource}/{}", object.part("metadata").text("name"));
            let ensured = ensure(server, user, resource, namespace, object).await;
            ensured.map_err(|source| Error::Bootstrap { object: named, source })
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn ensure(
    server: &ApiServer,
    user: &Identity,
    resource: Resource,
    namespace: Option<&str>,
    object: Value,
) -> Result<(), Failure> {
    let name = object.part("metadata").text("name").to_owned();
    let namespace = namespace.map(str::to_owned).or_else(|| {
        let namespace = object.part("metadata").text("namespace");
        (!namespace.is_empty()).then(|| namespace.to_owned())
    });
    let call = |verb, body| {
        let mut call = Call::new(verb, resource.clone());
        call.namespace = namespace.clone();
        call.body = body;
        call.options.field_manager = Some(MANAGER.to_owned());
        if verb != Verb::Create {
            call.name = Some(name.clone());
        }
        call
    };
    let row = server.find_row(&resource.group, &resource.version, &resource.plural);
    let there = row.as_ref().and_then(|row| {
        let path = crate::verbs::path(namespace.as_deref().filter(|_| row.namespaced), &name);
        server.cache().resource(row.list_key(None).as_bytes())?.get(&path)
    });
    let Some(stored) = there else {
        return match server.call(user, call(Verb::Create, Some(object))).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_already_exists() => Ok(()),
            Err(failure) => Err(failure),
        };
    };
    let current = stored.decode().map_err(Failure::internal)?;
    let leads_elsewhere = object.has("roleRef") && object.get("roleRef") != current.get("roleRef");
    if leads_elsewhere && current.part("metadata").part("annotations").text(AUTOUPDATE) != "false" {
        server.call(user, call(Verb::Delete, None)).await?;
        return server.call(user, call(Verb::Create, Some(object))).await.map(|_| ());
    }
    let Some(change) = missing(&current, &object) else { return Ok(()) };
    let mut patch = call(Verb::Patch, Some(change));
    patch.options.patch = Some(PatchKind::Merge);
    server.call(user, patch).await.map(|_| ())
}

/// A merge patch that gives back what was taken away; what was added stays. Only for objects that are ours to keep up.
fn missing(current: &Value, wanted: &Value) -> Option<Value> {
    let kept_up = |object: &Value| object.part("metadata").part("annotations").text(AUTOUPDATE) == "true";
    if !kept_up(wanted) {
        // The endpoints of `kubernetes` follow this server's address.
        let moved = ["subsets", "endpoints", "ports"].into_iter().filter(|field| wanted.has(field));
        let changes: Vec<_> = moved.filter(|field| current.get(field) != wanted.get(field)).collect();
        if changes.is_empty() {
            return None;
        }
        let mut change = json!({});
        changes.into_iter().for_each(|field| change.set(field, wanted.part(field).clone()));
        return Some(change);
    }
    // Who wants to change one says so.
    if current.part("metadata").part("annotations").text(AUTOUPDATE) == "false" {
        return None;
    }
    let mut change = json!({});
    let rules = |object: &Value| -> Vec<Rule> {
        object.list("rules").iter().filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
    };
    let lost = covers(&rules(current), &rules(wanted));
    if !lost.is_empty() {
        change.set(
            "rules",
            current.list("rules").iter().cloned().chain(lost.iter().map(|rule| json!(rule))).collect::<Vec<_>>(),
        );
    }
    let there = current.list("subjects");
    let lost: Vec<Value> = wanted.list("subjects").iter().filter(|one| !has_subject(there, one)).cloned().collect();
    if !lost.is_empty() {
        change.set("subjects", there.iter().cloned().chain(lost).collect::<Vec<_>>());
    }
    let selectors = |object: &Value| object.part("aggregationRule").list("clusterRoleSelectors").to_vec();
    let (has, needs) = (selectors(current), selectors(wanted));
    if needs.iter().any(|one| !has.contains(one)) {
        let lost = needs.into_iter().filter(|one| !has.contains(one)).collect::<Vec<_>>();
        let all: Vec<Value> = has.iter().cloned().chain(lost).collect();
        change.set("aggregationRule", json!({"clusterRoleSelectors": all}));
    }
    for field in ["labels", "annotations"] {
        let there = current.part("metadata").part(field);
        for (key, value) in wanted.part("metadata").part(field).as_object().into_iter().flatten() {
            if there.get(key) != Some(value)
                && let Some(place) = change.object("metadata").and_then(|metadata| metadata.object(field))
            {
                place.set(key, value.clone());
            }
        }
    }
    (change != json!({})).then_some(change)
}

fn has_subject(there: &[Value], wanted: &Value) -> bool {
    let same = |one: &Value| ["kind", "namespace", "name"].iter().all(|field| one.text(field) == wanted.text(field));
    there.iter().any(same)
}

fn roles() -> Result<Vec<Object>, Failure> {
    let roles: Roles = serde_saphyr::from_str(ROLES).map_err(Failure::internal)?;
    let metadata = |name: &str, namespace: &Option<String>, labels: &std::collections::BTreeMap<String, String>| {
        let mut metadata = json!({
            "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {AUTOUPDATE: "true"},
        });
        if let Some(namespace) = namespace {
            metadata.set("namespace", namespace.as_str());
        }
        if let Some(all) = metadata.object("labels") {
            labels.iter().for_each(|(key, value)| all.set(key, value.as_str()));
        }
        metadata
    };
    let mut objects = Vec::new();
    for role in roles.cluster_roles.iter().chain(&roles.roles) {
        let plural = if role.namespace.is_some() { "roles" } else { "clusterroles" };
        let mut object = json!({"metadata": metadata(&role.name, &role.namespace, &role.labels), "rules": role.rules});
        if !role.aggregates.is_empty() {
            let selectors: Vec<Value> =
                role.aggregates.iter().map(|label| json!({"matchLabels": {label.as_str(): "true"}})).collect();
            object.set("aggregationRule", json!({"clusterRoleSelectors": selectors}));
            object.unset("rules");
        }
        objects.push((Resource::new(RBAC, "v1", plural), None, object));
    }
    for binding in roles.cluster_role_bindings.iter().chain(&roles.role_bindings) {
        let plural = if binding.namespace.is_some() { "rolebindings" } else { "clusterrolebindings" };
        let (kind, role) = binding.role.split_once('/').unwrap_or(("ClusterRole", &binding.role));
        let subjects: Vec<Value> = binding.subjects.iter().map(|subject| of_subject(subject)).collect();
        let object = json!({
            "metadata": metadata(&binding.name, &binding.namespace, &std::collections::BTreeMap::new()),
            "subjects": subjects,
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        });
        objects.push((Resource::new(RBAC, "v1", plural), None, object));
    }
    Ok(objects)
}

fn of_subject(text: &str) -> Value {
    let (kind, name) = text.split_once('/').unwrap_or(("User", text));
    match (kind, name.split_once('/')) {
        ("ServiceAccount", Some((namespace, name))) => json!({"kind": kind, "namespace": namespace, "name": name}),
        _ => json!({"kind": kind, "apiGroup": RBAC, "name": name}),
    }
}

/// The Service by which Pods reach this server, and where it leads.
fn kubernetes_service(server: &ApiServer) -> Vec<Object> {
    let config = server.config();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {
            "clusterIP": server.services().first_address().map(|address| address.to_string()),
            "type": "ClusterIP", "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.advertise_port}],
        },
    });
    let address = config.advertise_address.to_string();
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": address}],
            "ports": [{"name": "https", "port": config.advertise_port, "protocol": "TCP"}],
        }],
    });
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.advertise_port, "protocol": "TCP"}],
    });
    let mut objects = vec![(Resource::new("", "v1", "services"), Some("default"), service)];
    if config.advertise_address.is_loopback() || config.advertise_address.is_unspecified() {
        tracing::warn!(address, "Pods cannot reach the API server at this address; `kubernetes` gets no endpoints");
        return objects;
    }
    objects.extend([
        (Resource::new("", "v1", "endpoints"), Some("default"), endpoints),
        (Resource::new("discovery.k8s.io", "v1", "endpointslices"), Some("default"), slice),
    ]);
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(annotation: &str, rules: Value) -> Value {
        json!({"metadata": {"name": "x", "annotations": {AUTOUPDATE: annotation}, "labels": {"a": "b"}}, "rules": rules})
    }

    #[test]
    fn roles_get_back_what_they_miss_and_keep_what_was_added() {
        let rule = |verbs: &[&str]| json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs});
        let wanted = role("true", json!([rule(&["get", "list"])]));
        assert_eq!(missing(&role("true", json!([rule(&["*"])])), &wanted), None, "covered by another rule");
        let current = role("true", json!([rule(&["get", "watch"])]));
        let change = missing(&current, &wanted).unwrap();
        assert_eq!(change, json!({"rules": [rule(&["get", "watch"]), rule(&["list"])]}));
        assert_eq!(missing(&role("false", json!([])), &wanted), None, "marked to be left alone");
        let mut unmarked = current.clone();
        unmarked["metadata"] = json!({"name": "x", "labels": {"a": "c"}});
        let change = missing(&unmarked, &wanted).unwrap();
        assert_eq!(change["metadata"], json!({"labels": {"a": "b"}, "annotations": {AUTOUPDATE: "true"}}));
    }

    #[test]
    fn bindings_get_back_their_subjects() {
        let binding = |subjects: Value| json!({"metadata": {"annotations": {AUTOUPDATE: "true"}}, "subjects": subjects, "roleRef": {"name": "x"}});
        let (ours, theirs) = (json!({"kind": "Group", "name": "a"}), json!({"kind": "User", "name": "b"}));
        let change = missing(&binding(json!([theirs])), &binding(json!([ours]))).unwrap();
        assert_eq!(change, json!({"subjects": [theirs, ours]}));
        assert_eq!(missing(&binding(json!([ours, theirs])), &binding(json!([ours]))), None);
    }
}
