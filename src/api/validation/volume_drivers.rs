//! Volumes that lie outside of the node: network disks and network file systems, of pods and as persistent volumes.
//! Most of their drivers have left upstream's tree; what a volume must say has stayed.

use serde_json::Value;

use super::{Check, volumes};
use crate::{fields::Fields, format, path::Path};

/// What a volume of a kind must say.
const REQUIRED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("quobyte", &["volume"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];
const NUMBER_MAX: i64 = 255;
const PARTITION: &str = "must be an integer between 0 and 255, inclusive";
const QUOBYTE_REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
const QUOBYTE_TENANT_BYTES_MAX: usize = 64;
/// Of `<volume name>:<target portal>`, which becomes the name of a network interface's record.
const ISCSI_NAME_BYTES_MAX: usize = 64;
const ISCSI_NAME: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                          iscsi.initiatorName is specified.";

/// Where a volume is described.
#[derive(Clone, Copy)]
pub(crate) enum Holder<'a> {
    /// In a pod, under this name.
    Pod(&'a str),
    /// As a persistent volume of this name.
    Persistent(&'a str),
}

impl Holder<'_> {
    fn is_persistent(self) -> bool {
        matches!(self, Holder::Persistent(_))
    }
}

/// Checks a source of the kind `kind`; one that is not a driver's is none of this file's business. `path` is the
/// volume's, not the source's.
pub(crate) fn source(check: &mut Check<'_>, kind: &str, source: &Value, holder: Holder<'_>, path: &Path<'_>) {
    let volume = path;
    // Upstream's checks call this one by another name.
    let path = path.field(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind });
    if let Some((_, names)) = REQUIRED.iter().find(|(known, _)| *known == kind) {
        for name in names.iter().filter(|name| source.text(name).is_empty() && source.list(name).is_empty()) {
            check.required(&path.field(name), "");
        }
    }
    match kind {
        "awsElasticBlockStore" | "gcePersistentDisk" => {
            if let Some(number) = source.int("partition").filter(|number| !(0..=NUMBER_MAX).contains(number)) {
                check.invalid(&path.field("partition"), &number.into(), PARTITION);
            }
        }
        "azureDisk" => azure_disk(check, source, &path),
        "azureFile" if source.has("secretNamespace") && source.text("secretNamespace").is_empty() => {
            check.required(&path.field("secretNamespace"), "");
        }
        "cinder" => secret(check, source, holder.is_persistent(), &path),
        "fc" => fibre_channel(check, source, &path),
        "flexVolume" => flex(check, source, &path),
        "flocker" => flocker(check, source, &path),
        "gitRepo" => volumes::descending(check, source.text("directory"), &path.field("directory")),
        "glusterfs" if holder.is_persistent() && source.has("endpointsNamespace") => {
            let (path, namespace) = (path.field("endpointsNamespace"), source.text("endpointsNamespace"));
            if namespace.is_empty() {
                let text = "if the endpointnamespace is set, it must be a valid namespace name";
                check.invalid(&path, &namespace.into(), text);
            } else {
                check.found(&path, namespace, format::dns_label(namespace));
            }
        }
        "iscsi" => iscsi(check, source, holder, volume, &path),
        "quobyte" => quobyte(check, source, &path),
        "storageos" => {
            for name in ["volumeName", "volumeNamespace"] {
                let value = source.text(name);
                if !value.is_empty() {
                    check.found(&path.field(name), value, format::dns_label(value));
                }
            }
            secret(check, source, holder.is_persistent(), &path);
        }
        _ => {}
    }
}

/// A secret that is named if it is there, with its namespace where the volume has none of its own.
fn secret(check: &mut Check<'_>, source: &Value, with_namespace: bool, path: &Path<'_>) {
    let Some(reference) = source.at("secretRef") else { return };
    let path = path.field("secretRef");
    check.text(reference, &path, "name");
    if with_namespace {
        check.text(reference, &path, "namespace");
    }
}

fn azure_disk(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    check.one_of(source, path, "cachingMode", &["None", "ReadOnly", "ReadWrite"]);
    check.one_of(source, path, "kind", &["Dedicated", "Managed", "Shared"]);
    let place = source.text("diskURI");
    let (begins, supported) = match source.at("kind").and_then(Value::as_str) {
        None => return,
        Some("Managed") => ("/subscriptions/", MANAGED),
        Some(_) => ("https://", BLOB),
    };
    if !place.starts_with(begins) {
        check.not_supported(&path.field("diskURI"), &place.into(), &[supported]);
    }
}

