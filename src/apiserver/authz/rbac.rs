//! RBAC, evaluated on roles and bindings as the watch cache has them.
//!
//! Roles and bindings are decoded once for each change and put into an index by subject; a decision looks at the
//! user's own entries only. Aggregated ClusterRoles are put together here too, so that a role counts from the moment
//! it is written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::policy::Rule;
use super::{Action, Decision};
use crate::cache::{Cache, ResourceCache};
use crate::identity::Identity;

const PREFIXES: [&str; 4] =
    ["/registry/clusterroles/", "/registry/roles/", "/registry/clusterrolebindings/", "/registry/rolebindings/"];

pub struct Rbac {
    resources: Option<[Arc<ResourceCache>; 4]>,
    index: ArcSwap<Index>,
    /// Decoded objects of the last index, for the next one; holding it is the right to make one.
    decoded: Mutex<Decoded>,
}

#[derive(Default)]
struct Decoded {
    cluster_roles: HashMap<Bytes, (u64, Arc<Role>)>,
    roles: HashMap<Bytes, (u64, Arc<Role>)>,
    cluster_bindings: HashMap<Bytes, (u64, Arc<Binding>)>,
    bindings: HashMap<Bytes, (u64, Arc<Binding>)>,
}

/// Rules by whom they are bound to, for the whole cluster and by namespace.
#[derive(Default)]
struct Index {
    revisions: [u64; 4],
    cluster: Granted,
    namespaces: HashMap<String, Granted>,
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

#[derive(Default)]
struct Granted {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

#[derive(Clone)]
struct Grant {
    /// None if the role is not there.
    rules: Option<Arc<[Rule]>>,
    binding: Arc<Binding>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Role {
    metadata: Metadata,
    #[serde(default)]
    rules: Option<Vec<Rule>>,
    #[serde(default)]
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregationRule {
    #[serde(default)]
    cluster_role_selectors: Option<Vec<LabelSelector>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LabelSelector {
    #[serde(default)]
    match_labels: Option<HashMap<String, String>>,
    #[serde(default)]
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Deserialize)]
struct Requirement {
    key: String,
    operator: String,
    #[serde(default)]
    values: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    metadata: Metadata,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

impl Rbac {
    pub fn new(cache: Arc<Cache>) -> Rbac {
        let [a, b, c, d] = PREFIXES.map(|prefix| cache.resource(prefix.as_bytes()));
        let resources = match (a, b, c, d) {
            (Some(a), Some(b), Some(c), Some(d)) => Some([a, b, c, d]),
            _ => None,
        };
        Rbac { resources, index: ArcSwap::default(), decoded: Mutex::default() }
    }

    /// Whether it is allowed. Looks at the user's own entries and makes nothing.
    pub fn allows(&self, user: &Identity, action: &Action<'_>) -> bool {
        self.index().grants(user, action.namespace()).any(|grant| grant.allows(action))
    }

    /// Whether it is allowed, and why. Without a grant the reason names roles that are bound but not there.
    pub fn decide(&self, user: &Identity, action: &Action<'_>) -> Decision {
        let index = self.index();
        if let Some(grant) = index.grants(user, action.namespace()).find(|grant| grant.allows(action)) {
            return Decision::Allow { reason: grant.reason(user) };
        }
        let mut missing: Vec<String> = index.grants(user, action.namespace()).filter_map(Grant::missing).collect();
        missing.dedup();
        let reason = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            all => format!("RBAC: [{}]", all.join(", ")),
        };
        Decision::NoOpinion { reason }
    }

    /// Everything that a user may do in a namespace; empty for the cluster's own.
    pub fn rules(&self, user: &Identity, namespace: &str) -> Vec<Rule> {
        let index = self.index();
        let rules = index.grants(user, namespace).filter_map(|grant| grant.rules.as_ref());
        rules.flat_map(|rules| rules.iter().cloned()).collect()
    }

    /// The rules of a role; `namespace` is empty for a ClusterRole.
    pub fn role(&self, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let index = self.index();
        if namespace.is_empty() {
            index.cluster_roles.get(name).cloned()
        } else {
            index.roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
        }
    }

    fn index(&self) -> Arc<Index> {
        let Some(resources) = &self.resources else { return self.index.load_full() };
        let revisions = [0, 1, 2, 3].map(|at: usize| resources[at].revision());
        let index = self.index.load();
        if index.revisions == revisions {
            return index.clone();
        }
        let mut decoded = self.decoded.lock();
        let index = self.index.load();
        if index.revisions == revisions {
            return index.clone();
        }
        let [cluster_roles, roles, cluster_bindings, bindings] = resources;
        decode(cluster_roles, &mut decoded.cluster_roles);
        decode(roles, &mut decoded.roles);
        decode(cluster_bindings, &mut decoded.cluster_bindings);
        decode(bindings, &mut decoded.bindings);
        let index = Arc::new(Index::new(&decoded, revisions));
        self.index.store(index.clone());
        index
    }
}

fn decode<T: DeserializeOwned>(resource: &ResourceCache, decoded: &mut HashMap<Bytes, (u64, Arc<T>)>) {
    let objects = resource.objects(None);
    let mut next = HashMap::with_capacity(objects.len());
    for object in objects {
        let known = decoded.remove(&object.key).filter(|(revision, _)| *revision == object.mod_revision);
        let value = match known {
            Some((_, value)) => value,
            None => match serde_json::from_slice(&object.value) {
                Ok(value) => Arc::new(value),
                Err(error) => {
                    tracing::error!(key = %String::from_utf8_lossy(&object.key), %error, "not evaluated");
                    continue;
                }
            },
        };
        next.insert(object.key.clone(), (object.mod_revision, value));
    }
    *decoded = next;
}

impl Index {
    fn new(decoded: &Decoded, revisions: [u64; 4]) -> Index {
        let all: Vec<&Arc<Role>> = decoded.cluster_roles.values().map(|(_, role)| role).collect();
        let cluster_roles: HashMap<String, Arc<[Rule]>> =
            all.iter().map(|role| (role.metadata.name.clone(), role.effective(&all))).collect();
        let roles: HashMap<(String, String), Arc<[Rule]>> = decoded
            .roles
            .values()
            .map(|(_, role)| {
                let key = (role.metadata.namespace.clone(), role.metadata.name.clone());
                (key, role.rules.clone().unwrap_or_default().into())
            })
            .collect();
        let mut index = Index { revisions, cluster_roles, roles, ..Index::default() };
        for (_, binding) in decoded.cluster_bindings.values() {
            index.cluster.add(binding, index.cluster_roles.get(&binding.role_ref.name));
        }
        for (_, binding) in decoded.bindings.values() {
            let namespace = &binding.metadata.namespace;
            let name = &binding.role_ref.name;
            let rules = match binding.role_ref.kind.as_str() {
                "ClusterRole" => index.cluster_roles.get(name),
                _ => index.roles.get(&(namespace.clone(), name.clone())),
            };
            index.namespaces.entry(namespace.clone()).or_default().add(binding, rules);
        }
        index
    }

    fn grants<'a>(&'a self, user: &'a Identity, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let here = (!namespace.is_empty()).then(|| self.namespaces.get(namespace)).flatten();
        std::iter::once(&self.cluster).chain(here).flat_map(|granted| {
            let own = granted.users.get(&user.name).into_iter().flatten();
            own.chain(user.groups.iter().filter_map(|group| granted.groups.get(group)).flatten())
        })
    }
}

impl Granted {
    fn add(&mut self, binding: &Arc<Binding>, rules: Option<&Arc<[Rule]>>) {
        for subject in binding.subjects.iter().flatten() {
            let grant = Grant { rules: rules.cloned(), binding: binding.clone() };
            match subject.kind.as_str() {
                "User" => self.users.entry(subject.name.clone()).or_default().push(grant),
                "Group" => self.groups.entry(subject.name.clone()).or_default().push(grant),
                "ServiceAccount" => {
                    let namespace =
                        if subject.namespace.is_empty() { &binding.metadata.namespace } else { &subject.namespace };
                    let user = format!("{}{namespace}:{}", Identity::SERVICE_ACCOUNT_PREFIX, subject.name);
                    self.users.entry(user).or_default().push(grant);
                }
                _ => {}
            }
        }
    }
}

impl Grant {
    fn allows(&self, action: &Action<'_>) -> bool {
        self.rules.iter().flat_map(|rules| rules.iter()).any(|rule| rule.allows(action))
    }

