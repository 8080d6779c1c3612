//! Kernel settings that reach beyond the Pod.

use super::{Subject, Violation, violation};
use crate::Fields;

/// The safe ones, in the order in which they were found to be.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

pub(super) fn since_0(subject: Subject<'_>) -> Option<Violation> {
    check(subject, 5)
}

pub(super) fn since_27(subject: Subject<'_>) -> Option<Violation> {
    check(subject, 6)
}

pub(super) fn since_29(subject: Subject<'_>) -> Option<Violation> {
    check(subject, 10)
}

pub(super) fn since_32(subject: Subject<'_>) -> Option<Violation> {
    check(subject, SAFE.len())
}

/// The first `known` are safe.
fn check(subject: Subject<'_>, known: usize) -> Option<Violation> {
    let names = subject.security().list("sysctls").iter().map(|sysctl| sysctl.text("name"));
    let forbidden: Vec<&str> = names.filter(|name| !SAFE.iter().take(known).any(|safe| safe == name)).collect();
    if forbidden.is_empty() {
        return None;
    }
    violation("forbidden sysctls", forbidden.join(", "))
}
