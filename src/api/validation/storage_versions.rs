//! What servers say of the versions that they store (`internal.apiserver.k8s.io`), and the migration from one to
//! another (`storagemigration.k8s.io`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::conditions::conditions;
use super::{Check, IMMUTABLE};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

/// The name of a StorageVersion is that of a group and of a resource.
pub fn storage_version(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let name = object.part("metadata").text("name");
    if !name.is_empty() {
        let root = Path::Root;
        let path = root.field("metadata");
        check.found(&path.field("name"), name, name_findings(name));
    }
    reported(check, object);
}

/// Nothing but the status can be changed.
pub fn storage_version_update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource == Some("status") {
        reported(&mut Check { errors }, object);
    }
}

fn name_findings(name: &str) -> Vec<String> {
    let Some((group, resource)) = name.rsplit_once('.') else {
        return vec!["name must be in the form of <group>.<resource>".to_owned()];
    };
    let group = format::dns_subdomain(group).into_iter().map(|finding| format!("the group segment {finding}"));
    let resource = format::dns_1035_label(resource).into_iter();
    group.chain(resource.map(|finding| format!("the resource segment {finding}"))).collect()
}

fn reported(check: &mut Check<'_>, object: &Value) {
    let root = Path::Root;
    let path = root.field("status");
    let status = object.part("status");
    let servers = status.list("storageVersions");
    let list = path.field("storageVersions");
    let mut ids = BTreeSet::new();
    for (index, server) in servers.iter().enumerate() {
        let path = list.index(index);
        if !ids.insert(server.text("apiServerID")) {
            check.duplicate(&path.field("apiServerID"), server.part("apiServerID"));
        }
        of_server(check, server, &path);
    }
    common_version(check, status, &path);
    conditions_of_servers(check, status.list("conditions"), &path);
}

fn of_server(check: &mut Check<'_>, server: &Value, path: &Path<'_>) {
    let id = server.text("apiServerID");
    check.found(&path.field("apiServerID"), id, format::dns_subdomain(id));
    let encoding = server.text("encodingVersion");
    version(check, encoding, &path.field("encodingVersion"));
    let decodable = server.list("decodableVersions");
    let list = path.field("decodableVersions");
    for (index, one) in decodable.iter().enumerate() {
        version(check, one.as_str().unwrap_or_default(), &list.index(index));
    }
    if !decodable.iter().any(|one| one == encoding) {
        let text = format!("decodableVersions must include encodingVersion {encoding}");
        check.invalid(&list, server.part("decodableVersions"), &text);
    }
    let list = path.field("servedVersions");
    for (index, one) in server.list("servedVersions").iter().enumerate() {
        let (path, served) = (list.index(index), one.as_str().unwrap_or_default());
        version(check, served, &path);
        if !decodable.contains(one) {
            let all: Vec<&str> = decodable.iter().filter_map(Value::as_str).collect();
            let text = format!(
                "individual served version : {served} must be included in decodableVersions : [{}]",
                all.join(" ")
            );
            check.invalid(&path, one, &text);
        }
    }
}

/// A version, or a group and a version.
fn version(check: &mut Check<'_>, text: &str, path: &Path<'_>) {
    const LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
    const EMPTY: &str = "must be non-empty";
    let mut findings = Vec::new();
    let mut part = |name: &str, found: Vec<String>| {
        findings.extend(found.into_iter().map(|finding| format!("{name} part: {finding}")));
    };
    let version = match text.split('/').collect::<Vec<_>>().as_slice() {
        [version] => *version,
        [group, version] => {
            part("group", if group.is_empty() { vec![EMPTY.to_owned()] } else { format::dns_subdomain(group) });
            *version
        }
        _ => {
            let what = "an apiVersion is a DNS-1035 label, which must consist of lower case alphanumeric characters \
                        or '-', start with an alphabetic character, and end with an alphanumeric character";
            let text = format::pattern_text(what, LABEL, &["my-name", "abc-123"]);
            let more = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')";
            return check.invalid(path, &Value::from(text.clone()), &format!("{text} {more}"));
        }
    };
    part("version", if version.is_empty() { vec![EMPTY.to_owned()] } else { format::dns_1035_label(version) });
    if !findings.is_empty() {
        check.invalid(path, &text.into(), &findings.join(","));
    }
}

/// What all servers encode in, if they agree.
fn common_version(check: &mut Check<'_>, status: &Value, path: &Path<'_>) {
    let path = path.field("commonEncodingVersion");
    let mut versions = status.list("storageVersions").iter().map(|server| server.text("encodingVersion"));
    let actual = versions.next().filter(|first| versions.all(|other| other == *first));
    match (actual, status.at("commonEncodingVersion")) {
        (None, Some(said)) => {
            let text = "should be nil if servers do not agree on the same encoding version, or if there is no server \
                        reporting the supported versions yet";
            check.invalid(&path, said, text);
        }
        (Some(actual), None) => {
            check.invalid(&path, &Value::Null, &format!("the common encoding version is {actual}"));
        }
        (Some(actual), Some(said)) if said != actual => {
            check.invalid(&path, said, &format!("the actual common encoding version is {actual}"));
        }
        _ => {}
    }
}

