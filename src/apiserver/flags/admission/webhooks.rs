//! The configuration of the webhooks' plugins: where they find what the API server shows to webhooks.

use std::path::PathBuf;

use api::FieldError;
use serde::Deserialize;
use serde_json::{Value, json};

/// Upstream: `WebhookAdmissionConfiguration` of `apiserver.config.k8s.io/v1`, and `WebhookAdmission` of old.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    kube_config_file: PathBuf,
}

pub(super) fn read(configuration: Value) -> Result<Option<PathBuf>, String> {
    let read: Configuration = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    let known = [
        ("apiserver.config.k8s.io/v1", "WebhookAdmissionConfiguration"),
        ("apiserver.config.k8s.io/v1alpha1", "WebhookAdmission"),
    ];
    if !known.contains(&(read.api_version.as_str(), read.kind.as_str())) {
        return Err("webhooks take a WebhookAdmissionConfiguration of apiserver.config.k8s.io/v1".to_owned());
    }
    let path = read.kube_config_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    if !path.is_absolute() {
        let error = FieldError::invalid("kubeConfigFile", &json!(path), "must be an absolute file path");
        return Err(error.to_string());
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_from_the_root() {
        let of = |file: &str| {
            let (version, kind) = ("apiserver.config.k8s.io/v1", "WebhookAdmissionConfiguration");
            read(json!({"apiVersion": version, "kind": kind, "kubeConfigFile": file}))
        };
        assert_eq!(of("/etc/hooks"), Ok(Some("/etc/hooks".into())));
        assert_eq!(of(""), Ok(None));
        let error = "kubeConfigFile: Invalid value: \"hooks\": must be an absolute file path";
        assert_eq!(of("hooks").unwrap_err(), error);
        assert!(read(json!({"apiVersion": "v1", "kind": "Config"})).is_err());
    }
}
