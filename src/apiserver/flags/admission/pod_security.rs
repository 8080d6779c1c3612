//! The configuration of PodSecurity.

use api::FieldError;
use api::podsecurity::{Level, LevelVersion, Policy, Version};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::PodSecurityOptions;

/// Upstream: `pod-security.admission.config.k8s.io/v1`, `PodSecurityConfiguration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodSecurityConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

pub(super) fn read(configuration: Value) -> Result<PodSecurityOptions, String> {
    let read: PodSecurityConfiguration = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    let version = read.api_version.strip_prefix("pod-security.admission.config.k8s.io/");
    if read.kind != "PodSecurityConfiguration" || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
        return Err(
            "PodSecurity takes a PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1".to_owned()
        );
    }
    let mut errors = Vec::new();
    let defaults = &read.defaults;
    let policy = Policy {
        enforce: level("enforce", &defaults.enforce, &defaults.enforce_version, &mut errors),
        warn: level("warn", &defaults.warn, &defaults.warn_version, &mut errors),
        audit: level("audit", &defaults.audit, &defaults.audit_version, &mut errors),
    };
    let Exemptions { usernames, namespaces, runtime_classes } = read.exemptions;
    for (field, names) in [("namespaces", &namespaces), ("runtimeClasses", &runtime_classes), ("usernames", &usernames)]
    {
        for (index, name) in names.iter().enumerate() {
            let path = format!("exemptions.{field}[{index}]");
            if name.is_empty() {
                errors.push(FieldError::invalid(path, &json!(name), "must not be empty"));
            } else if names.iter().take(index).any(|one| one == name) {
                errors.push(FieldError::duplicate(path, &json!(name)));
            }
        }
    }
    if errors.is_empty() {
        return Ok(PodSecurityOptions { defaults: policy, usernames, namespaces, runtime_classes });
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(texts.join(", "))
}

/// What is not said is privileged, in the latest version.
fn level(mode: &str, level: &str, version: &str, errors: &mut Vec<FieldError>) -> LevelVersion {
    let or = |text: &str, default: &'static str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let (level, version) = (or(level, "privileged"), or(version, "latest"));
    let mut wrong = |field: String, text: &str, why: &str| {
        errors.push(FieldError::invalid(field, &json!(text), why));
    };
    LevelVersion {
        level: Level::parse(&level).unwrap_or_else(|why| {
            wrong(format!("defaults.{mode}"), &level, why);
            Level::Privileged
        }),
        version: Version::parse(&version).unwrap_or_else(|why| {
            wrong(format!("defaults.{mode}-version"), &version, why);
            Version::Latest
        }),
    }
}
