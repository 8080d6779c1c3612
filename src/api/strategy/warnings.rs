//! What is allowed, but hardly meant: texts for the `Warning` header.
//!
//! Limitation: of items that volumes take along nothing is said (upstream tells paths that overlap), nor of whether the
//! certificate of a TLS secret goes with its key.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use serde_json::Value;

use crate::{fields::Fields, format, path::Path, quantity::Quantity};

/// Labels of nodes that have been replaced, and what is said of them.
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];
/// Kinds of volumes that are gone: as pods name them, as persistent volumes do (empty where nothing is said), and what
/// is said.
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

pub fn pod(pod: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    hostname(pod, "the Pod's hostname", &mut warnings);
    spec(pod.part("spec"), &Path::Root.field("spec"), &mut warnings);
    warnings
}

/// A name that pods will have in theirs.
fn hostname(object: &Value, place: &str, warnings: &mut Vec<String>) {
    let findings = format::dns_label(object.part("metadata").text("name"));
    if !findings.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in {place}, which can result in surprising behavior; a DNS label \
             is recommended: [{}]",
            findings.join(" ")
        ));
    }
}

/// Of a workload whose template changed.
pub fn template(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    of_template(object.part("spec"), old.map(|old| old.part("spec")), &Path::Root.field("spec"), &mut warnings);
    warnings
}

fn of_template(holder: &Value, old: Option<&Value>, path: &Path<'_>, warnings: &mut Vec<String>) {
    if old.is_none_or(|old| old.part("template") != holder.part("template")) {
        let path = path.field("template");
        spec(holder.part("template").part("spec"), &path.field("spec"), warnings);
    }
}

pub fn job(job: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        hostname(job, "Pod names and hostnames", &mut warnings);
    }
    warnings.extend(template(job, old));
    warnings
}

pub fn cron_job(job: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        hostname(job, "Pod names and hostnames", &mut warnings);
    }
    let root = Path::Root;
    let path = root.field("spec");
    let path = path.field("jobTemplate");
    let of = |job: &'_ Value| job.part("spec").part("jobTemplate").part("spec").clone();
    of_template(&of(job), old.map(of).as_ref(), &path.field("spec"), &mut warnings);
    if old.is_some() && job.part("spec").text("schedule").contains("TZ") {
        warnings.push(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .to_owned(),
        );
    }
    warnings
}

fn spec(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let selector = path.field("nodeSelector");
    for (label, _) in spec.map("nodeSelector").into_iter().flatten() {
        if let Some(text) = old_label(label) {
            warnings.push(format!("{}: {text}", selector.key(label)));
        }
    }
    node_affinity(spec, path, warnings);
    let list = path.field("topologySpreadConstraints");
    for (index, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let (path, key) = (list.index(index), constraint.text("topologyKey"));
        if let Some(text) = old_label(key) {
            warnings.push(format!("{}: {key} is {text}", path.field("topologyKey")));
        }
        if !constraint.has("labelSelector") {
            warnings.push(format!("{}: {NO_SELECTOR}", path.field("labelSelector")));
        }
    }
    volumes(spec, path, warnings);
    twice(spec, path, ["hostAliases", "ip"], warnings);
    twice(spec, path, ["imagePullSecrets", "name"], warnings);
    let list = path.field("imagePullSecrets");
    for (index, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", list.index(index).field("name")));
        }
    }
    let overhead = path.field("overhead");
    for name in ["memory", "ephemeral-storage"] {
        fraction(spec.part("overhead"), &overhead, name, warnings);
    }
    const KINDS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
    for kind in KINDS {
        let list = path.field(kind);
        for (index, one) in spec.list(kind).iter().enumerate() {
            container(one, &list.index(index), warnings);
        }
    }
    let containers = KINDS.into_iter().flat_map(|kind| {
        spec.list(kind).iter().enumerate().map(move |(index, one)| (format!("{path}.{kind}[{index}].ports"), one))
    });
    ports(containers, warnings);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.field("terminationGracePeriodSeconds")
        ));
    }
    pod_affinity(spec, path, warnings);
}

fn old_label(label: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(old, _)| *old == label).map(|(_, text)| *text)
}

/// What a list has twice by one field.
fn twice(holder: &Value, path: &Path<'_>, [list, field]: [&str; 2], warnings: &mut Vec<String>) {
    let here = path.field(list);
    let mut known = HashSet::new();
    for (index, item) in holder.list(list).iter().enumerate() {
        let value = item.text(field);
        if !known.insert(value) {
            warnings.push(format!("{}: duplicate {field} {value:?}", here.index(index).field(field)));
        }
    }
}

fn node_affinity(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let affinity = spec.part("affinity").part("nodeAffinity");
    let path = format!("{path}.affinity.nodeAffinity");
    let required = affinity.part("requiredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in required.list("nodeSelectorTerms").iter().enumerate() {
        let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]");
        node_term(term, false, &path, warnings);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in affinity.list(preferred).iter().enumerate() {
        node_term(term.part("preference"), true, &format!("{path}.{preferred}[{index}].preference"), warnings);
    }
}

