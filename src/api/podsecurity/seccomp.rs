//! System calls without a filter.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation, containers, plural, quoted_set, setters, violation};
use crate::Fields;

const REASON: &str = "seccompProfile";
const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Before there was a field.
pub(super) fn annotations(subject: Subject<'_>) -> Option<Violation> {
    let given = subject.metadata.part("annotations");
    let of_containers = subject.containers().map(|container| format!("{OF_CONTAINER}{}", container.text("name")));
    let forbidden: BTreeSet<String> = std::iter::once(OF_POD.to_owned())
        .chain(of_containers)
        .filter_map(|key| {
            let value = given.at(&key)?.as_str()?;
            let allowed = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!allowed).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", forbidden.len());
    let list: Vec<String> = forbidden.into_iter().collect();
    violation(REASON, format!("forbidden {word} {}", list.join(", ")))
}

pub(super) fn baseline(subject: Subject<'_>) -> Option<Violation> {
    let bad = subject.containers_where(|container| forbidden(container.part("securityContext")).is_some());
    let of_pod = forbidden(subject.security());
    let setters = setters(of_pod.is_some(), &bad)?;
    let of_containers = subject.containers().filter_map(|container| forbidden(container.part("securityContext")));
    let values: BTreeSet<&str> = of_pod.into_iter().chain(of_containers).collect();
    let text = format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted_set(&values));
    violation(REASON, text)
}

pub(super) fn restricted(subject: Subject<'_>) -> Option<Violation> {
    if let Some(forbidden) = baseline(subject) {
        return Some(forbidden);
    }
    let is_set = |security: &Value| security.has("seccompProfile");
    if is_set(subject.security()) {
        return None;
    }
    let implicit = subject.containers_where(|container| !is_set(container.part("securityContext")));
    if implicit.is_empty() {
        return None;
    }
    let text = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&implicit)
    );
    violation(REASON, text)
}

pub(super) fn restricted_not_windows(subject: Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { restricted(subject) }
}

fn forbidden(security: &Value) -> Option<&str> {
    let profile = security.at("seccompProfile")?.text("type");
    (!matches!(profile, "RuntimeDefault" | "Localhost")).then_some(profile)
}
