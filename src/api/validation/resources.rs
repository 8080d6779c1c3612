//! Resource names and amounts.

use serde_json::{Map, Value};

use super::Check;
use crate::{fields::Fields, format, path::Path, quantity::Quantity};

/// `kubernetes.io/` names and names without a prefix are Kubernetes' own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.split('/').next().is_some_and(|prefix| prefix.ends_with("kubernetes.io"))
}

pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// More may be asked for than there is, up to the limit.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

fn is_standard_for_containers(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name)
}

/// What quotas count object by object.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Counted in whole numbers.
pub(crate) fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && format::label_key(&format!("requests.{name}")).is_empty()
}

/// Names that need no domain, wherever they mean something.
fn is_standard(name: &str) -> bool {
    matches!(
        name,
        "cpu"
            | "memory"
            | "ephemeral-storage"
            | "storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.storage"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
    ) || COUNTED.contains(&name)
        || is_huge_page(name)
        || name.starts_with("requests.hugepages-")
}

/// What quotas know without a domain.
pub(crate) fn is_of_quotas(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

/// The name of any resource.
pub(crate) fn resource_name(check: &mut Check<'_>, path: &Path<'_>, name: &str) {
    let findings = format::label_key(name);
    if findings.is_empty() && !name.contains('/') && !is_standard(name) {
        check.invalid(path, &name.into(), "must be a standard resource type or fully qualified");
    }
    check.found(path, name, findings);
}

/// The name of what a container may ask for.
pub(crate) fn name_for_container(check: &mut Check<'_>, path: &Path<'_>, name: &str) {
    resource_name(check, path, name);
    if !name.contains('/') {
        if !is_standard_for_containers(name) {
            check.invalid(path, &name.into(), "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        check.invalid(path, &name.into(), "doesn't follow extended resource name standard");
    }
}

/// The amount of a named resource: not negative, and whole where it is counted.
pub(crate) fn amount(check: &mut Check<'_>, path: &Path<'_>, name: &str, value: &Value) -> Option<Quantity> {
    let quantity = check.quantity(path, value)?;
    if is_integer(name) && quantity.milli_value() % 1000 != 0 {
        check.invalid(path, value, "must be an integer");
    }
    Some(quantity)
}

/// What a pod may ask for as a whole.
pub(crate) fn name_for_pod(check: &mut Check<'_>, path: &Path<'_>, name: &str) {
    let before = check.errors.len();
    resource_name(check, path, name);
    if check.errors.len() == before && !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        check.not_supported(path, &name.into(), &["cpu", "hugepages-", "memory"]);
    }
}

/// Checks the name of a resource.
pub(crate) type NameCheck = fn(&mut Check<'_>, &Path<'_>, &str);

fn list<'a>(
    check: &mut Check<'_>,
    resources: Option<&'a Map<String, Value>>,
    names: NameCheck,
    path: &Path<'_>,
) -> Vec<(&'a str, Option<Quantity>)> {
    let mut amounts = Vec::new();
    for (name, value) in resources.into_iter().flatten() {
        let path = path.key(name);
        names(check, &path, name);
        amounts.push((name.as_str(), amount(check, &path, name, value)));
    }
    amounts
}

/// Limits and requests of a container, or of a pod as a whole.
pub(crate) fn requirements(check: &mut Check<'_>, resources: &Value, names: NameCheck, path: &Path<'_>) {
    if resources.is_null() {
        return;
    }
    let limits_path = path.field("limits");
    let requests_path = path.field("requests");
    let limits = list(check, resources.map("limits"), names, &limits_path);
    let requests = list(check, resources.map("requests"), names, &requests_path);
    for (name, request) in &requests {
        let limit = limits.iter().find(|(limited, _)| limited == name);
        match (limit, request) {
            (Some((_, Some(limit))), Some(request)) => {
                let text = Value::from(request.to_string());
                if request != limit && !may_overcommit(name) {
                    check.invalid(&requests_path, &text, &format!("must be equal to {name} limit of {limit}"));
                } else if request > limit {
                    let detail = format!("must be less than or equal to {name} limit of {limit}");
                    check.invalid(&requests_path, &text, &detail);
                }
            }
            (None, _) if !may_overcommit(name) => {
                check.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let all = || limits.iter().chain(&requests).map(|(name, _)| *name);
    if all().any(is_huge_page) && !all().any(|name| matches!(name, "cpu" | "memory")) {
        check.forbidden(path, "HugePages require cpu or memory");
    }
}
