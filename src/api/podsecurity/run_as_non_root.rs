//! Containers that may run as root.

use serde_json::Value;

use super::{Subject, Violation, containers, setters, violation};
use crate::Fields;

const REASON: &str = "runAsNonRoot != true";

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let said = |security: &Value| security.at("runAsNonRoot").and_then(Value::as_bool);
    let of_pod = said(subject.security());
    let explicit = subject.containers_where(|container| said(container.part("securityContext")) == Some(false));
    if let Some(setters) = setters(of_pod == Some(false), &explicit) {
        return violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    if of_pod == Some(true) {
        return None;
    }
    let implicit = subject.containers_where(|container| said(container.part("securityContext")).is_none());
    if implicit.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

pub(super) fn outside_user_namespaces(subject: Subject<'_>) -> Option<Violation> {
    if subject.has_user_namespace() { None } else { check(subject) }
}
