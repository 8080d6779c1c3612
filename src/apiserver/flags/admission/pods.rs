//! The configurations of PodNodeSelector and PodTolerationRestriction.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{NodeSelectors, Tolerations, node_labels};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeSelectorConfiguration {
    pod_node_selector_plugin_config: BTreeMap<String, String>,
}

/// Upstream: `podtolerationrestriction.admission.k8s.io/v1alpha1`, `Configuration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TolerationConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    default: Vec<Toleration>,
    #[serde(default)]
    whitelist: Vec<Toleration>,
}

/// The key that is no namespace's.
const DEFAULT: &str = "clusterDefaultNodeSelector";

pub(super) fn node_selectors(configuration: Value) -> Result<NodeSelectors, String> {
    let read: NodeSelectorConfiguration = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    let mut selectors = NodeSelectors::default();
    for (name, text) in read.pod_node_selector_plugin_config {
        let labels = node_labels(&text).map_err(|why| format!("{name}: {why}"))?;
        if name == DEFAULT {
            selectors.default = labels;
        } else {
            selectors.by_namespace.insert(name, labels);
        }
    }
    Ok(selectors)
}

pub(super) fn tolerations(configuration: Value) -> Result<Tolerations, String> {
    let read: TolerationConfiguration = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    if read.kind != "Configuration" || read.api_version != "podtolerationrestriction.admission.k8s.io/v1alpha1" {
        return Err("PodTolerationRestriction takes a Configuration of \
                    podtolerationrestriction.admission.k8s.io/v1alpha1"
            .to_owned());
    }
    let values = |all: Vec<Toleration>| -> Result<Vec<Value>, String> {
        all.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|error| error.to_string())
    };
    Ok(Tolerations { defaults: values(read.default)?, allowed: values(read.whitelist)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_and_tolerations_are_read() {
        let read = node_selectors(json!({"podNodeSelectorPluginConfig": {DEFAULT: "a=b", "shop": "c=d,e="}})).unwrap();
        assert_eq!(read.default, node_labels("a=b").unwrap());
        assert_eq!(read.by_namespace["shop"].len(), 2);
        let error = node_selectors(json!({"podNodeSelectorPluginConfig": {"shop": "a"}})).unwrap_err();
        assert_eq!(error, "shop: invalid selector: [a]");
        let configuration = json!({
            "apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration",
            "whitelist": [{"key": "a", "operator": "Exists"}],
        });
        assert_eq!(tolerations(configuration).unwrap().allowed, [json!({"key": "a", "operator": "Exists"})]);
    }
}
