//! Capabilities beyond what containers usually have, or, restricted, any but one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation, containers, quoted_set, violation};
use crate::Fields;

const DEFAULT: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn added<'a>(container: &'a Value, allowed: &'static [&'static str]) -> impl Iterator<Item = &'a str> {
    let added = container.part("securityContext").part("capabilities").list("add").iter().filter_map(Value::as_str);
    added.filter(|one| !allowed.contains(one))
}

/// Which containers add what they may not, as a text.
fn adding(subject: Subject<'_>, allowed: &'static [&'static str]) -> Option<String> {
    let bad = subject.containers_where(|container| added(container, allowed).next().is_some());
    if bad.is_empty() {
        return None;
    }
    let forbidden: BTreeSet<&str> = subject.containers().flat_map(|container| added(container, allowed)).collect();
    let forbidden = quoted_set(&forbidden);
    Some(format!("{} must not include {forbidden} in securityContext.capabilities.add", containers(&bad)))
}

pub(super) fn baseline(subject: Subject<'_>) -> Option<Violation> {
    violation("non-default capabilities", adding(subject, &DEFAULT)?)
}

pub(super) fn restricted(subject: Subject<'_>) -> Option<Violation> {
    let keeping = subject.containers_where(|container| {
        let dropped = container.part("securityContext").part("capabilities").list("drop");
        !dropped.iter().any(|one| one == "ALL")
    });
    let keeping = (!keeping.is_empty())
        .then(|| format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    let details: Vec<String> = keeping.into_iter().chain(adding(subject, &["NET_BIND_SERVICE"])).collect();
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

pub(super) fn restricted_not_windows(subject: Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { restricted(subject) }
}
