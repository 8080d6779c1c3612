//! SELinux labels of one's own choice.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation, plural, quoted_set, setters, violation};
use crate::Fields;

const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    with_types(subject, &TYPES[..4])
}

pub(super) fn with_engine(subject: Subject<'_>) -> Option<Violation> {
    with_types(subject, &TYPES)
}

fn with_types(subject: Subject<'_>, allowed: &[&str]) -> Option<Violation> {
    let is_bad = |security: &Value| {
        security.at("seLinuxOptions").is_some_and(|options| {
            !allowed.contains(&options.text("type"))
                || !options.text("user").is_empty()
                || !options.text("role").is_empty()
        })
    };
    let bad = subject.containers_where(|container| is_bad(container.part("securityContext")));
    let setters = setters(is_bad(subject.security()), &bad)?;
    let of_containers = subject.containers().map(|container| container.part("securityContext"));
    let options: Vec<&Value> = std::iter::once(subject.security())
        .chain(of_containers)
        .filter_map(|security| security.at("seLinuxOptions"))
        .collect();
    let types: BTreeSet<&str> =
        options.iter().map(|options| options.text("type")).filter(|kind| !allowed.contains(kind)).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted_set(&types)));
    }
    for field in ["user", "role"] {
        if options.iter().any(|options| !options.text(field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    violation("seLinuxOptions", format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}
