//! Probes and hooks that call another host than the Pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation, containers, plural, quoted_set, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let bad: BTreeSet<&str> =
        subject.containers_where(|container| hosts(container).next().is_some()).into_iter().collect();
    if bad.is_empty() {
        return None;
    }
    let called: BTreeSet<&str> = subject.containers().flat_map(hosts).collect();
    let names: Vec<&str> = bad.into_iter().collect();
    let uses = plural("uses", "use", names.len());
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", called.len());
    violation("probe or lifecycle host", format!("{} {uses} {word} {}", containers(&names), quoted_set(&called)))
}

fn hosts(container: &Value) -> impl Iterator<Item = &str> {
    let lifecycle = container.part("lifecycle");
    let handlers = [
        container.part("livenessProbe"),
        container.part("readinessProbe"),
        container.part("startupProbe"),
        lifecycle.part("postStart"),
        lifecycle.part("preStop"),
    ];
    handlers
        .into_iter()
        .flat_map(|handler| [handler.part("httpGet").text("host"), handler.part("tcpSocket").text("host")])
        .filter(|host| !host.is_empty())
}
