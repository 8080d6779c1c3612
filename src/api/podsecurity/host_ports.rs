//! Ports of the node.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation, containers, plural, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let bad = subject.containers_where(|container| host_ports(container).next().is_some());
    if bad.is_empty() {
        return None;
    }
    // Upstream sorts them as texts.
    let ports: BTreeSet<String> = subject.containers().flat_map(host_ports).map(|port: i64| port.to_string()).collect();
    let list: Vec<String> = ports.into_iter().collect();
    let uses = plural("uses", "use", bad.len());
    let word = plural("hostPort", "hostPorts", list.len());
    violation("hostPort", format!("{} {uses} {word} {}", containers(&bad), list.join(", ")))
}

fn host_ports(container: &Value) -> impl Iterator<Item = i64> {
    container.list("ports").iter().filter_map(|port| port.int("hostPort")).filter(|port| *port != 0)
}
