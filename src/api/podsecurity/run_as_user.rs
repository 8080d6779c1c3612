//! Containers that run as root.

use serde_json::Value;

use super::{Subject, Violation, setters, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let is_root = |security: &Value| security.int("runAsUser") == Some(0);
    let bad = subject.containers_where(|container| is_root(container.part("securityContext")));
    let setters = setters(is_root(subject.security()), &bad)?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

pub(super) fn outside_user_namespaces(subject: Subject<'_>) -> Option<Violation> {
    if subject.has_user_namespace() { None } else { check(subject) }
}
