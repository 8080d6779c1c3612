//! `metadata`, which every object has: its identity, what an update may not change, and what is checked for
//! every kind (upstream's `rest.BeforeCreate`, `rest.BeforeUpdate` and `ValidateObjectMeta`).

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Map, Value};

use crate::{
    failure::FieldError,
    fields::Fields,
    format::{self, Findings},
    names,
    path::Path,
    strategy::kinds,
    table::Row,
    validation::same,
};

pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const MANAGER_BYTES_MAX: usize = 128;
const SUBRESOURCE_BYTES_MAX: usize = 256;
const IMMUTABLE: &str = "field is immutable";

/// What names of a kind look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS name.
    Subdomain,
    /// A DNS label.
    Label,
    /// A DNS label that begins with a letter.
    Label1035,
    /// A DNS label, as Services have had since labels that begin with a digit are allowed.
    ServiceLabel,
    /// Whatever can stand in a URL's path.
    PathSegment,
    /// A DNS name with room for the suffix of its Jobs.
    CronJob,
    /// An IP address in its canonical form.
    IpAddress,
}

impl NameRule {
    const CRON_JOB_BYTES_MAX: usize = 52;

    /// What is wrong with a name, or with the beginning of one that is to be generated.
    pub fn check(self, name: &str, prefix: bool) -> Findings {
        // What follows a prefix ends the name, so a prefix may end in a dash.
        let masked = if prefix && name.len() > 1 { name.strip_suffix('-').unwrap_or(name) } else { name };
        match self {
            NameRule::Subdomain | NameRule::CronJob => format::dns_subdomain(masked),
            NameRule::Label | NameRule::ServiceLabel => format::dns_label(masked),
            NameRule::Label1035 => format::dns_1035_label(masked),
            NameRule::PathSegment => format::path_segment(name, prefix),
            NameRule::IpAddress => match name.parse::<std::net::IpAddr>() {
                Ok(address) if address.to_string() == name => Findings::new(),
                Ok(address) => vec![format!("must be in canonical form (\"{address}\")")],
                Err(_) => format::ip(name),
            },
        }
    }

    /// What is wrong with the length of a whole name, told only when it is created.
    fn check_new(self, name: &str) -> Findings {
        if self == NameRule::CronJob && name.len() > NameRule::CRON_JOB_BYTES_MAX {
            vec![format!("must be no more than {} characters", NameRule::CRON_JOB_BYTES_MAX)]
        } else {
            Findings::new()
        }
    }
}

/// What moves `metadata.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind does not count.
    None,
    /// Every change of something that is neither metadata nor status.
    Spec,
    /// Also a change of annotations.
    SpecAndAnnotations,
    /// Also a change of labels.
    SpecAndLabels,
    /// Every change but of the metadata: also of the status, where that is not kept as it was.
    AllButMetadata,
}

/// Gives a new object its identity: uid, creation time and, from `generateName`, its name; and what follows from it
/// (a Job's selector, a namespace's label).
pub fn begin(object: &mut Value, uid: String, now: Timestamp, rng: &mut impl Rng) {
    let Some(metadata) = object.object("metadata") else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        metadata.unset(field);
    }
    if metadata.text("name").is_empty() && !metadata.text("generateName").is_empty() {
        let name = names::generate(metadata.text("generateName"), rng);
        metadata.set("name", name);
    }
    metadata.set("uid", uid);
    metadata.set("creationTimestamp", time(now));
    kinds::identified(object);
}

/// Drops from a new object what no author gives: times and grace of a deletion, creation time, uid.
pub fn wipe(object: &mut Value) {
    if let Some(metadata) = object.object("metadata") {
        for field in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.unset(field);
        }
    }
}

/// Drops references to owners that are there twice, and says so.
pub fn dedup_owners(object: &mut Value) -> Option<String> {
    let owners = object.part("metadata").list("ownerReferences");
    let twice = |at: usize| owners.iter().take(at).any(|before| same(before, &owners[at]));
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut uids = std::collections::HashSet::new();
    for (at, owner) in owners.iter().enumerate() {
        if uids.insert(owner.text("uid")) || !twice(at) {
            kept.push(owner.clone());
        } else {
            dropped.push(owner.text("uid"));
        }
    }
    if dropped.is_empty() {
        return None;
    }
    let warning = format!(
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
         reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        dropped.join(", ")
    );
    object.object("metadata")?.set("ownerReferences", kept);
    Some(warning)
}

/// What follows from the time of an update, after [`Row::prepare_update`].
pub fn updated(object: &mut Value, old: &Value, now: Timestamp) {
    kinds::updated(object, old, now);
}

