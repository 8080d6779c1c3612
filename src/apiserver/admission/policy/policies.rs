//! Policies with their bindings: read anew for each change of any of them, compiled once for each change of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Fields;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;

use super::compile::Policy;
use super::matching::Constraints;
use super::params::ParamRef;
use crate::cache::{Cache, ResourceCache};

/// A policy that is in force somewhere.
pub struct Hook {
    pub policy: Arc<Policy>,
    pub bindings: Vec<Binding>,
    pub needs_namespace: bool,
}

pub struct Binding {
    pub name: String,
    pub params: Option<ParamRef>,
    /// `None`: everything that the policy is about.
    pub constraints: Option<Constraints>,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

/// All policies of one kind, by name.
pub struct Policies {
    policies: Option<Arc<ResourceCache>>,
    bindings: Option<Arc<ResourceCache>>,
    current: ArcSwap<Current>,
    compiling: Mutex<BTreeMap<String, (u64, Arc<Policy>)>>,
}

struct Current {
    revisions: Option<(u64, u64)>,
    hooks: Arc<[Hook]>,
}

impl Policies {
    /// Prefixes are as `/registry/validatingadmissionpolicies/`.
    pub fn new(cache: &Cache, policies: &str, bindings: &str) -> Policies {
        Policies {
            policies: cache.resource(policies.as_bytes()),
            bindings: cache.resource(bindings.as_bytes()),
            current: ArcSwap::from_pointee(Current { revisions: None, hooks: Arc::new([]) }),
            compiling: Mutex::new(BTreeMap::new()),
        }
    }

    pub fn is_empty(&self) -> bool {
        let (Some(policies), Some(bindings)) = (&self.policies, &self.bindings) else { return true };
        let current = self.current.load();
        if current.revisions == Some((policies.revision(), bindings.revision())) {
            return current.hooks.is_empty();
        }
        self.current().is_empty()
    }

    /// The policies as they are now, without those that no binding puts in force.
    pub fn current(&self) -> Arc<[Hook]> {
        let (Some(policies), Some(bindings)) = (&self.policies, &self.bindings) else {
            return self.current.load().hooks.clone();
        };
        let now = Some((policies.revision(), bindings.revision()));
        if self.current.load().revisions == now {
            return self.current.load().hooks.clone();
        }
        let mut compiled = self.compiling.lock();
        let current = self.current.load();
        if current.revisions == Some((policies.revision(), bindings.revision())) {
            return current.hooks.clone();
        }
        let (policies, bindings) = (policies.snapshot(None, 0), bindings.snapshot(None, 0));
        let mut by_policy: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
        for binding in bindings.objects.iter().filter_map(|stored| serde_json::from_slice::<Value>(&stored.value).ok())
        {
            let policy = binding.part("spec").text("policyName").to_owned();
            by_policy.entry(policy).or_default().push(compile_binding(&binding));
        }
        let mut hooks = Vec::new();
        let mut kept = BTreeMap::new();
        for stored in &policies.objects {
            let Some(bindings) = by_policy.remove(stored.name()) else { continue };
            let known = compiled.remove(stored.name()).filter(|(revision, _)| *revision == stored.mod_revision);
            let policy = match (known, serde_json::from_slice(&stored.value)) {
                (Some((_, policy)), _) => policy,
                (None, Ok(policy)) => Arc::new(Policy::compile(&policy)),
                (None, Err(error)) => {
                    tracing::error!(name = stored.name(), %error, "an admission policy is no JSON");
                    continue;
                }
            };
            kept.insert(stored.name().to_owned(), (stored.mod_revision, policy.clone()));
            let needs_namespace = policy.mentions("namespaceObject");
            hooks.push(Hook { policy, bindings, needs_namespace });
        }
        *compiled = kept;
        let hooks: Arc<[Hook]> = hooks.into();
        let revisions = Some((policies.revision, bindings.revision));
        self.current.store(Arc::new(Current { revisions, hooks: hooks.clone() }));
        hooks
    }
}

fn compile_binding(binding: &Value) -> Binding {
    let spec = binding.part("spec");
    Binding {
        name: binding.part("metadata").text("name").to_owned(),
        params: spec.at("paramRef").map(ParamRef::compile),
        constraints: spec.at("matchResources").map(Constraints::compile),
        actions: spec.list("validationActions").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}
