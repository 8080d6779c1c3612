//! Pods and pod templates.

use serde_json::{Value, json};

use super::{empty_object, quantity, resource_list, resources};
use crate::{fields::Fields, quantity::Quantity};

/// `rw-r--r--`
const FILE_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// A pod: what only pods get, and then what templates get too.
pub fn pod(pod: &mut Value) {
    let Some(spec) = pod.object("spec") else { return };
    for list in ["containers", "initContainers"] {
        for container in spec.list_mut(list) {
            requests_from_limits(container);
        }
    }
    pod_level_resources(spec);
    spec.fill("enableServiceLinks", true);
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in spec.list_mut(list) {
                for port in container.list_mut("ports") {
                    let number = port.int("containerPort").unwrap_or_default();
                    port.fill_number("hostPort", number);
                }
            }
        }
    }
    pod_spec(spec);
}

/// A template: the pod spec within, and its metadata.
pub fn template(holder: &mut Value) {
    if let Some(spec) = holder.object("template").and_then(|template| template.object("spec")) {
        pod_spec(spec);
    }
}

pub fn pod_template(object: &mut Value) {
    template(object);
}

pub fn pod_spec(spec: &mut Value) {
    for volume in spec.list_mut("volumes") {
        self::volume(volume);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.list_mut(list) {
            self::container(container);
        }
    }
    spec.fill_text("dnsPolicy", "ClusterFirst");
    spec.fill_text("restartPolicy", "Always");
    empty_object(spec, "securityContext");
    spec.fill("terminationGracePeriodSeconds", 30);
    spec.fill_text("schedulerName", "default-scheduler");
    // The old name of the same field: upstream writes both.
    if spec.text("serviceAccountName").is_empty() && !spec.text("serviceAccount").is_empty() {
        let name = spec.text("serviceAccount").to_owned();
        spec.set("serviceAccountName", name);
    } else if !spec.text("serviceAccountName").is_empty()
        && spec.text("serviceAccount") != spec.text("serviceAccountName")
    {
        let name = spec.text("serviceAccountName").to_owned();
        spec.set("serviceAccount", name);
    }
    resource_list(spec, "overhead");
    if let Some(resources) = spec.at_mut("resources") {
        self::resources(resources);
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.at_mut("resources") else { return };
    let Some(limits) = resources.map("limits") else { return };
    let requests = resources.map("requests");
    let missing: Vec<(String, Value)> = limits
        .iter()
        .filter(|(name, _)| requests.is_none_or(|requests| !requests.contains_key(*name)))
        .map(|(name, limit)| (name.clone(), limit.clone()))
        .collect();
    if missing.is_empty() {
        return;
    }
    if let Some(requests) = resources.object("requests").and_then(Value::as_object_mut) {
        requests.extend(missing);
    }
}

/// Resources of the pod as a whole: what its containers ask for together, and else its limits.
fn pod_level_resources(spec: &mut Value) {
    if spec.part("resources").map("limits").is_none_or(serde_json::Map::is_empty) {
        return;
    }
    let mut missing = Vec::new();
    for name in ["cpu", "memory"] {
        let asked = spec.part("resources").part("requests").has(name);
        let requests = containers_ask(spec, name);
        if let Some(sum) = requests.filter(|_| !asked) {
            missing.push((name.to_owned(), Value::from(sum)));
        }
    }
    for (name, limit) in spec.part("resources").map("limits").into_iter().flatten() {
        let known = matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-");
        let asked = spec.part("resources").part("requests").has(name) || missing.iter().any(|(had, _)| had == name);
        if known && !asked {
            missing.push((name.clone(), limit.clone()));
        }
    }
    if missing.is_empty() {
        return;
    }
    let requests = spec.object("resources").and_then(|resources| resources.object("requests"));
    if let Some(requests) = requests.and_then(Value::as_object_mut) {
        requests.extend(missing);
    }
}

/// What all containers ask for at the time when they ask for most (upstream's `AggregateContainerRequests`);
/// nothing if none names the resource.
fn containers_ask(spec: &Value, name: &str) -> Option<Quantity> {
    let request = |container: &Value| {
        let value = container.part("resources").part("requests").at(name)?;
        Quantity::from_value(value).ok()
    };
    let mut named = false;
    let mut sum = Quantity::ZERO;
    for container in spec.list("containers") {
        if let Some(quantity) = request(container) {
            named = true;
            sum += quantity;
        }
    }
    let mut sidecars = Quantity::ZERO;
    let mut highest = Quantity::ZERO;
    for container in spec.list("initContainers") {
        let Some(quantity) = request(container) else { continue };
        named = true;
        if container.text("restartPolicy") == "Always" {
            sum += quantity;
            sidecars += quantity;
            highest = highest.max(sidecars);
        } else {
            highest = highest.max(sidecars + quantity);
        }
    }
    named.then(|| sum.max(highest))
}

/// `latest` is pulled each time, everything else only when it is missing.
fn pull_policy(image: &str) -> &'static str {
    let (named, digested) = image.split_once('@').map_or((image, false), |(named, _)| (named, true));
    let name = named.rsplit('/').next().unwrap_or(named);
    match name.split_once(':') {
        None if digested || image.is_empty() => "IfNotPresent",
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn container(container: &mut Value) {
    if container.text("imagePullPolicy").is_empty() {
        let policy = pull_policy(container.text("image"));
        container.set("imagePullPolicy", policy);
    }
    container.fill_text("terminationMessagePath", "/dev/termination-log");
    container.fill_text("terminationMessagePolicy", "File");
    for port in container.list_mut("ports") {
        port.fill_text("protocol", "TCP");
    }
    for variable in container.list_mut("env") {
        let Some(source) = variable.at_mut("valueFrom") else { continue };
        field_ref(source);
        divisor(source);
        if let Some(file) = source.at_mut("fileKeyRef") {
            file.fill("optional", false);
        }
    }
    empty_object(container, "resources");
    if let Some(resources) = container.at_mut("resources") {
        self::resources(resources);
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.at_mut(name) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = container.at_mut("lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(action) = lifecycle.at_mut(name).and_then(|hook| hook.at_mut("httpGet")) {
                http_get(action);
            }
        }
    }
}

fn probe(probe: &mut Value) {
    probe.fill_number("timeoutSeconds", 1);
    probe.fill_number("periodSeconds", 10);
    probe.fill_number("successThreshold", 1);
    probe.fill_number("failureThreshold", 3);
    if let Some(action) = probe.at_mut("httpGet") {
        http_get(action);
    }
    if let Some(action) = probe.at_mut("grpc") {
        action.fill("service", "");
    }
}

fn http_get(action: &mut Value) {
    action.fill_text("path", "/");
    action.fill_text("scheme", "HTTP");
}

fn field_ref(source: &mut Value) {
    if let Some(field) = source.at_mut("fieldRef") {
        field.fill_text("apiVersion", "v1");
    }
}

/// Go writes a quantity that was left out as zero.
fn divisor(source: &mut Value) {
    if let Some(field) = source.at_mut("resourceFieldRef") {
        field.fill("divisor", "0");
        quantity(field, "divisor");
    }
}

/// A volume of a pod. One without a source is an emptyDir.
fn volume(volume: &mut Value) {
    let bare = volume.as_object().is_some_and(|fields| fields.iter().all(|(name, v)| name == "name" || v.is_null()));
    if bare {
        volume.set("emptyDir", json!({}));
        return;
    }
    if let Some(empty) = volume.at_mut("emptyDir") {
        quantity(empty, "sizeLimit");
    }
    if let Some(path) = volume.at_mut("hostPath") {
        path.fill("type", "");
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.at_mut(name) {
            source.fill("defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = volume.at_mut("downwardAPI") {
        downward_items(source);
    }
    if let Some(projected) = volume.at_mut("projected") {
        for source in projected.list_mut("sources") {
            if let Some(downward) = source.at_mut("downwardAPI") {
                downward_items(downward);
            }
            if let Some(token) = source.at_mut("serviceAccountToken") {
                token.fill("expirationSeconds", TOKEN_SECONDS);
            }
        }
    }
    if let Some(image) = volume.at_mut("image")
        && image.text("pullPolicy").is_empty()
    {
        let policy = pull_policy(image.text("reference"));
        image.set("pullPolicy", policy);
    }
    let template = volume.at_mut("ephemeral").and_then(|ephemeral| ephemeral.at_mut("volumeClaimTemplate"));
    if let Some(spec) = template.and_then(|template| template.object("spec")) {
        super::storage::claim_spec(spec);
    }
    super::storage::legacy_source(volume);
}

fn downward_items(source: &mut Value) {
    for item in source.list_mut("items") {
        field_ref(item);
        divisor(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_on_pulling() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
