//! Volumes of pods. Drivers that have left the tree are accepted as they are written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Check;
use crate::{fields::Fields, format, path::Path, quantity::Quantity};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Fields that the downward API gives to volumes, and to environment variables.
const VOLUME_FIELDS: &[&str] =
    &["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];

/// Checks a pod's volumes and says which are there to be mounted.
pub(crate) fn volumes<'a>(check: &mut Check<'_>, spec: &'a Value, path: &Path<'_>) -> BTreeMap<&'a str, &'a Value> {
    let path = path.field("volumes");
    let mut known = BTreeMap::new();
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        let path = path.index(index);
        let before = check.errors.len();
        source(check, volume, &path);
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
    }
    known
}

fn source(check: &mut Check<'_>, volume: &Value, path: &Path<'_>) {
    let mut sources = 0;
    for (kind, source) in volume.as_object().into_iter().flatten() {
        if kind == "name" || source.is_null() {
            continue;
        }
        sources += 1;
        let path = path.field(kind);
        if sources > 1 {
            check.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        match kind.as_str() {
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
                downward(check, source, &path);
            }
            "projected" => projected(check, source, &path),
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
            "ephemeral" => match source.at("volumeClaimTemplate") {
                None => check.required(&path.field("volumeClaimTemplate"), ""),
                Some(template) => {
                    let path = path.field("volumeClaimTemplate");
                    super::storage::claim_spec(check, template.part("spec"), &path.field("spec"));
                }
            },
            _ => {}
        }
    }
    if sources == 0 {
        check.required(path, "must specify a volume type");
    }
}

pub(crate) fn nfs(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    check.text(source, path, "server");
    if check.text(source, path, "path") && !format::is_absolute(source.text("path")) {
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

fn not_reserved(check: &mut Check<'_>, value: &str, path: &Path<'_>) {
    descending(check, value, path);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        check.invalid(path, &value.into(), "must not start with '..'");
    }
}

fn mode(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, name: &str) {
    if let Some(mode) = holder.int(name).filter(|mode| !(0..=0o777).contains(mode)) {
        check.invalid(&path.field(name), &mode.into(), MODE);
    }
}

fn keys(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    mode(check, source, path, "defaultMode");
    let items = path.field("items");
    for (index, item) in source.list("items").iter().enumerate() {
        let path = items.index(index);
        check.text(item, &path, "key");
        check.text(item, &path, "path");
        not_reserved(check, item.text("path"), &path.field("path"));
        mode(check, item, &path, "mode");
    }
}

fn downward(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    let items = path.field("items");
    for (index, file) in source.list("items").iter().enumerate() {
        let path = items.index(index);
        check.text(file, &path, "path");
        not_reserved(check, file.text("path"), &path.field("path"));
        match (file.at("fieldRef"), file.at("resourceFieldRef")) {
            (Some(field), None) => field_ref(check, field, VOLUME_FIELDS, &path.field("fieldRef")),
            (None, Some(field)) => resource_ref(check, field, true, &path.field("resourceFieldRef")),
            (Some(_), Some(_)) => {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                check.invalid(&path, &"resource".into(), text);
            }
            (None, None) => {
                check.required(&path.field("fieldRef"), "one of fieldRef and resourceFieldRef is required");
            }
        }
        mode(check, file, &path, "mode");
    }
}

fn projected(check: &mut Check<'_>, projected: &Value, path: &Path<'_>) {
    mode(check, projected, path, "defaultMode");
    let mut paths = BTreeSet::new();
    let sources = path.field("sources");
    for (index, source) in projected.list("sources").iter().enumerate() {
        let here = sources.index(index);
        let mut count = 0;
        for (kind, part) in source.as_object().into_iter().flatten().filter(|(_, part)| !part.is_null()) {
            count += 1;
            let here = here.field(kind);
            match kind.as_str() {
                "secret" | "configMap" => {
                    check.text(part, &here, "name");
                    keys(check, part, &here);
                }
                "downwardAPI" => downward(check, part, &here),
                "serviceAccountToken" => {
                    check.text(part, &here, "path");
                    not_reserved(check, part.text("path"), &here.field("path"));
                    let seconds = part.int("expirationSeconds").unwrap_or(TOKEN_SECONDS_MIN);
                    token_lifetime(check, seconds, &here.field("expirationSeconds"));
                }
                _ => {}
            }
            let own = part.at("items").is_none().then(|| part.text("path")).filter(|path| !path.is_empty());
            for item in part.list("items").iter().map(|item| item.text("path")).chain(own) {
                if !item.is_empty() && !paths.insert(item.to_owned()) {
                    check.invalid(path, part.at("name").unwrap_or(&item.into()), "conflicting duplicate paths");
                }
            }
        }
        if count > 1 {
            check.forbidden(&here, "may not specify more than 1 volume type");
        }
        if count == 0 {
            check.required(&here, "must specify a volume type");
        }
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

/// Also with a subscript: `metadata.labels['app']`.
fn field_ref(check: &mut Check<'_>, field: &Value, allowed: &[&str], path: &Path<'_>) {
    if !check.text(field, path, "apiVersion") || !check.text(field, path, "fieldPath") {
        return;
    }
    let whole = field.text("fieldPath");
    let subscript = whole.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            let key = key.to_ascii_lowercase();
            check.found(path, &key, format::label_key(&key));
        }
        Some(("metadata.labels", key)) => check.found(path, key, format::label_key(key)),
        Some((name, _)) => check.invalid(path, &name.into(), "does not support subscript"),
        None if allowed.contains(&whole) => {}
        None => {
            let known = ENV_FIELDS.contains(&whole) || VOLUME_FIELDS.contains(&whole);
            if known {
                check.not_supported(&path.field("fieldPath"), field.part("fieldPath"), allowed);
            } else {
                let text = format!("error converting fieldPath: field label not supported: {whole}");
                check.invalid(&path.field("fieldPath"), field.part("fieldPath"), &text);
            }
        }
    }
}

fn resource_ref(check: &mut Check<'_>, field: &Value, in_volume: bool, path: &Path<'_>) {
    if in_volume && field.text("containerName").is_empty() {
        check.required(&path.field("containerName"), "");
    } else if check.text(field, path, "resource") {
        let resource = field.text("resource");
        let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
        if !huge && !RESOURCES.contains(&resource) {
            check.not_supported(&path.field("resource"), field.part("resource"), RESOURCES);
        }
    }
}

pub(crate) fn env_field_ref(check: &mut Check<'_>, field: &Value, path: &Path<'_>) {
    field_ref(check, field, ENV_FIELDS, path);
}

pub(crate) fn env_resource_ref(check: &mut Check<'_>, field: &Value, path: &Path<'_>) {
    resource_ref(check, field, false, path);
}