/// `metav1.Time`: whole seconds, in UTC.
pub fn time(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// `metav1.MicroTime`: six digits of a second.
pub fn micro_time(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Marks an object as being deleted, if it is not marked already or may now go sooner.
pub fn begin_deletion(object: &mut Value, now: Timestamp, grace_seconds: i64) {
    let Some(metadata) = object.object("metadata") else { return };
    if metadata.int("deletionGracePeriodSeconds").is_some_and(|before| before <= grace_seconds) {
        return;
    }
    let due = now.checked_add(jiff::SignedDuration::from_secs(grace_seconds.max(0))).unwrap_or(now);
    metadata.set("deletionTimestamp", time(due));
    metadata.set("deletionGracePeriodSeconds", grace_seconds);
    if let Some(generation) = metadata.int("generation").filter(|&generation| generation > 0) {
        metadata.set("generation", generation + 1);
    }
}

/// Sets `kind` and `apiVersion`.
pub fn set_type(object: &mut Value, api_version: &str, kind: &str) {
    object.set("apiVersion", api_version);
    object.set("kind", kind);
}

pub(crate) fn prepare_create(object: &mut Value, generation: Generation) {
    if let Some(metadata) = object.object("metadata") {
        metadata.unset("deletionTimestamp");
        metadata.unset("deletionGracePeriodSeconds");
        if generation != Generation::None {
            metadata.set("generation", 1);
        }
    }
}

pub(crate) fn prepare_update(object: &mut Value, old: &Value, generation: Generation) {
    let other = |name: &str| {
        let (new, before) = (object.part("metadata").map(name), old.part("metadata").map(name));
        new.filter(|all| !all.is_empty()) != before.filter(|all| !all.is_empty())
    };
    let counts = match generation {
        Generation::None => false,
        Generation::Spec => differs(object, old),
        Generation::SpecAndAnnotations => differs(object, old) || other("annotations"),
        Generation::SpecAndLabels => differs(object, old) || other("labels"),
        Generation::AllButMetadata => differs(object, old) || !same(object.part("status"), old.part("status")),
    };
    let before = old.part("metadata");
    let Some(metadata) = object.object("metadata") else { return };
    if metadata.text("uid").is_empty() {
        copy(metadata, before, "uid");
    }
    copy(metadata, before, "generation");
    if counts {
        metadata.set("generation", before.int("generation").unwrap_or_default() + 1);
    }
    if before.has("creationTimestamp") {
        copy(metadata, before, "creationTimestamp");
    }
    // Who gives a time to an object that lives on is told that it does not change.
    if before.has("deletionTimestamp") {
        copy(metadata, before, "deletionTimestamp");
    }
    if !metadata.has("deletionGracePeriodSeconds") {
        copy(metadata, before, "deletionGracePeriodSeconds");
    }
}

fn copy(metadata: &mut Value, before: &Value, name: &str) {
    match before.at(name) {
        Some(value) => metadata.set(name, value.clone()),
        None => metadata.unset(name),
    }
}

/// Anything but type, metadata and status is another.
fn differs(object: &Value, old: &Value) -> bool {
    let outside = |name: &str| matches!(name, "kind" | "apiVersion" | "metadata" | "status");
    let (Some(new), Some(before)) = (object.as_object(), old.as_object()) else { return object != old };
    let mut names = new.keys().chain(before.keys().filter(|name| !new.contains_key(*name)));
    names.any(|name| !outside(name) && !same(object.part(name), old.part(name)))
}

pub(crate) fn validate_create(object: &Value, row: &Row, errors: &mut Vec<FieldError>) {
    let metadata = object.part("metadata");
    let path = Path::Root;
    let path = path.field("metadata");
    validate(metadata, row, errors);
    finalizer_names(metadata, row, &path, errors);
    for finding in row.name_rule.check_new(metadata.text("name")) {
        errors.push(FieldError::invalid(&path.field("name"), metadata.part("name"), &finding));
    }
}

pub(crate) fn validate_update(object: &Value, old: &Value, row: &Row, errors: &mut Vec<FieldError>) {
    let (metadata, before) = (object.part("metadata"), old.part("metadata"));
    let path = Path::Root;
    let path = path.field("metadata");
    validate(metadata, row, errors);
    finalizer_names(metadata, row, &path, errors);
    if before.has("deletionTimestamp") {
        let old_ones = before.list("finalizers");
        let mut extra: Vec<&str> = metadata
            .list("finalizers")
            .iter()
            .filter(|one| !old_ones.contains(one))
            .filter_map(Value::as_str)
            .collect();
        if !extra.is_empty() {
            extra.sort_unstable();
            let list = extra.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
            let text = "no new finalizers can be added if the object is being deleted, found new finalizers";
            errors.push(FieldError::forbidden(&path.field("finalizers"), &format!("{text} []string{{{list}}}")));
        }
    }
    if metadata.int("generation").unwrap_or_default() < before.int("generation").unwrap_or_default() {
        let generation = metadata.int("generation").unwrap_or_default().into();
        errors.push(FieldError::invalid(&path.field("generation"), &generation, "must not be decremented"));
    }
    let empty = Value::from("");
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if metadata.at(name) != before.at(name) && !(metadata.text(name).is_empty() && before.text(name).is_empty())
            || metadata.int(name) != before.int(name)
        {
            errors.push(FieldError::invalid(&path.field(name), metadata.at(name).unwrap_or(&empty), IMMUTABLE));
        }
    }
}

/// What holds for metadata of every kind, on create as on update.
fn validate(metadata: &Value, row: &Row, errors: &mut Vec<FieldError>) {
    let path = Path::Root;
    let path = path.field("metadata");
    let generate = metadata.text("generateName");
    if !generate.is_empty() {
        for finding in row.name_rule.check(generate, true) {
            errors.push(FieldError::invalid(&path.field("generateName"), metadata.part("generateName"), &finding));
        }
    }
    let name = metadata.text("name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.field("name"), "name or generateName is required"));
    } else {
        for finding in row.name_rule.check(name, false) {
            errors.push(FieldError::invalid(&path.field("name"), metadata.part("name"), &finding));
        }
    }
    let namespace = metadata.text("namespace");
    if row.namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required(&path.field("namespace"), ""));
        } else {
            for finding in format::dns_label(namespace) {
                errors.push(FieldError::invalid(&path.field("namespace"), metadata.part("namespace"), &finding));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden(&path.field("namespace"), "not allowed on this type"));
    }
    if let Some(generation) = metadata.int("generation").filter(|&generation| generation < 0) {
        let text = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&path.field("generation"), &generation.into(), text));
    }
    labels(metadata.map("labels"), &path.field("labels"), errors);
    annotations(metadata.map("annotations"), &path.field("annotations"), errors);
    owners(metadata, &path.field("ownerReferences"), errors);
    finalizers(metadata, &path.field("finalizers"), errors);
    managed_fields(metadata, &path.field("managedFields"), errors);
}

