//! What is admitted: which plugins there are, and what they are told. Defaults are upstream's, with NodeRestriction.

use api::podsecurity::Policy;

/// All plugins, in the order in which upstream asks them. All are on unless they are switched off.
pub const PLUGINS: [&str; 22] = [
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "PodTopologyLabels",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
];

#[derive(Clone, Debug)]
pub struct AdmissionOptions {
    /// Names of the plugins that are switched off.
    pub disabled: Vec<String>,
    /// How long Pods stay on a node that is not ready, and on one that is unreachable, unless they say otherwise.
    pub toleration_seconds: [i64; 2],
    pub pod_security: PodSecurityOptions,
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
            disabled: Vec::new(),
            toleration_seconds: [300, 300],
            pod_security: PodSecurityOptions::default(),
        }
    }
}

impl AdmissionOptions {
    pub fn is_on(&self, plugin: &str) -> bool {
        !self.disabled.iter().any(|one| one == plugin)
    }
}
