//! Containers of every sort: what all share, and what only some may have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, pod_claims, resources, volumes};
use crate::{fields::Fields, format, path::Path};

const ID_MAX: i64 = i32::MAX as i64;
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
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
        restart_policy(check, container, &path);
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
    mounts(check, container, pod, path);
    check.choice(container, path, "imagePullPolicy", PULL_POLICIES);
    resources::requirements(check, container.part("resources"), &path.field("resources"));
    pod_claims::used(check, container.part("resources"), &pod.claims, &path.field("resources"));
    let policies = path.field("resizePolicy");
    for (index, policy) in container.list("resizePolicy").iter().enumerate() {
        let path = policies.index(index);
        check.one_of(policy, &path, "resourceName", &["cpu", "memory"]);
        check.one_of(policy, &path, "restartPolicy", &["NotRequired", "RestartContainer"]);
    }
    security_context(check, container.part("securityContext"), pod, &path.field("securityContext"));
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
                "fieldRef" => volumes::env_field_ref(check, part, &path),
                "resourceFieldRef" => volumes::env_resource_ref(check, part, &path),
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
                check.text(part, &here.field(name), "name");
            }
        }
        if sources == 0 {
            check.invalid(path, &"".into(), "must specify one of: `configMapRef` or `secretRef`");
        } else if sources > 1 {
            check.invalid(path, &"".into(), "may not have more than one field specified at a time");
        }
    }
}

fn mounts(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let list = path.field("volumeMounts");
    let devices = container.list("volumeDevices");
    let mut points = BTreeSet::new();
    for (index, mount) in container.list("volumeMounts").iter().enumerate() {
        let path = list.index(index);
        let name = mount.text("name");
        if name.is_empty() {
            check.required(&path.field("name"), "");
        }
        if !pod.volumes.contains_key(name) {
            check.not_found(&path.field("name"), &name.into());
        }
        let point = mount.text("mountPath");
        if point.is_empty() {
            check.required(&path.field("mountPath"), "");
        }
        if !points.insert(point) {
            check.invalid(&path.field("mountPath"), mount.part("mountPath"), "must be unique");
        }
        if devices.iter().any(|device| device.text("name") == name) {
            check.invalid(&path.field("name"), mount.part("name"), "must not already exist in volumeDevices");
        }
        let (sub_path, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !sub_path.is_empty() {
            volumes::descending(check, sub_path, &list.field("subPath"));
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let text = "subPathExpr and subPath are mutually exclusive";
                check.invalid(&path.field("subPathExpr"), mount.part("subPathExpr"), text);
            }
            volumes::descending(check, expression, &list.field("subPathExpr"));
        }
        check.one_of(mount, &list, "mountPropagation", &["Bidirectional", "HostToContainer", "None"]);
        if mount.text("mountPropagation") == "Bidirectional" && !container.part("securityContext").flag("privileged") {
            let text = "Bidirectional mount propagation is available only to privileged containers";
            check.forbidden(&list.field("mountPropagation"), text);
        }
        let recursive = mount.text("recursiveReadOnly");
        if mount.has("recursiveReadOnly") {
            check.one_of(mount, &list, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"]);
            if matches!(recursive, "Enabled" | "IfPossible") && !mount.flag("readOnly") {
                let text = "may only be specified when readOnly is true";
                check.forbidden(&list.field("recursiveReadOnly"), text);
            }
        }
    }
    let list = path.field("volumeDevices");
    for (index, device) in devices.iter().enumerate() {
        let path = list.index(index);
        check.text(device, &path, "name");
        check.text(device, &path, "devicePath");
        match pod.volumes.get(device.text("name")) {
            None => check.not_found(&path.field("name"), device.part("name")),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                check.invalid(&path.field("name"), device.part("name"), text);
            }
            Some(_) => {}
        }
    }
}