/// Upstream names the map, not the key.
pub fn labels(labels: Option<&Map<String, Value>>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.into_iter().flatten() {
        for finding in format::label_key(key) {
            errors.push(FieldError::invalid(path, &Value::from(key.as_str()), &finding));
        }
        for finding in format::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(path, value, &finding));
        }
    }
}

pub fn annotations(annotations: Option<&Map<String, Value>>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let findings = if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            format::label_key(&key.to_ascii_lowercase())
        } else {
            format::label_key(key)
        };
        for finding in findings {
            errors.push(FieldError::invalid(path, &Value::from(key.as_str()), &finding));
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

fn owners(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let owners = metadata.list("ownerReferences");
    let mut controller: Option<&Value> = None;
    for owner in owners {
        let version = owner.text("apiVersion");
        let bad = |name: &str, text: &str| FieldError::invalid(&path.field(name), &Value::from(owner.text(name)), text);
        if version.is_empty() || version.ends_with('/') {
            errors.push(bad("apiVersion", "version must not be empty"));
        }
        for name in ["kind", "name", "uid"] {
            if owner.text(name).is_empty() {
                errors.push(bad(name, "must not be empty"));
            }
        }
        if version == "v1" && owner.text("kind") == "Event" {
            errors.push(FieldError::invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.flag("controller") {
            match controller {
                None => controller = Some(owner),
                Some(first) => {
                    let whole = metadata.part("ownerReferences");
                    let text = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} \
                         and {}/{}",
                        first.text("kind"),
                        first.text("name"),
                        owner.text("kind"),
                        owner.text("name")
                    );
                    errors.push(FieldError::invalid(path, whole, &text));
                }
            }
        }
    }
}

fn finalizers(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let finalizers = metadata.list("finalizers");
    for finalizer in finalizers {
        for finding in format::label_key(finalizer.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(path, finalizer, &finding));
        }
    }
    let has = |name: &str| finalizers.iter().any(|one| one == name);
    if has("orphan") && has("foregroundDeletion") {
        let text = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, metadata.part("finalizers"), text));
    }
}

