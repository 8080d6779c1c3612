//! Pod Security: which Pods the levels `privileged`, `baseline` and `restricted` take (upstream: `pod-security-admission`).
//!
//! One file for each check; a check says what it forbids, in upstream's words. What a namespace's labels ask for is in
//! [`policy`].

mod app_armor;
mod capabilities;
mod host_namespaces;
mod host_path_volumes;
mod host_ports;
mod host_probes;
mod policy;
mod privilege_escalation;
mod privileged;
mod proc_mount;
mod restricted_volumes;
mod run_as_non_root;
mod run_as_user;
mod seccomp;
mod selinux;
mod sysctls;
mod windows_host_process;

pub use policy::{Level, LevelVersion, Policy, Version};

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Fields;

/// What a Pod is that is looked at, or would be that is made of a template.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

/// Why a Pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Such as `privileged`.
    pub reason: &'static str,
    /// Who did what; may be empty.
    pub detail: String,
}

type Run = fn(Subject<'_>) -> Option<Violation>;

/// A check and the minor versions since which it is as it is.
struct Check {
    id: &'static str,
    versions: &'static [(u32, Run)],
    /// The check of the level below that this one replaces, from its first version on.
    replaces: Option<&'static str>,
}

const fn check(id: &'static str, versions: &'static [(u32, Run)]) -> Check {
    Check { id, versions, replaces: None }
}

const fn replacing(id: &'static str, replaced: &'static str, versions: &'static [(u32, Run)]) -> Check {
    Check { id, versions, replaces: Some(replaced) }
}

/// In the order of their names, which is that of their texts.
const BASELINE: [Check; 12] = [
    check("appArmorProfile", &[(0, app_armor::check)]),
    check("capabilities_baseline", &[(0, capabilities::baseline)]),
    check("hostNamespaces", &[(0, host_namespaces::check)]),
    check("hostPathVolumes", &[(0, host_path_volumes::check)]),
    check("hostPorts", &[(0, host_ports::check)]),
    check("hostProbesAndHostLifecycle", &[(34, host_probes::check)]),
    check("privileged", &[(0, privileged::check)]),
    check("procMount", &[(0, proc_mount::check), (35, proc_mount::outside_user_namespaces)]),
    check("seLinuxOptions", &[(0, selinux::check), (31, selinux::with_engine)]),
    check("seccompProfile_baseline", &[(0, seccomp::annotations), (19, seccomp::baseline)]),
    check(
        "sysctls",
        &[(0, sysctls::since_0), (27, sysctls::since_27), (29, sysctls::since_29), (32, sysctls::since_32)],
    ),
    check("windowsHostProcess", &[(0, windows_host_process::check)]),
];

const RESTRICTED: [Check; 7] = [
    check("allowPrivilegeEscalation", &[(8, privilege_escalation::check), (25, privilege_escalation::not_windows)]),
    replacing(
        "capabilities_restricted",
        "capabilities_baseline",
        &[(22, capabilities::restricted), (25, capabilities::restricted_not_windows)],
    ),
    replacing("procMount_restricted", "procMount", &[(35, proc_mount::check)]),
    replacing("restrictedVolumes", "hostPathVolumes", &[(0, restricted_volumes::check)]),
    check("runAsNonRoot", &[(0, run_as_non_root::check), (35, run_as_non_root::outside_user_namespaces)]),
    check("runAsUser", &[(23, run_as_user::check), (35, run_as_user::outside_user_namespaces)]),
    replacing(
        "seccompProfile_restricted",
        "seccompProfile_baseline",
        &[(19, seccomp::restricted), (25, seccomp::restricted_not_windows)],
    ),
];

impl Check {
    fn at(&self, minor: u32) -> Option<Run> {
        self.versions.iter().rev().find(|(since, _)| *since <= minor).map(|(_, run)| *run)
    }
}

/// What of a Pod a level does not take; nothing if it takes it.
pub fn evaluate(level: LevelVersion, subject: Subject<'_>) -> Vec<Violation> {
    let minor = level.version.minor();
    let restricted: &[Check] = if level.level == Level::Restricted { &RESTRICTED } else { &[] };
    let baseline: &[Check] = if level.level == Level::Privileged { &[] } else { &BASELINE };
    let replaced = |id: &str| restricted.iter().any(|check| check.replaces == Some(id) && check.at(minor).is_some());
    let baseline = baseline.iter().filter(|check| !replaced(check.id));
    let checks = baseline.chain(restricted).filter_map(|check| check.at(minor));
    checks.filter_map(|run| run(subject)).collect()
}

/// `privileged (container "a" must not set securityContext.privileged=true), hostPort (…)`.
pub fn details(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations
        .iter()
        .map(
            |one| {
                if one.detail.is_empty() { one.reason.to_owned() } else { format!("{} ({})", one.reason, one.detail) }
            },
        )
        .collect();
    texts.join(", ")
}

/// `privileged, hostPort`.
pub fn reasons(violations: &[Violation]) -> String {
    let texts: Vec<&str> = violations.iter().map(|one| one.reason).collect();
    texts.join(", ")
}

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

impl<'a> Subject<'a> {
    fn containers(self) -> impl Iterator<Item = &'a Value> {
        let fields = ["initContainers", "containers", "ephemeralContainers"];
        fields.into_iter().flat_map(move |field| self.spec.list(field))
    }

    fn security(self) -> &'a Value {
        self.spec.part("securityContext")
    }

    /// Names of the containers of which `is_bad` is true.
    fn containers_where(self, is_bad: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is_bad(container)).map(|container| container.text("name")).collect()
    }

    fn is_windows(self) -> bool {
        self.spec.part("os").text("name") == "windows"
    }

    /// `hostUsers: false`: who is root inside is nobody outside.
    fn has_user_namespace(self) -> bool {
        self.spec.at("hostUsers") == Some(&Value::Bool(false))
    }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod`, `container "a"`, or both; nothing if nobody did it.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let named = (!names.is_empty()).then(|| containers(names));
    let setters: Vec<String> = pod.then(|| "pod".to_owned()).into_iter().chain(named).collect();
    (!setters.is_empty()).then(|| setters.join(" and "))
}

fn quoted(names: &[&str]) -> String {
    format!("\"{}\"", names.join("\", \""))
}

fn quoted_set(names: &BTreeSet<&str>) -> String {
    quoted(&names.iter().copied().collect::<Vec<_>>())
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests;
