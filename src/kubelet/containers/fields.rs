//! The downward API: a pod's fields and resources as text, for environment variables and files.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::objects::PodExt;
use crate::quantity;

/// What the node knows beyond the pod.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    pub name: String,
    /// The node's addresses, the first one being the main one.
    pub ips: Vec<String>,
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Unsupported(String),
    #[error("unsupported container resource: {0}")]
    UnsupportedResource(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("invalid divisor {0}")]
    Divisor(String),
}

/// A field's value. `pod_ips` are the sandbox's addresses, which the pod's status may not show yet.
pub fn field(pod: &Pod, path: &str, node: &NodeFacts, pod_ips: &[String]) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    let subscript = |prefix: &str| {
        let inner = path.strip_prefix(prefix)?.strip_prefix("['")?;
        inner.strip_suffix("']")
    };
    if let Some(key) = subscript("metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript("metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default());
    }
    let first = |all: &[String]| all.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.ns().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&node.ips),
        "status.hostIPs" => node.ips.join(","),
        "status.podIP" => first(pod_ips),
        "status.podIPs" => pod_ips.join(","),
        _ => return Err(FieldError::Unsupported(path.to_owned())),
    })
}

/// A container's request or limit divided by the divisor, rounded up. What the container leaves open is the node's.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, FieldError> {
    let named = match selector.container_name.as_deref() {
        Some(name) if !name.is_empty() => {
            Some(pod.container(name).ok_or_else(|| FieldError::NoContainer(name.to_owned()))?.1)
        }
        _ => None,
    };
    let container = named.as_deref().or(own).ok_or_else(|| FieldError::NoContainer(String::new()))?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|one| one.limits.as_ref());
    let requests = resources.and_then(|one| one.requests.as_ref());
    let (kind, name) = selector.resource.split_once('.').unwrap_or_default();
    let asked = match kind {
        "limits" => limits,
        "requests" => requests,
        _ => return Err(FieldError::UnsupportedResource(selector.resource.clone())),
    };
    let is_limit = kind == "limits";
    // In thousandths throughout: a divisor may be `1m`.
    let value_milli = match name {
        "cpu" => quantity::cpu_milli(asked).unwrap_or(if is_limit { node.cpu_milli } else { 0 }),
        "memory" => of(asked, name).unwrap_or(if is_limit { node.memory_bytes.saturating_mul(1000) } else { 0 }),
        "ephemeral-storage" => {
            of(asked, name).unwrap_or(if is_limit { node.ephemeral_storage_bytes.saturating_mul(1000) } else { 0 })
        }
        other if other.starts_with("hugepages-") => of(asked, name).unwrap_or(0),
        _ => return Err(FieldError::UnsupportedResource(selector.resource.clone())),
    };
    let divisor_milli = match selector.divisor.as_ref().filter(|divisor| !matches!(divisor.0.as_str(), "" | "0")) {
        Some(divisor) => {
            quantity::milli(divisor).filter(|&milli| milli > 0).ok_or_else(|| FieldError::Divisor(divisor.0.clone()))?
        }
        None => 1000,
    };
    let rounded_up = value_milli.div_euclid(divisor_milli) + i64::from(value_milli.rem_euclid(divisor_milli) != 0);
    Ok(rounded_up.to_string())
}

fn of(resources: Option<&quantity::Resources>, name: &str) -> Option<i64> {
    resources?.get(name).and_then(quantity::milli)
}

/// `key="escaped value"` per line, as upstream formats maps.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// As Go's `%q` writes it, for the characters that occur in labels and annotations.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    fn node() -> NodeFacts {
        NodeFacts {
            name: "n1".into(),
            ips: vec!["10.0.0.1".into()],
            cpu_milli: 2000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
        }
    }

    #[test]
    fn fields_of_a_pod() {
        let pod = pod(json!({"metadata": {"labels": {"a": "1", "b": "x\"y"}, "annotations": {"k/é": "v"}},
            "spec": {"serviceAccountName": "sa", "containers": []}}));
        let ips = ["10.42.0.5".to_owned()];
        let get = |path| field(&pod, path, &node(), &ips).unwrap();
        assert_eq!(get("metadata.labels"), "a=\"1\"\nb=\"x\\\"y\"");
        assert_eq!(get("metadata.labels['a']"), "1");
        assert_eq!(get("metadata.annotations['k/é']"), "v");
        assert_eq!(get("spec.nodeName"), "n1");
        assert_eq!(get("status.podIP"), "10.42.0.5");
        assert_eq!(get("status.hostIP"), "10.0.0.1");
        assert!(field(&pod, "spec.nothing", &node(), &ips).is_err());
    }

    #[test]
    fn resources_of_a_container() {
        let pod = pod(json!({"spec": {"containers": [{"name": "a", "resources":
            {"limits": {"cpu": "1500m"}, "requests": {"memory": "32Mi"}}}]}}));
        let container = &pod.spec().containers[0];
        let get = |resource: &str, divisor: Option<&str>| {
            let selector = serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            super::resource(&pod, Some(container), &selector, &node())
        };
        assert_eq!(get("limits.cpu", None).unwrap(), "2");
        assert_eq!(get("limits.cpu", Some("1m")).unwrap(), "1500");
        assert_eq!(get("requests.memory", Some("1Mi")).unwrap(), "32");
        assert_eq!(get("limits.memory", None).unwrap(), (1u64 << 30).to_string(), "the node's");
        assert_eq!(get("requests.cpu", None).unwrap(), "0");
        assert!(get("limits.gpu", None).is_err());
        assert!(get("limits.cpu", Some("-1")).is_err());
    }
}
