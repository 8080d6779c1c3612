//! Pods, pod templates, and which of a pod's fields may change.

use serde_json::Value;

use super::{
    Check, container, os, placement, pod_annotations, pod_claims, pod_status, same, security, volumes, windows,
};
use crate::{failure::FieldError, fields::Fields, format, meta, path::Path};

const ID_MAX: i64 = i32::MAX as i64;
/// What Linux takes.
const HOSTNAME_BYTES_MAX: usize = 64;
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn create(pod: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    spec(check, pod.part("spec"), pod, &path);
    only_of_pods(check, pod.part("spec"), &path);
    pod_annotations::create(check, pod);
    if !pod.part("spec").list("ephemeralContainers").is_empty() {
        check.forbidden(&path.field("ephemeralContainers"), "cannot be set on create");
    }
    if !pod.part("spec").text("nodeName").is_empty() && !pod.part("spec").list("schedulingGates").is_empty() {
        check.forbidden(&path.field("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

pub fn update(pod: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    match subresource {
        Some("status") => pod_status::update(check, pod, old),
        Some("ephemeralcontainers") => ephemeral_update(check, pod, old),
        Some("resize") => resize_update(check, pod, old),
        Some(_) => {}
        None => {
            let root = Path::Root;
            let path = root.field("spec");
            spec(check, pod.part("spec"), pod, &path);
            only_of_pods(check, pod.part("spec"), &path);
            pod_annotations::update(check, pod, old);
            spec_update(check, pod.part("spec"), old.part("spec"), &path);
        }
    }
}

/// A template within the spec of a workload.
pub(crate) fn template(check: &mut Check<'_>, holder: &Value, path: &Path<'_>) {
    let path = path.field("template");
    let template = holder.part("template");
    let metadata = template.part("metadata");
    meta::labels(metadata.map("labels"), &path.field("labels"), check.errors);
    meta::annotations(metadata.map("annotations"), &path.field("annotations"), check.errors);
    let path = path.field("spec");
    spec(check, template.part("spec"), &Value::Null, &path);
    if !template.part("spec").list("ephemeralContainers").is_empty() {
        check.forbidden(&path.field("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

pub fn pod_template(object: &Value, errors: &mut Vec<FieldError>) {
    template(&mut Check { errors }, object, &Path::Root);
}

/// A template whose pods are to run forever.
pub(crate) fn lasting_template(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, kind: &str) {
    template(check, holder, path);
    let spec = holder.part("template").part("spec");
    let path = path.field("template");
    let path = path.field("spec");
    if spec.text("restartPolicy") != "Always" {
        check.not_supported(&path.field("restartPolicy"), &spec.text("restartPolicy").into(), &["Always"]);
    }
    if spec.has("activeDeadlineSeconds") {
        let text = format!("activeDeadlineSeconds in {kind} is not Supported");
        check.forbidden(&path.field("activeDeadlineSeconds"), &text);
    }
}

/// `pod` is the pod whose spec it is, or null in a template.
fn spec(check: &mut Check<'_>, spec: &Value, pod: &Value, path: &Path<'_>) {
    let of_pod = !pod.is_null();
    let name = pod.part("metadata").text("name");
    if !spec.has("terminationGracePeriodSeconds") {
        check.required(&path.field("terminationGracePeriodSeconds"), "");
    }
    let pod = container::Pod {
        volumes: volumes::volumes(check, spec, name, path),
        claims: pod_claims::of_pod(check, spec, path),
        grace_seconds: spec.int("terminationGracePeriodSeconds"),
        restart_policy: spec.text("restartPolicy"),
        host_users: spec.get("hostUsers") != Some(&Value::Bool(false)),
    };
    container::containers(check, spec, &pod, path);
    container::init_containers(check, spec, &pod, path);
    container::ephemeral_containers(check, spec, &pod, path);
    host_network_ports(check, spec, of_pod, path);
    check.choice(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"]);
    check.choice(spec, path, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    meta::labels(spec.map("nodeSelector"), &path.field("nodeSelector"), check.errors);
    security::of_pod(check, spec, path);
    placement::affinity(check, spec, path);
    dns_config(check, spec, path);
    let gates = path.field("readinessGates");
    for (index, gate) in spec.list("readinessGates").iter().enumerate() {
        let (path, kind) = (gates.index(index), gate.text("conditionType"));
        check.found(&path.field("conditionType"), kind, format::label_key(kind));
    }
    placement::scheduling_gates(check, spec, path);
    placement::topology_spread(check, spec, path);
    windows::host_processes(check, spec, path);
    if !pod.host_users {
        host_users(check, spec, path);
    }
    hostname_override(check, spec, path);
    for name in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let value = spec.text(name);
        if !value.is_empty() || (name == "runtimeClassName" && spec.has(name)) {
            check.found(&path.field(name), value, format::dns_subdomain(value));
        }
    }
    check.in_range(spec, path, "activeDeadlineSeconds", 1, ID_MAX);
    for name in ["hostname", "subdomain"] {
        let value = spec.text(name);
        if !value.is_empty() {
            check.found(&path.field(name), value, format::dns_label(value));
        }
    }
    placement::tolerations(check, spec, path);
    host_aliases(check, spec, path);
    if spec.has("preemptionPolicy") {
        check.choice(spec, path, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    }
    for (name, value) in spec.map("overhead").into_iter().flatten() {
        let overhead = path.field("overhead");
        super::resources::amount(check, &overhead.key(name), name, value);
    }
    os::fields(check, spec, path);
    let resources = path.field("resources");
    if spec.part("resources").has("claims") {
        check.forbidden(&resources.field("claims"), "claims may not be set for Resources at pod-level");
        pod_claims::used(check, spec.part("resources"), &pod.claims, &resources);
    }
    super::resources::requirements(check, spec.part("resources"), super::resources::name_for_pod, &resources);
}

fn hostname_override(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Some(name) = spec.at("hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.field("hostnameOverride");
    if spec.flag("setHostnameAsFQDN") {
        check.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.flag("hostNetwork") {
        check.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > HOSTNAME_BYTES_MAX {
        check.errors.push(FieldError::too_long(&path, HOSTNAME_BYTES_MAX));
    }
    check.found(&path, name, format::dns_subdomain(name));
}

/// On the host's network a port of a container is one of the host. A template may leave it to its pods.
fn host_network_ports(check: &mut Check<'_>, spec: &Value, of_pod: bool, path: &Path<'_>) {
    if !spec.flag("hostNetwork") {
        return;
    }
    let containers = path.field("containers");
    for (index, container) in spec.list("containers").iter().enumerate() {
        let here = containers.index(index);
        let ports = here.field("ports");
        for (index, port) in container.list("ports").iter().enumerate() {
            let host_port = port.int("hostPort").unwrap_or_default();
            if (of_pod || host_port != 0) && Some(host_port) != port.int("containerPort") {
                let path = ports.index(index);
                let text = "must match `containerPort` when `hostNetwork` is true";
                check.invalid(&path.field("hostPort"), &host_port.into(), text);
            }
        }
    }
}

/// A pod with users of its own has no other namespace of the host.
fn host_users(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    const TEXT: &str = "when `hostUsers` is false";
    for (name, said) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(name) {
            check.forbidden(&path.field(said), TEXT);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.field(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            if !container.list("volumeDevices").is_empty() {
                let path = path.index(index);
                check.forbidden(&path.field("volumeDevices"), TEXT);
            }
        }
    }
}

fn dns_config(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let config = spec.at("dnsConfig");
    let path = path.field("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        match config {
            None => return check.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if config.list("nameservers").is_empty() => {
                let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return check.required(&path.field("nameservers"), text);
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let servers = path.field("nameservers");
    if config.list("nameservers").len() > NAMESERVERS_MAX {
        let text = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        check.invalid(&servers, config.part("nameservers"), &text);
    }
    for (index, server) in config.list("nameservers").iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        check.found(&servers.index(index), server, format::ip(server));
    }
    let searches = path.field("searches");
    let list = config.list("searches");
    if list.len() > SEARCHES_MAX {
        let text = format!("must not have more than {SEARCHES_MAX} search paths");
        check.invalid(&searches, config.part("searches"), &text);
    }
    let chars: usize = list.iter().filter_map(Value::as_str).map(|search| search.len() + 1).sum();
    if chars > SEARCH_CHARS_MAX + 1 {
        let text =
            format!("must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list");
        check.invalid(&searches, config.part("searches"), &text);
    }
    for (index, search) in list.iter().filter_map(Value::as_str).enumerate() {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Underscores are fine at the beginning of and within a part.
        let plain: String =
            name.split('.').map(|part| part.trim_start_matches('_').replace('_', "-")).collect::<Vec<_>>().join(".");
        if search != "." {
            check.found(&searches.index(index), name, format::dns_subdomain(&plain));
        }
    }
    let options = path.field("options");
    for (index, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            check.required(&options.index(index), "must not be empty");
        }
    }
}

fn host_aliases(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let list = path.field("hostAliases");
    for (index, alias) in spec.list("hostAliases").iter().enumerate() {
        let path = list.index(index);
        let ip = alias.text("ip");
        check.found(&path.field("ip"), ip, format::ip(ip));
        let names = path.field("hostnames");
        for (index, name) in alias.list("hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            check.found(&names.index(index), name, format::dns_subdomain(name));
        }
    }
}

/// What is asked of pods, and not of templates.
fn only_of_pods(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    if spec.text("serviceAccountName").is_empty() {
        let volumes = path.field("volumes");
        for (index, volume) in spec.list("volumes").iter().enumerate() {
            let path = volumes.index(index);
            let path = path.field("projected");
            let sources = path.field("sources");
            for (index, source) in volume.part("projected").list("sources").iter().enumerate() {
                if source.has("serviceAccountToken") {
                    let path = sources.index(index);
                    let text = "must not be specified when serviceAccountName is not set";
                    check.forbidden(&path.field("serviceAccountToken"), text);
                }
            }
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let path = path.field(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            let (path, image) = (path.index(index), container.text("image"));
            if image.trim().len() != image.len() {
                check.invalid(&path.field("image"), &image.into(), "must not have leading or trailing whitespace");
            }
        }
    }
}

fn spec_update(check: &mut Check<'_>, new: &Value, old: &Value, path: &Path<'_>) {
    for list in ["containers", "initContainers"] {
        let here = path.field(list);
        if new.list(list).len() != old.list(list).len() {
            return check.forbidden(&here, "pod updates may not add or remove containers");
        }
        for (index, container) in new.list(list).iter().enumerate() {
            if container.text("image").is_empty() {
                let path = here.index(index);
                check.required(&path.field("image"), "");
            }
        }
    }
    let deadline = path.field("activeDeadlineSeconds");
    match (new.int("activeDeadlineSeconds"), old.int("activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=ID_MAX).contains(&new) => {
            return check.invalid(&deadline, &new.into(), &format::range_text(0, ID_MAX));
        }
        (Some(new), Some(old)) if new > old => {
            return check.invalid(&deadline, &new.into(), "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            check.invalid(&deadline, &Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
    tolerations_update(check, new, old, path);
    let gates = path.field("schedulingGates");
    for (index, gate) in new.list("schedulingGates").iter().enumerate() {
        if !old.list("schedulingGates").contains(gate) {
            let path = gates.index(index);
            let text = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("name"));
            check.forbidden(&path.field("name"), &text);
        }
    }
    if !unchanged_but(new, old) {
        check.forbidden(path, &format!("pod updates may not change fields other than {UPDATABLE}"));
    }
}

/// Existing tolerations stay, but for how long they hold.
fn tolerations_update(check: &mut Check<'_>, new: &Value, old: &Value, path: &Path<'_>) {
    let alike = |left: &Value, right: &Value| {
        ["key", "operator", "value", "effect"].into_iter().all(|name| left.text(name) == right.text(name))
    };
    for toleration in old.list("tolerations") {
        if !new.list("tolerations").iter().any(|one| alike(one, toleration)) {
            let text = "existing toleration can not be modified except its tolerationSeconds";
            return check.forbidden(&path.field("tolerations"), text);
        }
    }
}

/// Equal but for what a running pod may change.
fn unchanged_but(new: &Value, old: &Value) -> bool {
    let gated = !old.list("schedulingGates").is_empty();
    let (Some(new_fields), Some(old_fields)) = (new.as_object(), old.as_object()) else { return same(new, old) };
    let names = new_fields.keys().chain(old_fields.keys().filter(|name| !new_fields.contains_key(*name)));
    for name in names {
        let (new_value, old_value) = (new.part(name), old.part(name));
        let fine = match name.as_str() {
            "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
            // While it is held back, a pod's choice of nodes may become narrower.
            "nodeSelector" if gated => {
                old_value.as_object().is_none_or(|old| old.iter().all(|(key, value)| new_value.get(key) == Some(value)))
            }
            "affinity" if gated => {
                same(new_value.part("podAffinity"), old_value.part("podAffinity"))
                    && same(new_value.part("podAntiAffinity"), old_value.part("podAntiAffinity"))
            }
            "terminationGracePeriodSeconds" => {
                new_value == old_value || (old_value.as_i64().is_some_and(|old| old < 0) && *new_value == 1)
            }
            "containers" | "initContainers" => {
                let pairs = new.list(name).iter().zip(old.list(name));
                pairs.into_iter().all(|(new, old)| same_but_image(new, old))
            }
            _ => same(new_value, old_value),
        };
        if !fine {
            return false;
        }
    }
    true
}

fn same_but_image(new: &Value, old: &Value) -> bool {
    let (Some(new_fields), Some(old_fields)) = (new.as_object(), old.as_object()) else { return same(new, old) };
    let mut names = new_fields.keys().chain(old_fields.keys());
    names.all(|name| name == "image" || same(new.part(name), old.part(name)))
}

fn ephemeral_update(check: &mut Check<'_>, pod: &Value, old: &Value) {
    let root = Path::Root;
    let spec_path = root.field("spec");
    spec(check, pod.part("spec"), pod, &spec_path);
    only_of_pods(check, pod.part("spec"), &spec_path);
    let path = spec_path.field("ephemeralContainers");
    for before in old.part("spec").list("ephemeralContainers") {
        let name = before.text("name");
        let now = pod.part("spec").list("ephemeralContainers").iter().find(|one| one.text("name") == name);
        match now {
            None => check.forbidden(&path, &format!("existing ephemeral containers \"{name}\" may not be removed\n")),
            Some(now) if !same(now, before) => {
                check.forbidden(&path, &format!("existing ephemeral containers \"{name}\" may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

fn resize_update(check: &mut Check<'_>, pod: &Value, old: &Value) {
    let root = Path::Root;
    let path = root.field("spec");
    spec(check, pod.part("spec"), pod, &path);
    only_of_pods(check, pod.part("spec"), &path);
    let class = |pod: &Value| crate::strategy::pod::qos_class(pod.part("spec"));
    if class(pod) != class(old) {
        let text = "Pod QOS Class may not change as a result of resizing";
        check.invalid(&path, &class(pod).into(), text);
    }
}