/// A finalizer has a domain, or is one of those of old. Kinds that came later ask for no domain.
fn finalizer_names(metadata: &Value, row: &Row, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let lenient = matches!(
        row.resource.group.as_ref(),
        "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "apiregistration.k8s.io"
            | "coordination.k8s.io"
            | "node.k8s.io"
            | "policy"
    );
    if lenient || row.custom.is_some() || (row.resource.group.is_empty() && row.kind == "Event") {
        return;
    }
    let path = path.field("finalizers");
    for (index, finalizer) in metadata.list("finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        if !name.contains('/') && !STANDARD.contains(&name) {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(index), finalizer, text));
        }
    }
}

fn managed_fields(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, entry) in metadata.list("managedFields").iter().enumerate() {
        let path = path.index(index);
        if !matches!(entry.text("operation"), "Apply" | "Update") {
            let operation = Value::from(entry.text("operation"));
            errors.push(FieldError::invalid(&path.field("operation"), &operation, "must be `Apply` or `Update`"));
        }
        if !matches!(entry.text("fieldsType"), "" | "FieldsV1") {
            let text = "must be `FieldsV1`";
            errors.push(FieldError::invalid(&path.field("fieldsType"), entry.part("fieldsType"), text));
        }
        if entry.text("manager").len() > MANAGER_BYTES_MAX {
            errors.push(FieldError::too_long(&path.field("manager"), MANAGER_BYTES_MAX));
        }
        if entry.text("subresource").len() > SUBRESOURCE_BYTES_MAX {
            errors.push(FieldError::too_long(&path.field("subresource"), SUBRESOURCE_BYTES_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};
    use serde_json::json;

    use super::*;

    fn texts(errors: Vec<FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_object_begins_with_an_identity() {
        let now: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let mut object = json!({"metadata": {"generateName": "web-", "resourceVersion": "7", "selfLink": "/x"}});
        begin(&mut object, "u-1".to_owned(), now, &mut SmallRng::seed_from_u64(3));
        let metadata = &object["metadata"];
        assert!(metadata.text("name").starts_with("web-"));
        assert_eq!(metadata["creationTimestamp"], "2026-01-02T03:04:05Z");
        assert!(!metadata.has("resourceVersion") && !metadata.has("selfLink"));
        assert_eq!(micro_time(now), "2026-01-02T03:04:05.678000Z");
    }

    #[test]
    fn metadata_is_checked_as_upstream_checks_it() {
        let row = Row::find("", "v1", "configmaps").unwrap();
        let errors = row.validate_create(&json!({"metadata": {
            "name": "A", "labels": {"a/b/c": "x"}, "annotations": {"UP": "fine"},
            "finalizers": ["orphan", "foregroundDeletion"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "1"}]
        }}));
        let texts = texts(errors);
        assert!(texts[0].starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain"));
        assert_eq!(texts[1], "metadata.namespace: Required value");
        assert!(texts[2].starts_with("metadata.labels: Invalid value: \"a/b/c\": a valid label key must consist"));
        assert_eq!(texts[3], "metadata.ownerReferences.name: Invalid value: \"\": must not be empty");
        assert!(texts[4].starts_with("metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: "));
        assert_eq!(texts.len(), 5, "{texts:#?}");
    }

    #[test]
    fn an_update_keeps_the_identity_and_counts() {
        let row = Row::find("apps", "v1", "replicasets").unwrap();
        let old = json!({"metadata": {"name": "a", "namespace": "d", "uid": "u", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"replicas": 1}});
        let mut new = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"replicas": 2}});
        row.prepare_update(&mut new, &old, None);
        assert_eq!(new["metadata"]["generation"], 4);
        assert_eq!(new["metadata"]["uid"], "u");
        let mut same = json!({"metadata": {"name": "a", "namespace": "d", "generation": 9}, "spec": {"replicas": 1}});
        row.prepare_update(&mut same, &old, None);
        assert_eq!(same["metadata"]["generation"], 3);
        let mut other = json!({"metadata": {"name": "b", "namespace": "d", "uid": "x"}});
        row.prepare_update(&mut other, &old, None);
        let texts = texts(row.validate_update(&other, &old, None));
        assert!(texts.contains(&"metadata.name: Invalid value: \"b\": field is immutable".to_owned()), "{texts:#?}");
        assert!(texts.contains(&"metadata.uid: Invalid value: \"x\": field is immutable".to_owned()), "{texts:#?}");
    }

    #[test]
    fn deletion_is_marked_once() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut object = json!({"metadata": {"generation": 1}});
        begin_deletion(&mut object, now, 30);
        assert_eq!(object["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
        assert_eq!(object["metadata"]["generation"], 2);
        let before = object.clone();
        begin_deletion(&mut object, now, 60);
        assert_eq!(object, before);
        begin_deletion(&mut object, now, 0);
        assert_eq!(object["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    }
}