fn fibre_channel(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    let (names, ids) = (source.list("targetWWNs"), source.list("wwids"));
    if names.is_empty() && ids.is_empty() {
        check.required(&path.field("targetWWNs"), "must specify either targetWWNs or wwids, but not both");
    }
    if names.is_empty() {
        return;
    }
    if !ids.is_empty() {
        let text = "targetWWNs and wwids can not be specified simultaneously";
        check.invalid(&path.field("targetWWNs"), source.part("targetWWNs"), text);
    }
    match source.int("lun") {
        None => check.required(&path.field("lun"), "lun is required if targetWWNs is specified"),
        Some(_) => check.in_range(source, path, "lun", 0, NUMBER_MAX),
    }
}

fn flex(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    let options = path.field("options");
    for (key, _) in source.map("options").into_iter().flatten() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let text = "kubernetes.io and k8s.io namespaces are reserved";
            check.invalid(&options.key(key), &key.as_str().into(), text);
        }
    }
}

fn flocker(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    let (name, id) = (source.text("datasetName"), source.text("datasetUUID"));
    match (name.is_empty(), id.is_empty()) {
        (true, true) => check.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let text = "datasetName and datasetUUID can not be specified simultaneously";
            check.invalid(path, &"resource".into(), text);
        }
        _ => {}
    }
    if name.contains('/') {
        check.invalid(&path.field("datasetName"), &name.into(), "must not contain '/'");
    }
}

fn quobyte(check: &mut Check<'_>, source: &Value, path: &Path<'_>) {
    let registry = source.text("registry");
    if registry.is_empty() {
        check.required(&path.field("registry"), QUOBYTE_REGISTRY);
    } else if source.text("tenant").len() > QUOBYTE_TENANT_BYTES_MAX {
        let text = "must be a UUID and may not exceed a length of 64 characters";
        check.required(&path.field("tenant"), text);
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            check.invalid(&path.field("registry"), &registry.into(), QUOBYTE_REGISTRY);
        }
    }
}

/// As Go's `net.SplitHostPort` takes it: one colon, or brackets around the host.
fn is_host_and_port(pair: &str) -> bool {
    match pair.strip_prefix('[') {
        Some(rest) => {
            rest.split_once("]:").is_some_and(|(host, port)| !host.contains('[') && !port.contains([':', '[', ']']))
        }
        None => pair.matches(':').count() == 1 && !pair.contains(['[', ']']),
    }
}

fn iscsi(check: &mut Check<'_>, source: &Value, holder: Holder<'_>, volume: &Path<'_>, path: &Path<'_>) {
    let portal = source.text("targetPortal");
    let name = source.text("iqn");
    if !name.is_empty() {
        qualified_name(check, name, holder, &path.field("iqn"));
    }
    check.in_range(source, path, "lun", 0, NUMBER_MAX);
    if (source.flag("chapAuthDiscovery") || source.flag("chapAuthSession")) && !source.has("secretRef") {
        check.required(&path.field("secretRef"), "");
    }
    if let (Holder::Persistent(_), Some(reference)) = (holder, source.at("secretRef")) {
        check.text(reference, &path.field("secretRef"), "name");
    }
    let Some(initiator) = source.at("initiatorName").and_then(Value::as_str) else { return };
    qualified_name(check, initiator, holder, &path.field("initiatorname"));
    let (Holder::Pod(name) | Holder::Persistent(name)) = holder;
    if name.len() + 1 + portal.len() > ISCSI_NAME_BYTES_MAX {
        match holder {
            Holder::Pod(name) => check.invalid(&volume.field("name"), &name.into(), ISCSI_NAME),
            Holder::Persistent(_) => check.invalid(&path.field("targetportal"), &portal.into(), ISCSI_NAME),
        }
    }
}

/// The name of a target or an initiator (RFC 3720, 3.2.6.3).
fn qualified_name(check: &mut Check<'_>, name: &str, holder: Holder<'_>, path: &Path<'_>) {
    let numbered = |rest: &str, digits: usize| {
        let mut chars = rest.chars();
        chars.next().is_some_and(|any| any != '\n')
            && chars.clone().count() == digits
            && chars.all(|char| char.is_ascii_alphanumeric())
    };
    let fits = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => numbered(&name[3..], 16),
        Some("naa") => numbered(&name[3..], 32),
        _ => {
            let text = match holder {
                Holder::Pod(_) => "must be valid format starting with iqn, eui, or naa",
                Holder::Persistent(_) => "must be valid format",
            };
            return check.invalid(path, &name.into(), text);
        }
    };
    if !fits {
        check.invalid(path, &name.into(), "must be valid format");
    }
}

