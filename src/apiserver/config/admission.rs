//! What is admitted: which plugins there are, and what they are told. Defaults are upstream's, with NodeRestriction.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use api::podsecurity::Policy;
use api::quota::Scope;
use serde_json::Value;

/// All plugins, in the order in which upstream asks them. AlwaysAdmit does nothing; PodGroupProtection,
/// PodGroupWorkloadExists and JobValidation have nothing to do without upstream's alpha of workloads.
pub const PLUGINS: [&str; 41] = [
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "ImagePolicyWebhook",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PodGroupProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "PodGroupWorkloadExists",
    "NodeDeclaredFeatureValidator",
    "JobValidation",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
    "AlwaysDeny",
];

/// Those that are off unless they are switched on. NodeRestriction is not among them: upstream's installers all switch
/// it on.
const OFF: [&str; 13] = [
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "AlwaysPullImages",
    "ImagePolicyWebhook",
    "PodNodeSelector",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "OwnerReferencesPermissionEnforcement",
    "DenyServiceExternalIPs",
    "AlwaysDeny",
];

#[derive(Clone, Debug)]
pub struct AdmissionOptions {
    /// Names of plugins that are switched on, beyond those that are on anyway.
    pub enabled: Vec<String>,
    /// Names of the plugins that are switched off.
    pub disabled: Vec<String>,
    /// How long Pods stay on a node that is not ready, and on one that is unreachable, unless they say otherwise.
    pub toleration_seconds: [i64; 2],
    pub pod_security: PodSecurityOptions,
    pub node_selectors: NodeSelectors,
    pub tolerations: Tolerations,
    pub event_limits: Vec<EventLimit>,
    pub image_policy: Option<ImagePolicy>,
    pub limited_resources: Vec<LimitedResource>,
    /// Kubeconfigs with what is shown to mutating and to validating webhooks.
    pub webhook_credentials: [Option<PathBuf>; 2],
}

/// What nobody uses without a quota that covers it (upstream: `LimitedResource` of `ResourceQuotaConfiguration`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedResource {
    pub group: String,
    pub plural: String,
    /// Parts of the names under which quotas count it.
    pub contains: Vec<String>,
    /// Objects in one of these scopes need a quota with that scope.
    pub scopes: Vec<Scope>,
}

pub type Labels = BTreeMap<String, String>;

/// Upstream: `podNodeSelectorPluginConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSelectors {
    /// For namespaces whose annotation says nothing.
    pub default: Labels,
    /// Which labels the Pods of a namespace may select; any where there are none.
    pub by_namespace: BTreeMap<String, Labels>,
}

/// Upstream: `Configuration` of `podtolerationrestriction.admission.k8s.io`. Tolerations are those of Pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tolerations {
    pub defaults: Vec<Value>,
    /// Any where there are none.
    pub allowed: Vec<Value>,
}

/// Upstream: `Limit` of `eventratelimit.admission.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    pub kind: EventLimitKind,
    pub per_second: u32,
    pub burst: u32,
    /// Namespaces, users or objects that are remembered.
    pub buckets_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLimitKind {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl EventLimitKind {
    pub const ALL: [EventLimitKind; 4] =
        [EventLimitKind::Namespace, EventLimitKind::Server, EventLimitKind::SourceAndObject, EventLimitKind::User];

    pub fn as_str(self) -> &'static str {
        match self {
            EventLimitKind::Server => "Server",
            EventLimitKind::Namespace => "Namespace",
            EventLimitKind::User => "User",
            EventLimitKind::SourceAndObject => "SourceAndObject",
        }
    }
}

/// Upstream: `imagePolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Where the program is.
    pub kubeconfig: PathBuf,
    /// How long answers are kept.
    pub allowed_life: Duration,
    pub denied_life: Duration,
    /// The first pause before the program is asked again.
    pub retry_pause: Duration,
    /// Images may run when the program does not answer.
    pub fails_open: bool,
}

/// Labels as PodNodeSelector takes them, `a=b,c=d`. Texts of errors are upstream's.
pub fn node_labels(text: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let sides: Vec<&str> = part.split('=').collect();
        let [key, value] = sides.as_slice() else { return Err(format!("invalid selector: [{}]", sides.join(" "))) };
        let (key, value) = (key.trim(), value.trim());
        for (field, problems) in [(key, api::format::label_key(key)), (value, api::format::label_value(value))] {
            if let Some(problem) = problems.first() {
                return Err(format!("Invalid value: {field:?}: {problem}"));
            }
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// Upstream: `PodSecurityConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSecurityOptions {
    /// For namespaces whose labels say nothing.
    pub defaults: Policy,
    /// Users whose Pods are not looked at.
    pub usernames: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

impl Default for AdmissionOptions {
    fn default() -> AdmissionOptions {
        AdmissionOptions {
            enabled: Vec::new(),
            disabled: Vec::new(),
            toleration_seconds: [300, 300],
            pod_security: PodSecurityOptions::default(),
            node_selectors: NodeSelectors::default(),
            tolerations: Tolerations::default(),
            event_limits: Vec::new(),
            image_policy: None,
            limited_resources: Vec::new(),
            webhook_credentials: [None, None],
        }
    }
}

impl AdmissionOptions {
    pub fn is_on(&self, plugin: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|one| one == plugin);
        is_in(&self.enabled) || (!OFF.contains(&plugin) && !is_in(&self.disabled))
    }
}
