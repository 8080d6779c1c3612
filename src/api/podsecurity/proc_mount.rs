//! A `/proc` without masks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation, containers, quoted_set, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let bad = subject.containers_where(|container| forbidden(container).is_some());
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = subject.containers().filter_map(forbidden).collect();
    let text = format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted_set(&kinds));
    violation("procMount", text)
}

pub(super) fn outside_user_namespaces(subject: Subject<'_>) -> Option<Violation> {
    if subject.has_user_namespace() { None } else { check(subject) }
}

fn forbidden(container: &Value) -> Option<&str> {
    let kind = container.part("securityContext").at("procMount")?.as_str()?;
    (kind != "Default").then_some(kind)
}
