//! Volumes of pods: what each kind must say, and which may be mounted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::volume_drivers::{self, Holder};
use super::{Check, downward};
use crate::{fields::Fields, format, meta, path::Path, quantity::Quantity};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// The kinds of volumes in upstream's order: of several, the first is checked and the others are forbidden.
const KINDS: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Checks a pod's volumes and says which are there to be mounted. A template's pod has no name yet.
pub(crate) fn volumes<'a>(
    check: &mut Check<'_>,
    spec: &'a Value,
    pod_name: &str,
    path: &Path<'_>,
) -> BTreeMap<&'a str, &'a Value> {
    let path = path.field("volumes");
    let mut known = BTreeMap::new();
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        let path = path.index(index);
        let before = check.errors.len();
        source(check, volume, pod_name, &path);
        let name = volume.text("name");
        if name.is_empty() {
            check.required(&path.field("name"), "");
        } else {
            check.found(&path.field("name"), name, format::dns_label(name));
        }
        if known.contains_key(name) {
            check.duplicate(&path.field("name"), volume.part("name"));
        }
        if check.errors.len() == before {
            known.insert(name, volume);
        }
        not_of_this_pod(check, spec, volume, pod_name, &path);
    }
    known
}

/// A claim that is made for a volume of the pod is no other volume of it.
fn not_of_this_pod(check: &mut Check<'_>, spec: &Value, volume: &Value, pod_name: &str, path: &Path<'_>) {
    let claim = volume.part("persistentVolumeClaim").text("claimName");
    let Some(name) = claim.strip_prefix(pod_name).and_then(|rest| rest.strip_prefix('-')) else { return };
    let made = |one: &Value| one.has("ephemeral") && one.text("name") == name;
    if !pod_name.is_empty() && spec.list("volumes").iter().any(made) {
        let path = path.field("persistentVolumeClaim");
        let text = "must not reference a PVC that gets created for an ephemeral volume";
        check.invalid(&path.field("claimName"), &claim.into(), text);
    }
}

fn source(check: &mut Check<'_>, volume: &Value, pod_name: &str, path: &Path<'_>) {
    let whole = path;
    let mut sources = 0;
    for &kind in KINDS {
        let Some(source) = volume.at(kind) else { continue };
        sources += 1;
        if sources > 1 {
            // Two of these names are upstream's own spelling.
            let name = match kind {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                name => name,
            };
            check.forbidden(&path.field(name), "may not specify more than 1 volume type");
            continue;
        }
        let path = path.field(kind);
        match kind {
            "emptyDir" => {
                let limit = source.at("sizeLimit").map(Quantity::from_value);
                if limit.is_some_and(|limit| !limit.is_ok_and(|limit| !limit.is_negative())) {
                    check.forbidden(&path.field("sizeLimit"), "SizeLimit field must be a valid resource quantity");
                }
            }
            "hostPath" => host_path(check, source, &path),
            "secret" => {
                check.text(source, &path, "secretName");
                keys(check, source, &path);
            }
            "configMap" => {
                check.text(source, &path, "name");
                keys(check, source, &path);
            }
            "downwardAPI" => {
                mode(check, source, &path, "defaultMode");
                for file in source.list("items") {
                    downward::file(check, file, &path);
                }
            }
            "projected" => super::projected::projected(check, source, &path),
            "persistentVolumeClaim" => {
                check.text(source, &path, "claimName");
            }
            "nfs" => nfs(check, source, &path),
            "csi" => {
                super::storage::driver_name(check, source, &path, "driver");
                if let Some(reference) = source.at("nodePublishSecretRef") {
                    let here = path.field("nodePublishSecretRef");
                    if check.text(reference, &here, "name") {
                        let name = reference.text("name");
                        check.found(&path.field("name"), name, format::dns_subdomain(name));
                    }
                }
            }
            "image" => {
                check.text(source, &path, "reference");
                check.one_of(source, &path, "pullPolicy", &["Always", "IfNotPresent", "Never"]);
            }
            "ephemeral" => ephemeral(check, source, (pod_name, volume.text("name")), &path, whole),
            _ => volume_drivers::source(check, kind, source, Holder::Pod(volume.text("name")), whole),
        }
    }
    if sources == 0 {
        check.required(path, "must specify a volume type");
    }
}

