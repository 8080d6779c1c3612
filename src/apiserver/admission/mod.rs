//! Admission: what the cluster adds to an object and whether it takes it, after authorisation and before the store.
//!
//! A chain of plugins in upstream's order. First each may change the object, then, when it is complete and valid,
//! each may refuse it. Plugins are decisions on the request and the watch cache, where need be on an answer of the
//! authorizer; they write nothing. Behind them come the [`Stage`]s that an administrator configures and that may have
//! to wait: policies, webhooks, quota. When one of those changes the object, the whole chain goes round once more.

mod always_deny;
mod always_pull_images;
mod attributes;
mod certificates;
mod claim_resize;
pub mod connect;
mod default_class;
mod default_toleration_seconds;
mod deny_external_ips;
mod event_rate_limit;
mod extended_resource_toleration;
mod figures;
mod hard_anti_affinity;
mod image_policy;
mod limit_ranger;
mod namespace_lifecycle;
mod namespaces;
mod node_declared_features;
mod node_restriction;
mod objects;
mod owner_references;
mod pod_node_selector;
mod pod_resize;
mod pod_security;
mod pod_toleration_restriction;
mod pod_topology_labels;
pub mod policy;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod service_account_secrets;
mod storage_in_use_protection;
mod taint_nodes;
mod tolerations;
mod webhooks;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Failure;
use futures::future::BoxFuture;
use serde_json::Value;

pub use attributes::{Attributes, Operation, Reinvocation, kind_of};

use crate::cache::Cache;
use crate::config::{AdmissionOptions, Error, PLUGINS};
use crate::failures;
use crate::metrics::Text;
use crate::server::ApiServer;
use crate::webhook::{Caller, Credentials};
use default_class::DefaultClass;
use figures::{Part, Step};