fn node_term(term: &Value, values: bool, path: &str, warnings: &mut Vec<String>) {
    for (index, expression) in term.list("matchExpressions").iter().enumerate() {
        let (path, key) = (format!("{path}.matchExpressions[{index}]"), expression.text("key"));
        if let Some(text) = old_label(key) {
            warnings.push(format!("{path}.key: {key} is {text}"));
        }
        for (index, value) in expression.list("values").iter().filter(|_| values).enumerate() {
            let value = value.as_str().unwrap_or_default();
            for finding in format::label_value(value) {
                warnings.push(format!("{path}.values[{index}]: {value} is invalid, {finding}"));
            }
        }
    }
}

fn pod_affinity(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.part("affinity").part(kind);
        for (name, term_name) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", ""),
            ("preferredDuringSchedulingIgnoredDuringExecution", ".podAffinityTerm"),
        ] {
            for (index, term) in affinity.list(name).iter().enumerate() {
                let term = if term_name.is_empty() { term } else { term.part("podAffinityTerm") };
                if !term.has("labelSelector") {
                    warnings.push(format!(
                        "{path}.affinity.{kind}.{name}[{index}]{term_name}.labelSelector: {NO_SELECTOR}"
                    ));
                }
            }
        }
    }
}

fn volumes(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let list = path.field("volumes");
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        let path = list.index(index);
        for (name, _, text) in OLD_VOLUMES.iter().filter(|(name, ..)| volume.has(name)) {
            let name = if *name == "storageos" { "storageOS" } else { name };
            warnings.push(format!("{}: {text}", path.field(name)));
        }
        let claim = volume.part("ephemeral").part("volumeClaimTemplate").part("spec");
        claim_spec(claim, &format!("{path}.ephemeral.volumeClaimTemplate.spec"), warnings);
    }
    for volume in spec.list("volumes") {
        for source in volume.part("projected").list("sources") {
            if source.as_object().is_none_or(serde_json::Map::is_empty) {
                warnings.push(format!("volume {:?} (Projected) has no sources provided", volume.text("name")));
            }
        }
    }
}

/// Bytes come whole.
fn fraction(amounts: &Value, path: &Path<'_>, name: &str, warnings: &mut Vec<String>) {
    let value = amounts.part(name);
    if Quantity::from_value(value).is_ok_and(|quantity| !quantity.is_whole()) {
        let text = value.as_str().unwrap_or_default();
        let path = path.key(name);
        warnings.push(format!("{path}: fractional byte value \"{text}\" is invalid, must be an integer"));
    }
}

fn container(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let resources = path.field("resources");
    for name in ["memory", "ephemeral-storage"] {
        for list in ["limits", "requests"] {
            fraction(container.part("resources").part(list), &resources.field(list), name, warnings);
        }
    }
    let list = path.field("env");
    let mut known = HashSet::new();
    for (index, variable) in container.list("env").iter().enumerate() {
        let name = variable.text("name");
        // A value that builds on the earlier one is meant to replace it.
        let reference = format!("$({name})");
        let value = variable.text("value");
        let builds_on = value.contains(&reference) && value != reference && !variable.has("valueFrom");
        if !known.insert(name) && !builds_on {
            warnings.push(format!(
                "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
                list.index(index)
            ));
        }
    }
}

/// Ports of all containers of a pod, with the paths of their lists.
fn ports<'a>(containers: impl Iterator<Item = (String, &'a Value)>, warnings: &mut Vec<String>) {
    let mut ports: HashMap<(i64, &str), Vec<(String, &Value)>> = HashMap::new();
    let mut names: HashMap<&str, String> = HashMap::new();
    let mut of_names = Vec::new();
    for (path, container) in containers {
        for (index, port) in container.list("ports").iter().enumerate() {
            let here = format!("{path}[{index}]");
            let key = (port.int("containerPort").unwrap_or_default(), port.text("protocol"));
            let earlier = ports.entry(key).or_default();
            for (there, other) in earlier.iter() {
                let host = |port: &Value| (port.int("hostPort").unwrap_or_default(), port.text("hostIP").to_owned());
                let (mine, theirs) = (host(port), host(other));
                let what = if mine == theirs {
                    "duplicate"
                } else if mine.0 == 0 || theirs.0 == 0 {
                    "overlapping"
                } else if mine.0 == theirs.0 && mine.1.is_empty() != theirs.1.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                warnings.push(format!("{here}: {what} port definition with {there}"));
            }
            earlier.push((here.clone(), port));
            let name = port.text("name");
            match names.get(name) {
                _ if name.is_empty() => {}
                Some(there) => of_names.push(format!(
                    "{here}: duplicate port name {name:?} with {there}, services and probes that select ports by name \
                     will use {there}"
                )),
                None => {
                    names.insert(name, here);
                }
            }
        }
    }
    warnings.append(&mut of_names);
}