/// `iqn.2024-01.com.example:anything`, anywhere in the name but to its end, as upstream looks for it.
fn is_iqn(name: &str) -> bool {
    let from = |rest: &str| {
        let bytes = rest.as_bytes();
        let digits =
            |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|bytes| bytes.iter().all(u8::is_ascii_digit));
        let dated = digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'.');
        let Some((authority, rest)) = bytes.get(8..).filter(|_| dated).and_then(|_| rest.get(8..)?.split_once(':'))
        else {
            return false;
        };
        !authority.is_empty()
            && authority.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.'))
            && !rest.is_empty()
            && !rest
                .contains(|char: char| matches!(char, ',' | ';' | '*' | '&' | '$' | '|') || char.is_ascii_whitespace())
    };
    name.match_indices("iqn.").any(|(index, found)| name.get(index + found.len()..).is_some_and(from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(kind: &str, value: Value, holder: Holder<'_>) -> Vec<String> {
        let mut errors = Vec::new();
        source(&mut Check { errors: &mut errors }, kind, &value, holder, &Path::Root.field("v"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn network_volumes_say_where_they_are() {
        let pod = Holder::Pod("data");
        assert_eq!(found("iscsi", json!({"targetPortal": "a", "iqn": "iqn.2024-01.com.example:disk"}), pod), [""; 0]);
        let cases: &[(&str, Value, &[&str])] = &[
            (
                "iscsi",
                json!({"iqn": "iqn.24-01.com:a", "lun": 256, "chapAuthSession": true, "initiatorName": "x"}),
                &[
                    "v.iscsi.targetPortal: Required value",
                    "v.iscsi.iqn: Invalid value: \"iqn.24-01.com:a\": must be valid format",
                    "v.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                    "v.iscsi.secretRef: Required value",
                    "v.iscsi.initiatorname: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
                ],
            ),
            (
                "fc",
                json!({}),
                &["v.fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"],
            ),
            (
                "fc",
                json!({"targetWWNs": ["a"], "wwids": ["b"]}),
                &[
                    "v.fc.targetWWNs: Invalid value: [\"a\"]: targetWWNs and wwids can not be specified simultaneously",
                    "v.fc.lun: Required value: lun is required if targetWWNs is specified",
                ],
            ),
            (
                "gcePersistentDisk",
                json!({"partition": -1}),
                &[
                    "v.persistentDisk.pdName: Required value",
                    "v.persistentDisk.partition: Invalid value: -1: must be an integer between 0 and 255, inclusive",
                ],
            ),
            (
                "quobyte",
                json!({"registry": "a:1,b", "volume": "v"}),
                &[
                    "v.quobyte.registry: Invalid value: \"a:1,b\": must be a host:port pair or multiple pairs separated by commas",
                ],
            ),
            (
                "flocker",
                json!({"datasetName": "a/b"}),
                &["v.flocker.datasetName: Invalid value: \"a/b\": must not contain '/'"],
            ),
            ("cinder", json!({"volumeID": "a", "secretRef": {}}), &["v.cinder.secretRef.name: Required value"]),
            (
                "flexVolume",
                json!({"driver": "a", "options": {"x.k8s.io/a": "b"}}),
                &[
                    "v.flexVolume.options[x.k8s.io/a]: Invalid value: \"x.k8s.io/a\": kubernetes.io and k8s.io namespaces are reserved",
                ],
            ),
            (
                "azureDisk",
                json!({"diskName": "a", "diskURI": "x", "kind": "Shared", "cachingMode": "All"}),
                &[
                    "v.azureDisk.cachingMode: Unsupported value: \"All\": supported values: \"None\", \"ReadOnly\", \"ReadWrite\"",
                    "v.azureDisk.diskURI: Unsupported value: \"x\": supported values: \
                     \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
                ],
            ),
        ];
        for (kind, value, expected) in cases {
            assert_eq!(found(kind, value.clone(), pod), *expected, "{kind}");
        }
    }

    #[test]
    fn a_persistent_volume_names_its_secret_with_a_namespace() {
        let holder = Holder::Persistent("pv");
        assert_eq!(
            found("storageos", json!({"volumeName": "A", "secretRef": {"name": "s"}}), holder)[1..],
            ["v.storageos.secretRef.namespace: Required value"]
        );
        let long = "a".repeat(70);
        assert_eq!(
            found(
                "iscsi",
                json!({"targetPortal": long, "iqn": "eui.0123456789abcdef", "initiatorName": "naa.1"}),
                holder
            ),
            [
                "v.iscsi.initiatorname: Invalid value: \"naa.1\": must be valid format".to_owned(),
                format!("v.iscsi.targetportal: Invalid value: {long:?}: {ISCSI_NAME}"),
            ]
        );
    }

    #[test]
    fn names_of_targets_follow_their_forms() {
        for good in ["iqn.2024-01.com.example:a", "iqnx iqn.2024-01.c:d:e"] {
            assert!(is_iqn(good), "{good}");
        }
        for bad in
            ["iqn.2024-01.com.example", "iqn.2024-1.com:a", "iqn.2024-01.:a", "iqn.2024-01.c:a b", "iqn", "iqn.é"]
        {
            assert!(!is_iqn(bad), "{bad}");
        }
        assert!(is_host_and_port("[::1]:2") && is_host_and_port("a:") && !is_host_and_port("::1"));
    }
}
