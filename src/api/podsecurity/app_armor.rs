//! Profiles of AppArmor other than the runtime's and the node's own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation, containers, plural, quoted, violation};
use crate::Fields;

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let mut setters = Vec::new();
    let mut values: BTreeSet<&str> = BTreeSet::new();
    if let Some(profile) = forbidden(subject.security()) {
        setters.push("pod".to_owned());
        values.insert(profile);
    }
    let bad = subject.containers_where(|container| forbidden(container.part("securityContext")).is_some());
    values.extend(subject.containers().filter_map(|container| forbidden(container.part("securityContext"))));
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    let mut annotations: Vec<String> = subject
        .metadata
        .map("annotations")
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/")))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        setters.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if setters.is_empty() {
        return None;
    }
    let all: Vec<&str> = values.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len());
    violation(reason, format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&all)))
}

fn forbidden(security: &Value) -> Option<&str> {
    let profile = security.at("appArmorProfile")?.text("type");
    (!matches!(profile, "RuntimeDefault" | "Localhost")).then_some(profile)
}