fn lifecycle_and_probes(check: &mut Check<'_>, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    if let Some(lifecycle) = container.at("lifecycle") {
        let path = path.field("lifecycle");
        for name in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.at(name) {
                handler(check, hook, pod, &path.field(name));
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.at(name) else { continue };
        let path = path.field(name);
        handler(check, probe, pod, &path);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            check.not_negative(probe, &path, field);
        }
        let grace = path.field("terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
                check.invalid(&grace, &seconds.into(), "must not be set for readinessProbes");
            }
        } else {
            if let Some(seconds) = probe.int("terminationGracePeriodSeconds").filter(|&seconds| seconds <= 0) {
                check.invalid(&grace, &seconds.into(), "must be greater than 0");
            }
            if probe.int("successThreshold") != Some(1) {
                check.invalid(&path.field("successThreshold"), probe.part("successThreshold"), "must be 1");
            }
        }
    }
}

fn handler(check: &mut Check<'_>, handler: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    let mut handlers = 0;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.at(name) else { continue };
        let path = path.field(name);
        handlers += 1;
        if handlers > 1 {
            check.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match name {
            "exec" => {
                if action.list("command").is_empty() {
                    check.required(&path.field("command"), "");
                }
            }
            "httpGet" => {
                check.text(action, &path, "path");
                check.port(action, &path, "port");
                check.one_of(action, &path, "scheme", &["HTTP", "HTTPS"]);
                for header in action.list("httpHeaders") {
                    let name = header.text("name");
                    check.found(&path.field("httpHeaders"), name, format::http_header_name(name));
                }
            }
            "tcpSocket" | "grpc" => check.port(action, &path, "port"),
            _ => {
                let seconds = action.int("seconds").unwrap_or_default();
                let limit = pod.grace_seconds.unwrap_or_default();
                if seconds < 0 || seconds > limit {
                    let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({limit})");
                    check.invalid(&path, &seconds.into(), &text);
                }
            }
        }
    }
    if handlers == 0 {
        check.required(path, "must specify a handler type");
    }
}

fn restart_policy(check: &mut Check<'_>, container: &Value, path: &Path<'_>) {
    let rules = container.list("restartPolicyRules");
    if !container.has("restartPolicy") && !rules.is_empty() {
        let text = "must specify restartPolicy when restart rules are used";
        check.required(&path.field("restartPolicy"), text);
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

fn security_context(check: &mut Check<'_>, context: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    if context.is_null() {
        return;
    }
    check.in_range(context, path, "runAsUser", 0, ID_MAX);
    check.in_range(context, path, "runAsGroup", 0, ID_MAX);
    check.one_of(context, path, "procMount", &["Default", "Unmasked"]);
    if context.text("procMount") == "Unmasked" && pod.host_users {
        let text = "`hostUsers` must be false to use `Unmasked`";
        check.invalid(&path.field("procMount"), context.part("procMount"), text);
    }
    profile(check, context, "seccompProfile", path);
    profile(check, context, "appArmorProfile", path);
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if context.flag("privileged") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            check.invalid(path, context, text);
        }
        if context.part("capabilities").list("add").iter().any(|one| one == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            check.invalid(path, context, text);
        }
    }
}

/// A seccomp or AppArmor profile.
pub(crate) fn profile(check: &mut Check<'_>, context: &Value, name: &str, path: &Path<'_>) {
    let Some(profile) = context.at(name) else { return };
    let path = path.field(name);
    if !check.text(profile, &path, "type") {
        return;
    }
    check.one_of(profile, &path, "type", &["Localhost", "RuntimeDefault", "Unconfined"]);
    let file = profile.text("localhostProfile");
    if profile.text("type") == "Localhost" {
        if file.is_empty() {
            let detail = format!("must be set when {} type is Localhost", name.trim_end_matches("Profile"));
            check.required(&path.field("localhostProfile"), &detail);
        } else {
            volumes::descending(check, file, &path.field("localhostProfile"));
        }
    } else if profile.has("localhostProfile") {
        let text = format!("can only be set when {} type is Localhost", name.trim_end_matches("Profile"));
        check.invalid(&path.field("localhostProfile"), profile.part("localhostProfile"), &text);
    }
}
