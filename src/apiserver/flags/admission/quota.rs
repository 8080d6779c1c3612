//! The configuration of ResourceQuota: what nobody uses without a quota.

use api::FieldError;
use api::quota::Scope;
use serde::Deserialize;
use serde_json::Value;

use crate::config::LimitedResource;

/// Upstream: `ResourceQuotaConfiguration` of `apiserver.config.k8s.io/v1`, and `Configuration` of old.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    limited_resources: Vec<Limited>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Limited {
    api_group: String,
    resource: String,
    match_contains: Vec<String>,
    match_scopes: Vec<Requirement>,
}

/// `v1.ScopedResourceSelectorRequirement`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Requirement {
    scope_name: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

pub(super) fn read(configuration: Value) -> Result<Vec<LimitedResource>, String> {
    let read: Configuration = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    let known = [
        ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration"),
        ("resourcequota.admission.k8s.io/v1beta1", "Configuration"),
        ("resourcequota.admission.k8s.io/v1alpha1", "Configuration"),
    ];
    if !known.contains(&(read.api_version.as_str(), read.kind.as_str())) {
        return Err("ResourceQuota takes a ResourceQuotaConfiguration of apiserver.config.k8s.io/v1".to_owned());
    }
    let mut errors = Vec::new();
    let mut all = Vec::new();
    for (index, limited) in read.limited_resources.into_iter().enumerate() {
        if limited.resource.is_empty() {
            errors.push(FieldError::required(format!("limitedResources[{index}].resource"), "").to_string());
        }
        let scopes = limited.match_scopes.into_iter();
        all.push(LimitedResource {
            group: limited.api_group,
            plural: limited.resource,
            contains: limited.match_contains,
            scopes: scopes
                .map(|one| Scope { name: one.scope_name, operator: one.operator, values: one.values })
                .collect(),
        });
    }
    if errors.is_empty() { Ok(all) } else { Err(errors.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(limited: Value) -> Result<Vec<LimitedResource>, String> {
        let (version, kind) = ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration");
        read(json!({"apiVersion": version, "kind": kind, "limitedResources": limited}))
    }

    #[test]
    fn resources_are_limited_by_name_and_by_scope() {
        let scope = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["cluster-services"]});
        let limited = of(json!([{"resource": "pods", "matchContains": ["cpu"], "matchScopes": [scope]}])).unwrap();
        assert_eq!((limited[0].plural.as_str(), limited[0].contains[0].as_str()), ("pods", "cpu"));
        assert_eq!(limited[0].scopes[0].values, ["cluster-services"]);
        assert_eq!(of(json!([{}])).unwrap_err(), "limitedResources[0].resource: Required value");
        assert!(of(json!([{"resource": "pods", "limits": 3}])).is_err());
    }
}
