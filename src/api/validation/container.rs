//! Containers of every sort: what all share, and what only some may have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::probes::lifecycle_and_probes;
use super::{Check, downward, mounts, pod_claims, resources, security, volumes};
use crate::{fields::Fields, format, path::Path};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const RULES_NEED_POLICY: &str = "must specify restartPolicy when restart rules are used";
/// What a container that is added to a running pod may have.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// What the checks of containers need to know of their pod.
pub(crate) struct Pod<'a> {
    pub volumes: BTreeMap<&'a str, &'a Value>,
    /// Names of its device claims.
    pub claims: BTreeSet<&'a str>,
    pub grace_seconds: Option<i64>,
    pub restart_policy: &'a str,
    pub host_users: bool,
}

pub(crate) fn containers(check: &mut Check<'_>, spec: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let path = path.field("containers");
    let containers = spec.list("containers");
    if containers.is_empty() {
        check.required(&path, "");
        return;
    }
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(check, container, pod, &path);
        if !names.insert(container.text("name")) {
            check.duplicate(&path.field("name"), container.part("name"));
        }
        lifecycle_and_probes(check, container, pod, &path);
        restart_policy(check, container, &path);
        unique_host_ports(check, container, &mut host_ports, &path);
    }
}

pub(crate) fn init_containers(check: &mut Check<'_>, spec: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let path = path.field("initContainers");
    let mut names: BTreeSet<&str> = spec.list("containers").iter().map(|container| container.text("name")).collect();
    for (index, container) in spec.list("initContainers").iter().enumerate() {
        let path = path.index(index);
        common(check, container, pod, &path);
        // Of rules without a policy nothing more is said than that.
        if container.has("restartPolicy") || container.list("restartPolicyRules").is_empty() {
            restart_policy(check, container, &path);
        } else {
            check.required(&path.field("restartPolicy"), RULES_NEED_POLICY);
        }
        let name = container.text("name");
        if !names.insert(name) && !name.is_empty() {
            check.duplicate(&path.field("name"), container.part("name"));
        }
        unique_host_ports(check, container, &mut BTreeSet::new(), &path);
        if container.text("restartPolicy") == "Always" {
            lifecycle_and_probes(check, container, pod, &path);
        } else {
            for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.has(name) {
                    let text = "may not be set for init containers without restartPolicy=Always";
                    check.forbidden(&path.field(name), text);
                }
            }
            let policies = path.field("resizePolicy");
            for (index, policy) in container.list("resizePolicy").iter().enumerate() {
                if policy.text("restartPolicy") == "RestartContainer" {
                    let path = policies.index(index);
                    let text = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    check.invalid(&path.field("restartPolicy"), policy.part("restartPolicy"), text);
                }
            }
        }
    }
}