    fn reason(&self, user: &Identity) -> String {
        let binding = &self.binding;
        let (kind, place) = if binding.metadata.namespace.is_empty() {
            ("ClusterRoleBinding", Cow::Borrowed(&binding.metadata.name))
        } else {
            ("RoleBinding", Cow::Owned(format!("{}/{}", binding.metadata.name, binding.metadata.namespace)))
        };
        let role = &binding.role_ref;
        format!("RBAC: allowed by {kind} \"{place}\" of {} \"{}\" to {}", role.kind, role.name, self.of(user))
    }

    fn missing(&self) -> Option<String> {
        let role = &self.binding.role_ref;
        let kind = if role.kind == "ClusterRole" { "clusterrole" } else { "role" };
        let text = || format!("{kind}.rbac.authorization.k8s.io \"{}\" not found", role.name);
        self.rules.is_none().then(text)
    }

    /// The subject of the binding that is this user, as messages name it.
    fn of(&self, user: &Identity) -> String {
        let account = user.service_account_name();
        let subject = self.binding.subjects.iter().flatten().find(|subject| match subject.kind.as_str() {
            "User" => subject.name == user.name,
            "Group" => user.is_in(&subject.name),
            _ => account.is_some_and(|(_, name)| name == subject.name),
        });
        match subject {
            Some(subject) if subject.kind == "ServiceAccount" => {
                format!("ServiceAccount \"{}/{}\"", subject.name, subject.namespace)
            }
            Some(subject) => format!("{} \"{}\"", subject.kind, subject.name),
            None => format!("User \"{}\"", user.name),
        }
    }
}

impl Role {
    /// Its rules, with those of the roles that it aggregates.
    fn effective(&self, all: &[&Arc<Role>]) -> Arc<[Rule]> {
        let mut rules = self.rules.clone().unwrap_or_default();
        let selectors = self.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
        for selector in selectors {
            for role in all.iter().filter(|role| selector.matches(&role.metadata)) {
                for rule in role.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        rules.into()
    }
}

impl LabelSelector {
    fn matches(&self, metadata: &Metadata) -> bool {
        let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let all = self.match_labels.iter().flatten().all(|(key, value)| label(key) == Some(value));
        all && self.match_expressions.iter().flatten().all(|requirement| {
            let value = label(&requirement.key);
            let listed = || value.is_some_and(|value| requirement.values.iter().flatten().any(|one| one == value));
            match requirement.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
    }
}