/// A claim that is made for the pod, by the name of the pod and the volume.
fn ephemeral(
    check: &mut Check<'_>,
    source: &Value,
    (pod_name, name): (&str, &str),
    path: &Path<'_>,
    volume: &Path<'_>,
) {
    let path = path.field("volumeClaimTemplate");
    match source.at("volumeClaimTemplate") {
        None => check.required(&path, ""),
        Some(template) => {
            template_metadata(check, template.part("metadata"), &path.field("metadata"));
            super::storage::claim_spec(check, template.part("spec"), &path.field("spec"));
        }
    }
    if !pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{pod_name}-{name}");
        for finding in format::dns_subdomain(&claim) {
            check.invalid(&volume.field("name"), &name.into(), &format!("PVC name {claim:?}: {finding}"));
        }
    }
}

/// What is made of a template gets its labels and annotations, and nothing else.
fn template_metadata(check: &mut Check<'_>, metadata: &Value, path: &Path<'_>) {
    meta::annotations(metadata.map("annotations"), &path.field("annotations"), check.errors);
    meta::labels(metadata.map("labels"), &path.field("labels"), check.errors);
    for (name, value) in metadata.as_object().into_iter().flatten() {
        let none = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_i64() == Some(0),
            _ => false,
        };
        if !none && !matches!(name.as_str(), "labels" | "annotations") {
            // The field of the Go type, with its first letter made small.
            let name = if name == "uid" { "uID" } else { name };
            check.forbidden(&path.field(name), "cannot be set");
        }
    }
}

pub(crate) fn nfs(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    check.text(source, path, "server");
    check.text(source, path, "path");
    if !format::is_absolute(source.text("path")) {
        check.invalid(&path.field("path"), source.part("path"), "must be an absolute path");
    }
}

pub(crate) fn host_path(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    const TYPES: &[&str] =
        &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
    if check.text(source, path, "path") {
        no_backsteps(check, source.text("path"), &path.field("path"));
    }
    check.one_of(source, path, "type", TYPES);
}

pub(crate) fn no_backsteps(check: &mut Check<'_>, value: &str, path: &Path<'_>) {
    if value.split('/').any(|part| part == "..") {
        check.invalid(path, &value.into(), "must not contain '..'");
    }
}

/// A path within a volume.
pub(crate) fn descending(check: &mut Check<'_>, value: &str, path: &Path<'_>) {
    if format::is_absolute(value) {
        check.invalid(path, &value.into(), "must be a relative path");
    }
    no_backsteps(check, value, path);
}

/// A file of a volume that is written in turns: names that begin with two dots are for these.
pub(crate) fn not_reserved(check: &mut Check<'_>, value: &str, path: &Path<'_>) {
    descending(check, value, path);
    if value.starts_with("..") && !value.starts_with("../") {
        check.invalid(path, &value.into(), "must not start with '..'");
    }
}

pub(crate) fn mode(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, name: &str) {
    if let Some(mode) = holder.int(name).filter(|mode| !(0..=0o777).contains(mode)) {
        check.invalid(&path.field(name), &mode.into(), MODE);
    }
}

fn keys(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    mode(check, source, path, "defaultMode");
    items(check, source, path);
}

/// Which keys become which files.
pub(crate) fn items(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    let items = path.field("items");
    for (index, item) in source.list("items").iter().enumerate() {
        let path = items.index(index);
        check.text(item, &path, "key");
        check.text(item, &path, "path");
        not_reserved(check, item.text("path"), &path.field("path"));
        mode(check, item, &path, "mode");
    }
}

/// How long a token for an account may be good.
pub(crate) fn token_lifetime(check: &mut Check<'_>, seconds: i64, path: &Path<'_>) {
    if seconds < TOKEN_SECONDS_MIN {
        check.invalid(path, &seconds.into(), "may not specify a duration less than 10 minutes");
    } else if seconds > TOKEN_SECONDS_MAX {
        check.invalid(path, &seconds.into(), "may not specify a duration larger than 2^32 seconds");
    }
}