pub(crate) fn ephemeral_containers(check: &mut Check<'_>, spec: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let path = path.field("ephemeralContainers");
    let lasting = || spec.list("containers").iter().chain(spec.list("initContainers"));
    let mut names: BTreeSet<&str> = lasting().map(|container| container.text("name")).collect();
    for (index, container) in spec.list("ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        common(check, container, pod, &path);
        if !names.insert(container.text("name")) {
            check.duplicate(&path.field("name"), container.part("name"));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !lasting().any(|one| one.text("name") == target) {
            check.not_found(&path.field("targetContainerName"), container.part("targetContainerName"));
        }
        for (name, value) in container.as_object().into_iter().flatten() {
            let empty = value.is_null()
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            if !empty && !EPHEMERAL_FIELDS.contains(&name.as_str()) {
                check.forbidden(&path.field(name), "cannot be set for an Ephemeral Container");
            }
        }
        let mounts = path.field("volumeMounts");
        for (index, mount) in container.list("volumeMounts").iter().enumerate() {
            for name in ["subPath", "subPathExpr"] {
                if !mount.text(name).is_empty() {
                    let path = mounts.index(index);
                    check.forbidden(&path.field(name), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn common(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let name = container.text("name");
    if name.is_empty() {
        check.required(&path.field("name"), "");
    } else {
        check.found(&path.field("name"), name, format::dns_label(name));
    }
    check.text(container, path, "image");
    check.choice(container, path, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"]);
    ports(check, container, &path.field("ports"));
    env(check, container, pod, &path.field("env"));
    env_from(check, container, &path.field("envFrom"));
    mounts::mounts(check, container, pod, path);
    check.choice(container, path, "imagePullPolicy", PULL_POLICIES);
    resources::requirements(
        check,
        container.part("resources"),
        resources::name_for_container,
        &path.field("resources"),
    );
    pod_claims::used(check, container.part("resources"), &pod.claims, &path.field("resources"));
    resize_policy(check, container, pod, &path.field("resizePolicy"));
    security::of_container(check, container.part("securityContext"), pod, &path.field("securityContext"));
}

/// What a change of a resource does to the container, once for each resource. Upstream names the list in its findings.
fn resize_policy(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let mut resources = BTreeSet::new();
    for (index, policy) in container.list("resizePolicy").iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if !resources.insert(resource) {
            check.duplicate(&path.index(index), &resource.into());
        }
        for (value, supported) in [(resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            if value.is_empty() {
                check.required(path, "");
            } else if !supported.contains(&value) {
                check.not_supported(path, &value.into(), &supported);
            }
        }
        if pod.restart_policy == "Never" && restart != "NotRequired" {
            let text = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            check.invalid(path, &restart.into(), text);
        }
    }
}

fn ports(check: &mut Check<'_>, container: &Value, path: &Path<'_>) {
    let mut names = BTreeSet::new();
    for (index, port) in container.list("ports").iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            let findings = format::port_name(name);
            if !findings.is_empty() {
                check.found(&path.field("name"), name, findings);
            } else if !names.insert(name) {
                check.duplicate(&path.field("name"), port.part("name"));
            }
        }
        match port.int("containerPort").unwrap_or_default() {
            0 => check.required(&path.field("containerPort"), ""),
            _ => check.port(port, &path, "containerPort"),
        }
        if port.int("hostPort").unwrap_or_default() != 0 {
            check.port(port, &path, "hostPort");
        }
        check.choice(port, &path, "protocol", PROTOCOLS);
    }
}

fn unique_host_ports(check: &mut Check<'_>, container: &Value, taken: &mut BTreeSet<String>, path: &Path<'_>) {
    let path = path.field("ports");
    for (index, port) in container.list("ports").iter().enumerate() {
        let Some(number) = port.int("hostPort").filter(|&number| number != 0) else { continue };
        let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        let text = Value::from(key.as_str());
        if !taken.insert(key) {
            let path = path.index(index);
            check.duplicate(&path.field("hostPort"), &text);
        }
    }
}

fn env(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    for (index, variable) in container.list("env").iter().enumerate() {
        let path = path.index(index);
        let name = variable.text("name");
        if name.is_empty() {
            check.required(&path.field("name"), "");
        } else {
            check.found(&path.field("name"), name, format::env_name(name));
        }
        let Some(source) = variable.at("valueFrom") else { continue };
        let path = path.field("valueFrom");
        let mut sources = 0;
        for (kind, part) in source.as_object().into_iter().flatten().filter(|(_, part)| !part.is_null()) {
            sources += 1;
            let path = path.field(kind);
            match kind.as_str() {
                "fieldRef" => downward::variable(check, part, &path),
                "resourceFieldRef" => downward::variable_of_resource(check, part, &path),
                "fileKeyRef" => file_key(check, part, pod, &path),
                "configMapKeyRef" | "secretKeyRef" => {
                    let name = part.text("name");
                    check.found(&path.field("name"), name, format::dns_subdomain(name));
                    if check.text(part, &path, "key") {
                        check.found(&path.field("key"), part.text("key"), format::config_key(part.text("key")));
                    }
                }
                _ => {}
            }
        }
        let empty = Value::from("");
        if sources == 0 {
            let text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                        `fileKeyRef`";
            check.invalid(&path, &empty, text);
        } else if !variable.text("value").is_empty() {
            check.invalid(&path, &empty, "may not be specified when `value` is not empty");
        } else if sources > 1 {
            check.invalid(&path, &empty, "may not have more than one field specified at a time");
        }
    }
}

/// A variable from a file of variables that an init container wrote.
fn file_key(check: &mut Check<'_>, part: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    if check.text(part, path, "key") {
        check.found(&path.field("key"), part.text("key"), format::env_name(part.text("key")));
    }
    let volume = part.text("volumeName");
    if check.text(part, path, "volumeName") {
        check.found(&path.field("volumeName"), volume, format::dns_label(volume));
    }
    if check.text(part, path, "path") {
        volumes::no_backsteps(check, part.text("path"), &path.field("path"));
    }
    match pod.volumes.get(volume) {
        None => check.not_found(&path.field("volumeName"), &volume.into()),
        Some(source) if !source.has("emptyDir") => {
            check.invalid(&path.field("volumeName"), &volume.into(), "referenced volume must be of type emptyDir");
        }
        Some(_) => {}
    }
}

fn env_from(check: &mut Check<'_>, container: &Value, path: &Path<'_>) {
    for (index, source) in container.list("envFrom").iter().enumerate() {
        let here = path.index(index);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            check.found(&here.field("prefix"), prefix, format::env_name(prefix));
        }
        let mut sources = 0;
        for name in ["configMapRef", "secretRef"] {
            if let Some(part) = source.at(name) {
                sources += 1;
                let here = here.field(name);
                if check.text(part, &here, "name") {
                    check.found(&here.field("name"), part.text("name"), format::name_prefix(part.text("name")));
                }
            }
        }
        if sources == 0 {
            check.invalid(path, &"".into(), "must specify one of: `configMapRef` or `secretRef`");
        } else if sources > 1 {
            check.invalid(path, &"".into(), "may not have more than one field specified at a time");
        }
    }
}

fn restart_policy(check: &mut Check<'_>, container: &Value, path: &Path<'_>) {
    let rules = container.list("restartPolicyRules");
    if !container.has("restartPolicy") && !rules.is_empty() {
        check.required(&path.field("restartPolicy"), RULES_NEED_POLICY);
    }
    check.one_of(container, path, "restartPolicy", &["Always", "Never", "OnFailure"]);
    let list = path.field("restartPolicyRules");
    super::claims::at_most(check, rules.len(), RESTART_RULES_MAX, &list);
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        check.choice_or_not_supported(rule, &path, "action", &["Restart", "RestartAllContainers"]);
        let Some(codes) = rule.at("exitCodes") else {
            check.required(&path.field("exitCodes"), "must be specified");
            continue;
        };
        let path = path.field("exitCodes");
        check.choice_or_not_supported(codes, &path, "operator", &["In", "NotIn"]);
        super::claims::at_most(check, codes.list("values").len(), EXIT_CODES_MAX, &path.field("values"));
    }
}