/// One admission plugin.
pub trait Plugin: Send + Sync {
    /// Changes the object.
    fn mutate(
        &self,
        _cache: &Cache,
        _attributes: &mut Attributes<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// Refuses the object; it is `None` for a deletion.
    fn validate(
        &self,
        _cache: &Cache,
        _attributes: &mut Attributes<'_>,
        _object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// For `/metrics`.
    fn write_figures(&self, _out: &mut Text) {}

    /// It has to ask before it knows whether to refuse a request like this: the authorizer, the store, a program
    /// elsewhere.
    fn asks(&self, _attributes: &Attributes<'_>) -> bool {
        false
    }

    /// Refuses the object for what it is told. Called where it [asks](Plugin::asks), behind `validate`.
    fn ask<'a>(
        &'a self,
        _server: &'a ApiServer,
        _attributes: &'a mut Attributes<'_>,
        _object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A part of the chain behind the plugins: what it does is configured, and it may wait for others.
///
/// The object is `None` for a deletion; for a stream it is the options that open it.
pub trait Stage: Send + Sync {
    /// False while nothing is configured: requests then pass without so much as an allocation.
    fn is_active(&self) -> bool;

    /// It waits for programs elsewhere, whose time is not this server's.
    fn asks_others(&self) -> bool {
        false
    }

    /// For `/metrics`.
    fn write_figures(&self, _out: &mut Text) {}

    /// Changes the object.
    fn mutate<'a>(
        &'a self,
        _server: &'a ApiServer,
        _attributes: &'a mut Attributes<'_>,
        _object: Option<&'a mut Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Refuses the object.
    fn validate<'a>(
        &'a self,
        _server: &'a ApiServer,
        _attributes: &'a mut Attributes<'_>,
        _object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The chain.
pub struct Admission {
    cache: Arc<Cache>,
    /// NamespaceAutoProvision.
    provides_namespaces: bool,
    plugins: Vec<Part<Box<dyn Plugin>>>,
    stages: Vec<Part<Box<dyn Stage>>>,
    webhook_figures: Arc<webhooks::Figures>,
}

impl Admission {
    /// The plugins that are switched on, in upstream's order. Reads the files that the options name.
    pub fn new(cache: Arc<Cache>, options: &AdmissionOptions, caller: &Arc<Caller>) -> Result<Admission, Error> {
        let cached: &Cache = &cache;
        let mut plugins = Vec::new();
        for name in PLUGINS.into_iter().filter(|name| options.is_on(name)) {
            plugins.extend(plugin(name, cached, options, caller)?.map(|plugin| Part::new(name, plugin)));
        }
        let webhook_figures = Arc::new(webhooks::Figures::default());
        let figures = || webhook_figures.clone();
        let [mutating, validating] = &options.webhook_credentials;
        let mutating = webhooks::MutatingAdmissionWebhook::new(cached, credentials(mutating.as_deref())?, figures());
        let validating =
            webhooks::ValidatingAdmissionWebhook::new(cached, credentials(validating.as_deref())?, figures());
        let limited = options.limited_resources.clone();
        let all: Vec<(&'static str, Box<dyn Stage>)> = vec![
            ("MutatingAdmissionPolicy", Box::new(policy::MutatingAdmissionPolicy::new(cached))),
            ("MutatingAdmissionWebhook", Box::new(mutating)),
            ("ValidatingAdmissionPolicy", Box::new(policy::ValidatingAdmissionPolicy::new(cached))),
            ("ValidatingAdmissionWebhook", Box::new(validating)),
            ("ResourceQuota", Box::new(resource_quota::ResourceQuota::new(cached, limited))),
            ("AlwaysDeny", Box::new(always_deny::AlwaysDeny)),
        ];
        let stages = all.into_iter().filter(|(name, _)| options.is_on(name));
        let stages = stages.map(|(name, stage)| Part::new(name, stage)).collect();
        let provides_namespaces = options.is_on("NamespaceAutoProvision");
        Ok(Admission { cache, provides_namespaces, plugins, stages, webhook_figures })
    }

    /// Somebody configured something beyond the plugins. It has no say in what a starting server writes: whoever serves
    /// a webhook may need this server first, and an administrator could not take it away.
    pub fn is_configured(&self, server: &ApiServer) -> bool {
        server.started() && self.stages.iter().any(|stage| stage.of.is_active())
    }

    /// For `/metrics`.
    pub fn write_figures(&self, out: &mut Text) {
        figures::write(&self.plugins, &self.stages, out);
        self.plugins.iter().for_each(|plugin| plugin.of.write_figures(out));
        self.stages.iter().for_each(|stage| stage.of.write_figures(out));
        self.webhook_figures.write(out);
    }

    /// Everything that may change the object, in order; twice if a configured stage changed it.
    pub async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        if self.provides_namespaces {
            namespaces::provide(server, attributes).await?;
        }
        let done = self.mutate_in_rounds(server, attributes, object, old).await;
        attributes.hand_over();
        server.metrics().admitted("admit", attributes.operation, done.is_ok(), began.elapsed());
        done
    }

    async fn mutate_in_rounds(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if let Some(object) = object.as_deref_mut() {
            self.mutate_here(server, attributes, object, old).await?;
        }
        if !self.is_configured(server) {
            return Ok(());
        }
        self.mutate_by_stages(server, attributes, object.as_deref_mut(), old).await?;
        if !attributes.reinvocation.wanted {
            return Ok(());
        }
        attributes.reinvocation.again = true;
        if let Some(object) = object.as_deref_mut() {
            self.mutate_here(server, attributes, object, old).await?;
        }
        self.mutate_by_stages(server, attributes, object, old).await
    }

    async fn mutate_by_stages(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        for stage in &self.stages {
            let began = Instant::now();
            let done = stage.of.mutate(server, attributes, object.as_deref_mut(), old).await;
            if stage.of.is_active() {
                count(stage, Step::Admit, attributes, done.is_ok(), began.elapsed());
            }
            done?;
        }
        Ok(())
    }

    /// A refusal may be due to something that was written a moment ago and is not in the cache yet, such as the
    /// namespace; it counts once the cache has all that was acknowledged before.
    async fn mutate_here(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let seen = self.cache.revision();
        let Err(refused) = self.mutate_once(attributes, object, old) else { return Ok(()) };
        let written = server.store().read_index().await.map_err(|error| failures::of_store(&error))?;
        if seen >= written {
            return Err(refused);
        }
        self.cache.reach(written).await?;
        self.mutate_once(attributes, object, old)
    }

    fn mutate_once(
        &self,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        // No plugin has a say in streams.
        if attributes.operation == Operation::Connect {
            return Ok(());
        }
        let mut began = Instant::now();
        for plugin in &self.plugins {
            let done = plugin.of.mutate(&self.cache, attributes, object, old);
            let ended = Instant::now();
            plugin.took(Step::Admit, attributes.operation, done.is_ok(), ended - began);
            began = ended;
            done?;
        }
        Ok(())
    }

    /// Everything that may refuse the object, in order.
    pub async fn validate(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let done = self.validate_in_order(server, attributes, object, old).await;
        attributes.hand_over();
        server.metrics().admitted("validate", attributes.operation, done.is_ok(), began.elapsed());
        done
    }

    async fn validate_in_order(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if attributes.operation != Operation::Connect {
            let mut began = Instant::now();
            for plugin in &self.plugins {
                let mut done = plugin.of.validate(&self.cache, attributes, object, old);
                if done.is_ok() && plugin.of.asks(attributes) {
                    done = plugin.of.ask(server, attributes, object, old).await;
                }
                let ended = Instant::now();
                plugin.took(Step::Validate, attributes.operation, done.is_ok(), ended - began);
                began = ended;
                done?;
            }
        }
        if !self.is_configured(server) {
            return Ok(());
        }
        for stage in self.stages.iter().filter(|stage| stage.of.is_active()) {
            let began = Instant::now();
            let done = stage.of.validate(server, attributes, object, old).await;
            count(stage, Step::Validate, attributes, done.is_ok(), began.elapsed());
            done?;
        }
        Ok(())
    }
}

/// A stage had its turn.
fn count(stage: &Part<Box<dyn Stage>>, step: Step, attributes: &Attributes<'_>, admitted: bool, took: Duration) {
    stage.took(step, attributes.operation, admitted, took);
    if stage.of.asks_others() {
        attributes.notes.waited(took);
    }
}

/// The users of a kubeconfig, for the webhooks.
fn credentials(path: Option<&Path>) -> Result<Option<Credentials>, Error> {
    let read = |path: &Path| {
        Credentials::from_kubeconfig(path).map_err(|source| Error::Webhook { path: path.to_owned(), source })
    };
    path.map(read).transpose()
}

/// The plugin of a name; `None` for those that are stages, and for those that have nothing to do here.
fn plugin(
    name: &str,
    cache: &Cache,
    options: &AdmissionOptions,
    caller: &Arc<Caller>,
) -> Result<Option<Box<dyn Plugin>>, Error> {
    Ok(Some(match name {
        "NamespaceLifecycle" => Box::new(namespace_lifecycle::NamespaceLifecycle::new(cache)),
        "NamespaceExists" => Box::new(namespaces::NamespaceExists),
        "LimitPodHardAntiAffinityTopology" => Box::new(hard_anti_affinity::LimitPodHardAntiAffinityTopology),
        "LimitRanger" => Box::new(limit_ranger::LimitRanger::new(cache)),
        "ServiceAccount" => Box::new(service_account::ServiceAccount::new(cache)),
        "NodeRestriction" => Box::new(node_restriction::NodeRestriction),
        "TaintNodesByCondition" => Box::new(taint_nodes::TaintNodesByCondition),
        "AlwaysPullImages" => Box::new(always_pull_images::AlwaysPullImages),
        "ImagePolicyWebhook" => match &options.image_policy {
            Some(policy) => Box::new(image_policy::ImagePolicyWebhook::new(policy.clone(), caller)?),
            None => return Err(Error::Flags("ImagePolicyWebhook needs its part of admission-control-config-file")),
        },
        "PodSecurity" => Box::new(pod_security::PodSecurity::new(cache, options.pod_security.clone())),
        "PodNodeSelector" => Box::new(pod_node_selector::PodNodeSelector::new(cache, options.node_selectors.clone())),
        "Priority" => Box::new(priority::Priority::new(cache)),
        "DefaultTolerationSeconds" => {
            Box::new(default_toleration_seconds::DefaultTolerationSeconds::new(options.toleration_seconds))
        }
        "PodTolerationRestriction" => {
            let configured = options.tolerations.clone();
            Box::new(pod_toleration_restriction::PodTolerationRestriction::new(cache, configured))
        }
        "EventRateLimit" if options.event_limits.is_empty() => {
            return Err(Error::Flags("EventRateLimit needs its part of admission-control-config-file"));
        }
        "EventRateLimit" => Box::new(event_rate_limit::EventRateLimit::new(&options.event_limits)),
        "ExtendedResourceToleration" => Box::new(extended_resource_toleration::ExtendedResourceToleration),
        "DefaultStorageClass" => Box::new(DefaultClass::new(cache, default_class::STORAGE)),
        "StorageObjectInUseProtection" => Box::new(storage_in_use_protection::StorageObjectInUseProtection),
        "OwnerReferencesPermissionEnforcement" => Box::new(owner_references::OwnerReferencesPermissionEnforcement),
        "PersistentVolumeClaimResize" => Box::new(claim_resize::PersistentVolumeClaimResize::new(cache)),
        "RuntimeClass" => Box::new(runtime_class::RuntimeClass::new(cache)),
        "CertificateApproval" => Box::new(certificates::CertificateApproval),
        "CertificateSigning" => Box::new(certificates::CertificateSigning),
        "ClusterTrustBundleAttest" => Box::new(certificates::ClusterTrustBundleAttest),
        "CertificateSubjectRestriction" => Box::new(certificates::CertificateSubjectRestriction),
        "DefaultIngressClass" => Box::new(DefaultClass::new(cache, default_class::INGRESS)),
        "DenyServiceExternalIPs" => Box::new(deny_external_ips::DenyServiceExternalIps),
        "PodTopologyLabels" => Box::new(pod_topology_labels::PodTopologyLabels::new(cache)),
        "NodeDeclaredFeatureValidator" => Box::new(node_declared_features::NodeDeclaredFeatureValidator::new(cache)),
        "PodResizeValidator" => Box::new(pod_resize::PodResizeValidator::new(cache)),
        _ => return Ok(None),
    }))
}

/// An object of the watch cache, decoded. `prefix` is the resource's, as `/registry/namespaces/`.
fn look_up(cache: &Cache, prefix: &str, path: &str) -> Option<Value> {
    let stored = cache.resource(prefix.as_bytes())?.get(path)?;
    serde_json::from_slice(&stored.value).ok()
}