/// These are older than `metav1.Condition`, and their paths lack the list's name.
fn conditions_of_servers(check: &mut Check<'_>, conditions: &[Value], path: &Path<'_>) {
    let mut types = BTreeMap::new();
    for (index, one) in conditions.iter().enumerate() {
        let path = path.index(index);
        let kind = one.text("type");
        if let Some(first) = types.insert(kind, index) {
            let text = format!("the type of the condition is not unique, it also appears in conditions[{first}]");
            check.invalid(&path.field("type"), &kind.into(), &text);
        }
        check.found(&path.field("type"), kind, format::label_key(kind));
        check.found(&path.field("status"), one.text("status"), format::label_key(one.text("status")));
        check.text(one, &path, "reason");
        check.text(one, &path, "message");
    }
}

pub fn migration(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let spec = root.field("spec");
    let path = spec.field("resource");
    let wanted = object.part("spec").part("resource");
    let mut name = |field: &str, findings: Vec<String>| {
        if !findings.is_empty() {
            check.invalid(&path.field(field), wanted.part(field), &findings.join(","));
        }
    };
    if !wanted.text("resource").is_empty() {
        name("resource", format::dns_1035_label(wanted.text("resource")));
    }
    if !wanted.text("group").is_empty() {
        name("group", format::dns_subdomain(wanted.text("group")));
    }
    if wanted.text("resource").is_empty() {
        check.required(&path.field("resource"), "resource is required to be set");
    }
}

pub fn migration_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource == Some("status") {
        return migrated(&mut Check { errors }, object.part("status"), old.part("status"));
    }
    migration(object, errors);
    Check { errors }.unchanged(object, old, &Path::Root, "spec");
}

fn migrated(check: &mut Check<'_>, status: &Value, old: &Value) {
    let root = Path::Root;
    let path = root.field("status");
    let version = status.text("resourceVersion");
    let well_formed = !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
    if !version.is_empty() && !well_formed {
        let text = format!("resource version is not well formed: {version}");
        check.invalid(&path.field("resourceVersion"), &version.into(), &text);
    }
    conditions(check, status, &path);
    let before = old.text("resourceVersion");
    if !before.is_empty() && before != version {
        check.invalid(&path.field("resourceVersion"), &version.into(), IMMUTABLE);
    }
    let holds = |status: &Value, kind: &str| {
        status.list("conditions").iter().any(|one| one.text("type") == kind && one.text("status") == "True")
    };
    let (succeeded, failed) = (holds(status, "Succeeded"), holds(status, "Failed"));
    let list = path.field("conditions");
    let mut wrong = |text: &str| check.invalid(&list, status.part("conditions"), text);
    if succeeded && failed {
        wrong("Both success and failed conditions cannot be true at the same time");
    }
    if holds(old, "Succeeded") && !succeeded {
        wrong("Success condition cannot be set to false once it is true");
    }
    if holds(old, "Failed") && !failed {
        wrong("Failed condition cannot be set to false once it is true");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.field.as_str()).collect()
    }

    #[test]
    fn servers_agree_on_what_they_say_they_agree_on() {
        let server = |id: &str, version: &str| json!({"apiServerID": id, "encodingVersion": version, "decodableVersions": [version]});
        let found = |status: Value| {
            let mut errors = Vec::new();
            storage_version(&json!({"metadata": {"name": "apps.deployments"}, "status": status}), &mut errors);
            errors
        };
        assert!(found(json!({})).is_empty());
        let agreed = json!({"storageVersions": [server("a", "apps/v1")], "commonEncodingVersion": "apps/v1"});
        assert!(found(agreed.clone()).is_empty());
        let mut other = agreed.clone();
        other["storageVersions"][0]["servedVersions"] = json!(["apps/v1", "apps/v2"]);
        assert_eq!(fields(&found(other)), ["status.storageVersions[0].servedVersions[1]"]);
        let mut split = agreed;
        split["storageVersions"] = json!([server("a", "apps/v1"), server("a", "apps//v2")]);
        let at = |name: &str| format!("status.storageVersions[1].{name}");
        let [id, encoding, decodable] = ["apiServerID", "encodingVersion", "decodableVersions[0]"].map(at);
        assert_eq!(fields(&found(split)), [&id, &encoding, &decodable, "status.commonEncodingVersion"]);
    }

    #[test]
    fn a_storage_version_is_named_after_what_it_is_of() {
        let mut errors = Vec::new();
        storage_version(&json!({"metadata": {"name": "deployments"}}), &mut errors);
        assert_eq!(fields(&errors), ["metadata.name"]);
    }

    #[test]
    fn a_migration_ends_once() {
        let mut errors = Vec::new();
        migration(&json!({"spec": {"resource": {"group": "-", "resource": "Pods"}}}), &mut errors);
        assert_eq!(fields(&errors), ["spec.resource.resource", "spec.resource.group"]);
        let ended = |kind: &str| {
            json!({"status": {"resourceVersion": "7", "conditions": [{"type": kind, "status": "True", "reason": "R",
                "lastTransitionTime": "2026-01-02T03:04:05Z"}]}})
        };
        let mut errors = Vec::new();
        migration_update(&ended("Failed"), &ended("Succeeded"), Some("status"), &mut errors);
        assert_eq!(fields(&errors), ["status.conditions"]);
        let mut errors = Vec::new();
        let status = json!({"status": {"resourceVersion": "08"}});
        migration_update(&status, &ended("Running"), Some("status"), &mut errors);
        assert_eq!(fields(&errors), ["status.resourceVersion", "status.resourceVersion"]);
    }
}