fn claim_spec(spec: &Value, path: &str, warnings: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        let path = Path::Field(&Path::Root, path);
        let path = path.field("resources");
        fraction(spec.part("resources").part(list), &path.field(list), "storage", warnings);
    }
}

fn old_annotations(object: &Value, all: &[(&str, &str)], warnings: &mut Vec<String>) {
    let annotations = object.part("metadata").part("annotations");
    for (key, text) in all.iter().filter(|(key, _)| annotations.get(key).is_some()) {
        warnings.push(format!("metadata.annotations[{key}]: {text}"));
    }
}

pub fn claim(claim: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let text = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    old_annotations(claim, &[("volume.beta.kubernetes.io/storage-class", text)], &mut warnings);
    claim_spec(claim.part("spec"), "spec", &mut warnings);
    warnings
}

pub fn volume(volume: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let old = [
        (
            "volume.beta.kubernetes.io/storage-class",
            "deprecated since v1.8; use \"storageClassName\" attribute instead",
        ),
        ("volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    old_annotations(volume, &old, &mut warnings);
    let spec = volume.part("spec");
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    let terms = spec.part("nodeAffinity").part("required").list("nodeSelectorTerms");
    for (index, term) in terms.iter().enumerate() {
        node_term(term, false, &format!("spec.nodeAffinity.required.nodeSelectorTerms[{index}]"), &mut warnings);
    }
    for (_, name, text) in OLD_VOLUMES.iter().filter(|(_, name, _)| !name.is_empty() && spec.has(name)) {
        let name = if *name == "storageos" { "storageOS" } else { name };
        warnings.push(format!("spec.{name}: {text}"));
    }
    warnings
}

pub fn service(service: &Value, _old: Option<&Value>) -> Vec<String> {
    let spec = service.part("spec");
    let mut warnings = Vec::new();
    let hints = "service.kubernetes.io/topology-aware-hints";
    if service.part("metadata").part("annotations").get(hints).is_some() {
        let mode = "service.kubernetes.io/topology-mode";
        warnings.push(format!("annotation {hints} is deprecated, please use {mode} instead"));
    }
    let outside = !spec.list("externalIPs").is_empty();
    let headless = spec.text("type") == "ClusterIP" && spec.text("clusterIP") == "None";
    if headless {
        if !spec.text("loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if outside {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.text("sessionAffinity") != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    let named = spec.text("type") == "ExternalName";
    if outside && !headless && !named {
        let text = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(text.to_owned());
    }
    if named && outside {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !named && !spec.text("externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        let text = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(text.to_owned());
    }
    warnings
}

pub fn csi_driver(driver: &Value, _old: Option<&Value>) -> Vec<String> {
    let spec = driver.part("spec");
    if spec.list("tokenRequests").is_empty() || spec.has("serviceAccountTokenInSecrets") {
        return Vec::new();
    }
    vec![
        "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible \
         logging of tokens in volume attributes"
            .to_owned(),
    ]
}

/// A TLS secret without anything in PEM.
pub fn secret(secret: &Value, _old: Option<&Value>) -> Vec<String> {
    if secret.text("type") != "kubernetes.io/tls" {
        return Vec::new();
    }
    let pem = |key: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(secret.part("data").text(key));
        bytes.is_ok_and(|bytes| bytes.windows(b"-----BEGIN ".len()).any(|window| window == b"-----BEGIN "))
    };
    for (key, name) in [("tls.crt", "certificate"), ("tls.key", "key")] {
        if !pem(key) {
            return vec![format!("tls: failed to find any PEM data in {name} input")];
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_hardly_meant_is_warned_of() {
        let pod = json!({"metadata": {"name": "a.b"}, "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
            "volumes": [{"name": "v", "projected": {"sources": [{}]}}, {"name": "g", "gitRepo": {}}],
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z"}]}},
            "containers": [{
                "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"}],
                "resources": {"limits": {"memory": "100m"}},
                "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}],
            }, {"ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 8}]}]}});
        let warnings = super::pod(&pod, None);
        assert!(warnings[0].starts_with("metadata.name: this is used in the Pod's hostname"), "{warnings:#?}");
        assert_eq!(
            warnings[1..],
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                "volume \"v\" (Projected) has no sources provided",
                "spec.imagePullSecrets[1].name: duplicate name \"s\"",
                "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an \
                 integer",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[1]",
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null \
                 labelSelector results in matching no pod",
            ]
        );
        assert_eq!(super::pod(&pod, Some(&pod)), Vec::<String>::new());
    }

    #[test]
    fn services_say_what_is_ignored() {
        let of = |spec: Value| service(&json!({"spec": spec}), None);
        assert_eq!(
            of(
                json!({"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["1.2.3.4"], "sessionAffinity": "None"})
            ),
            ["spec.externalIPs is ignored for headless services"]
        );
        assert_eq!(
            of(json!({"type": "ClusterIP", "trafficDistribution": "PreferClose", "externalName": "a"})),
            [
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ]
        );
    }
}
