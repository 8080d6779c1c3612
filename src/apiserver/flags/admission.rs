//! What is admitted: the flags of `src/apiserver/admission`.

mod event_limits;
mod image_policy;
mod pod_security;
mod pods;
mod quota;
mod webhooks;

use std::path::Path;

use api::Fields;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Flag;
use super::Set::{List, Text};
use crate::config::{AdmissionOptions, PLUGINS};

pub(super) const FLAGS: &[Flag] = &[
    ("admission-control-config-file", Text(|config, path| config_file(&mut config.admission, path))),
    (
        "default-not-ready-toleration-seconds",
        Text(|config, text| seconds(text).map(|seconds| config.admission.toleration_seconds[0] = seconds)),
    ),
    (
        "default-unreachable-toleration-seconds",
        Text(|config, text| seconds(text).map(|seconds| config.admission.toleration_seconds[1] = seconds)),
    ),
    ("disable-admission-plugins", List(|config, names| disable(&mut config.admission, names))),
    ("enable-admission-plugins", List(|config, names| enable(&mut config.admission, names))),
];

fn seconds(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "it should be a number of seconds".to_owned())
}

fn known(names: &[String]) -> Result<(), String> {
    match names.iter().find(|name| !PLUGINS.contains(&name.as_str())) {
        Some(name) => Err(format!("admission plugin {name:?} is unknown; there are {}", PLUGINS.join(", "))),
        None => Ok(()),
    }
}

fn disable(options: &mut AdmissionOptions, names: Vec<String>) -> Result<(), String> {
    known(&names)?;
    options.disabled = names;
    Ok(())
}

/// Flags are taken in the order of their names: what is switched off is known here.
fn enable(options: &mut AdmissionOptions, names: Vec<String>) -> Result<(), String> {
    known(&names)?;
    if let Some(name) = names.iter().find(|name| options.disabled.contains(name)) {
        return Err(format!("{name} in enable-admission-plugins and disable-admission-plugins overlapped"));
    }
    options.enabled = names;
    Ok(())
}

/// Upstream: `apiserver.config.k8s.io/v1`, `AdmissionConfiguration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<PluginConfiguration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginConfiguration {
    name: String,
    /// A file beside this one.
    #[serde(default)]
    path: String,
    configuration: Option<Value>,
}

fn config_file(options: &mut AdmissionOptions, path: &str) -> Result<(), String> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let path = Path::new(path);
    config_text(options, &read(path)?, |name| read(&path.parent().unwrap_or(path).join(name)))
}

/// The text of such a file; `beside` reads one that stands beside it.
pub fn config_text(
    options: &mut AdmissionOptions,
    text: &str,
    beside: impl Fn(&str) -> Result<String, String>,
) -> Result<(), String> {
    let file: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if let Some(done) = old_file(options, &file) {
        return done;
    }
    let file: AdmissionConfiguration = serde_json::from_value(file).map_err(|error| error.to_string())?;
    if file.kind != "AdmissionConfiguration"
        || !matches!(file.api_version.as_str(), "apiserver.config.k8s.io/v1" | "apiserver.k8s.io/v1alpha1")
    {
        return Err("it should hold an AdmissionConfiguration of apiserver.config.k8s.io/v1".to_owned());
    }
    for plugin in file.plugins {
        let configuration = match plugin.configuration {
            Some(configuration) => configuration,
            None if plugin.path.is_empty() => continue,
            None => serde_saphyr::from_str(&beside(&plugin.path)?).map_err(|error| error.to_string())?,
        };
        match plugin.name.as_str() {
            "PodSecurity" => options.pod_security = pod_security::read(configuration)?,
            "PodNodeSelector" => options.node_selectors = pods::node_selectors(configuration)?,
            "PodTolerationRestriction" => options.tolerations = pods::tolerations(configuration)?,
            "EventRateLimit" => options.event_limits = event_limits::read(configuration)?,
            "ImagePolicyWebhook" => options.image_policy = Some(image_policy::read(configuration)?),
            "ResourceQuota" => options.limited_resources = quota::read(configuration)?,
            "MutatingAdmissionWebhook" => options.webhook_credentials[0] = webhooks::read(configuration)?,
            "ValidatingAdmissionWebhook" => options.webhook_credentials[1] = webhooks::read(configuration)?,
            name => return Err(format!("the plugin {name:?} takes no configuration")),
        }
    }
    Ok(())
}

/// Once such a file was that of a plugin itself. `None` where it is not.
fn old_file(options: &mut AdmissionOptions, file: &Value) -> Option<Result<(), String>> {
    const IMAGES: &str = "imagePolicy";
    const SELECTORS: &str = "podNodeSelectorPluginConfig";
    if file.has("kind") || !(file.has(IMAGES) || file.has(SELECTORS)) {
        return None;
    }
    let part = |name: &str| file.at(name).map(|value| json!({name: value}));
    let mut take = || {
        if let Some(configuration) = part(IMAGES) {
            options.image_policy = Some(image_policy::read(configuration)?);
        }
        if let Some(configuration) = part(SELECTORS) {
            options.node_selectors = pods::node_selectors(configuration)?;
        }
        Ok(())
    };
    Some(take())
}

#[cfg(test)]
mod tests {
    use api::podsecurity::Level;

    use crate::testing;

    #[test]
    fn plugins_are_switched_off_by_name() {
        let mut config = testing::config("10.43.0.0/16");
        config
            .apply_flags(["disable-admission-plugins=PodSecurity,Priority", "enable-admission-plugins=LimitRanger"])
            .unwrap();
        assert!(!config.admission.is_on("PodSecurity") && config.admission.is_on("LimitRanger"));
        assert!(config.admission.is_on("NodeRestriction") && !config.admission.is_on("AlwaysPullImages"));
        config.apply_flags(["enable-admission-plugins=AlwaysPullImages"]).unwrap();
        assert!(config.admission.is_on("AlwaysPullImages"));
        let overlap = ["disable-admission-plugins=Priority", "enable-admission-plugins=Priority"];
        assert!(config.apply_flags(overlap).unwrap_err().to_string().ends_with("overlapped"));
        let unknown = config.apply_flags(["enable-admission-plugins=Nothing"]).unwrap_err().to_string();
        assert!(unknown.contains("admission plugin \"Nothing\" is unknown"), "{unknown}");
        config.apply_flags(["default-not-ready-toleration-seconds=60"]).unwrap();
        assert_eq!(config.admission.toleration_seconds, [60, 300]);
    }

    #[test]
    fn a_file_configures_pod_security() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admission.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  \
                    configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: \
                    PodSecurityConfiguration\n    defaults: {enforce: baseline, enforce-version: v1.30}\n    exemptions: \
                    {namespaces: [kube-system]}\n";
        std::fs::write(&path, text).unwrap();
        let mut config = testing::config("10.43.0.0/16");
        let flag = format!("admission-control-config-file={}", path.display());
        config.apply_flags([flag.as_str()]).unwrap();
        assert_eq!(config.admission.pod_security.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(config.admission.pod_security.defaults.warn.level, Level::Privileged);
        assert_eq!(config.admission.pod_security.namespaces, ["kube-system"]);
        std::fs::write(&path, text.replace("baseline", "strict")).unwrap();
        let error = config.apply_flags([flag.as_str()]).unwrap_err().to_string();
        assert!(error.contains("defaults.enforce: Invalid value: \"strict\""), "{error}");
    }
}
