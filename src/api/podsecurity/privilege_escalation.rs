//! Processes that get more rights than their parent had.

use serde_json::Value;

use super::{Subject, Violation, containers, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let bad = subject.containers_where(|container| {
        container.part("securityContext").at("allowPrivilegeEscalation") != Some(&Value::Bool(false))
    });
    if bad.is_empty() {
        return None;
    }
    let text = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    violation("allowPrivilegeEscalation != false", text)
}

pub(super) fn not_windows(subject: Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { check(subject) }
}
