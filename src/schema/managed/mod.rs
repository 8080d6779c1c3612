//! Who owns which field: server-side apply and `metadata.managedFields`.
//!
//! [`update`] notes on every other write which fields it changed; [`apply`] merges a configuration into an
//! object and refuses to change what others own. Semantics are those of structured-merge-diff v6 and of
//! apimachinery's field managers.
//!
//! Limitations: fields that a manager owns in another version of the API are taken as if they had the same
//! names and types in this one; sets are not migrated when a list or map turns atomic.

mod compare;
mod element;
mod entries;
mod set;
mod typed;
mod walkers;

use std::sync::LazyLock;

use serde_json::{Map, Value};

pub use compare::{Comparison, compare};
pub use element::PathElement;
pub use entries::{Operation, UPDATE_MANAGERS_MAX};
pub use set::{Path, Set};
pub use walkers::{field_set, merge, remove, validate};

use entries::Entry;

use crate::types::TypeRef;

/// The annotation in which `kubectl apply` without `--server-side` keeps what it applied.
pub const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager that owns what an object had before somebody applied it for the first time.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Who does not say a name.
const UNKNOWN_MANAGER: &str = "unknown";
/// The manager for which the client-side annotation is taken over and kept up.
const KUBECTL: &str = "kubectl";

/// What nobody owns.
static STRIPPED: LazyLock<Set<'static>> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// One write, as field ownership sees it.
#[derive(Clone, Copy)]
pub struct Write<'w> {
    pub ty: TypeRef<'w>,
    /// `fieldManager`, or what stands for it; empty is `unknown`.
    pub manager: &'w str,
    /// `apps/v1`, the version of the request.
    pub api_version: &'w str,
    /// Empty for the object itself.
    pub subresource: &'w str,
    /// Fields that this endpoint resets to what they were (`status` for the object itself, everything else
    /// for its status), which it therefore gives nobody.
    pub reset_fields: Option<&'w Set<'static>>,
    /// RFC 3339 in UTC with whole seconds.
    pub now: &'w str,
}

/// A field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    pub path: Path,
    /// `"kubectl" with subresource "status" using apps/v1`
    described: String,
}

impl Conflict {
    /// The message of the cause in the answer, of type `FieldManagerConflict`, whose field is the path.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.described)
    }
}

/// Why a configuration cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 409, reason `Conflict`, one cause per conflict.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 400
    #[error("Incorrect version specified in apply patch. Specified patch version: {found}, expected: {expected}")]
    Version { found: String, expected: String },
    /// 400
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsGiven,
    /// The configuration does not fit its type. 500 upstream.
    #[error("failed to create typed patch object ({object}): {problem}")]
    Invalid { object: String, problem: String },
    /// What is stored cannot be read. 500
    #[error("failed to decode managed fields: {0}")]
    ManagedFields(String),
}

/// Notes in `new` who changed what. `live` is the object as it was, None when it is being created. What the
/// client sent as `managedFields` is taken as what they are to be, except on subresources.
///
/// Objects that have no managed fields are not tracked, unless they are being created.
pub fn update(live: Option<&Value>, new: &mut Value, write: &Write<'_>) {
    let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let given = metadata.remove("managedFields").unwrap_or_default();
    let stored = entries::of(live);
    let reset = write.subresource.is_empty() && entries::is_reset(&given);
    let given_list = if write.subresource.is_empty() { given.as_array().map(Vec::as_slice) } else { None };
    let mut source: &[Value] = given_list.unwrap_or_default();
    let mut managers = if reset { Vec::new() } else { entries::decode_heads(source).unwrap_or_default() };
    let mut is_given = true;
    if managers.is_empty() && !reset {
        source = stored;
        managers = entries::decode_heads(source).unwrap_or_default();
        is_given = false;
    }
    let exists = live.is_some_and(|l| l.pointer("/metadata/uid").is_some_and(|uid| uid != ""));
    if managers.is_empty() && exists {
        return;
    }
    let empty = Value::Object(Map::new());
    let mut changes = compare(live.unwrap_or(&empty), new, write.ty);
    if let Some(reset_fields) = write.reset_fields {
        changes.exclude(reset_fields);
    }
    if !changes.is_empty() || entries::are_too_many(&managers) {
        entries::load_fields(&mut managers, source);
        note_changes(&mut managers, changes, write, None);
        entries::cap(&mut managers);
    }
    let written = encode(managers);
    let mut given = if let Value::Array(items) = given { items } else { Vec::new() };
    let written = written.into_iter().filter_map(|entry| match entry {
        Written::New(entry) => Some(entry),
        Written::Same(at) if is_given => given.get_mut(at).map(Value::take),
        Written::Same(at) => stored.get(at).cloned(),
    });
    let written = written.collect();
    put(new, written);
}

/// Takes what changed from whom it belonged to and gives it to the writer.
fn note_changes<'a>(
    managers: &mut Vec<Entry<'a>>,
    changes: Comparison<'a>,
    write: &Write<'a>,
    as_manager: Option<&'static str>,
) {
    let Comparison { removed, modified, added } = changes;
    let mut changed = modified;
    changed.union(&added);
    managers.retain_mut(|entry| {
        let lost = entry.fields.subtract(&changed);
        if entry.fields.subtract(&removed) || lost {
            entry.unchanged = None;
        }
        !entry.fields.is_empty()
    });
    changed.subtract(&STRIPPED);
    if changed.is_empty() {
        return;
    }
    let entry = Entry {
        manager: as_manager.unwrap_or_else(|| name_of(write)).into(),
        operation: Operation::Update,
        api_version: write.api_version.into(),
        subresource: write.subresource.into(),
        time: write.now.into(),
        fields: changed,
        unchanged: None,
    };
    match managers.iter_mut().find(|known| known.is_same_manager(&entry)) {
        Some(known) => {
            known.fields.union(&entry.fields);
            known.time = entry.time;
            known.unchanged = None;
        }
        None => managers.push(entry),
    }
}

/// Applies a configuration: merges it into `live` (None creates), takes out what the manager applied before
/// and does not any more, and writes down the owners. The result is to be defaulted by the caller.
///
/// With `force`, what others own and the configuration changes is taken from them.
pub fn apply(live: Option<&Value>, config: &Value, force: bool, write: &Write<'_>) -> Result<Value, ApplyError> {
    let found = config.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if found != write.api_version {
        return Err(ApplyError::Version { found: found.to_owned(), expected: write.api_version.to_owned() });
    }
    if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    validate(config, write.ty).map_err(|problem| ApplyError::Invalid { object: describe(config), problem })?;

    let mut nothing = Map::new();
    for name in ["apiVersion", "kind"] {
        nothing.extend(config.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    let nothing = Value::Object(nothing);
    let base = live.unwrap_or(&nothing);
    let source = entries::of(live);
    let mut managers = entries::decode(source).map_err(ApplyError::ManagedFields)?;
    if managers.is_empty() {
        note_changes(&mut managers, compare(&nothing, base, write.ty), write, Some(BEFORE_FIRST_APPLY));
    }

    let applied = match merge_and_own(base, config, managers.clone(), force, write) {
        Err(conflicts) if name_of(write) == KUBECTL => {
            let allowed = last_applied_fields(base, write).unwrap_or_default();
            let conflicts: Vec<Conflict> = conflicts.into_iter().filter(|c| !allowed.contains(&c.path.0)).collect();
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
            merge_and_own(base, config, managers, true, write)
        }
        applied => applied,
    };
    let Applied { mut object, managers } = applied.map_err(ApplyError::Conflicts)?;
    if name_of(write) == KUBECTL {
        keep_last_applied(&mut object, config);
    }
    let written = encode(managers).into_iter().filter_map(|entry| match entry {
        Written::New(entry) => Some(entry),
        Written::Same(at) => source.get(at).cloned(),
    });
    let written = written.collect();
    put(&mut object, written);
    Ok(object)
}

struct Applied<'a> {
    object: Value,
    managers: Vec<Entry<'a>>,
}

fn merge_and_own<'a>(
    live: &'a Value,
    config: &'a Value,
    mut managers: Vec<Entry<'a>>,
    force: bool,
    write: &Write<'a>,
) -> Result<Applied<'a>, Vec<Conflict>> {
    let mut object = merge(live, config, write.ty);
    let mut fields = field_set(config, write.ty);
    if let Some(reset_fields) = write.reset_fields {
        fields.subtract_with_children(reset_fields);
    }
    let mut mine = Entry {
        manager: name_of(write).into(),
        operation: Operation::Apply,
        api_version: write.api_version.into(),
        subresource: write.subresource.into(),
        time: "".into(),
        fields,
        unchanged: None,
    };
    let before = managers.iter().position(|known| known.is_same_manager(&mine)).map(|at| managers.swap_remove(at));
    if let Some(before) = &before {
        prune(&mut object, &before.fields, &mine, &managers, write.ty);
    }

    let (conflicts, is_same) = {
        let mut changes = compare(live, &object, write.ty);
        let is_same = changes.is_empty();
        if let Some(reset_fields) = write.reset_fields {
            changes.exclude(reset_fields);
        }
        let Comparison { removed, modified, added } = changes;
        let mut changed = modified;
        changed.union(&added);
        let mut conflicts = Vec::new();
        managers.retain_mut(|entry| {
            let taken = entry.fields.intersection(&changed);
            if !taken.is_empty() {
                conflicts.extend(taken.paths().into_iter().map(|path| conflict(entry, path)));
                entry.fields.subtract(&taken);
                entry.unchanged = None;
            }
            if entry.fields.subtract(&removed) {
                entry.unchanged = None;
            }
            !entry.fields.is_empty()
        });
        (conflicts, is_same)
    };
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    mine.fields.subtract(&STRIPPED);
    if !mine.fields.is_empty() {
        mine.time = match before {
            // Nothing happened but that it was said again.
            Some(before) if is_same => {
                if before.fields == mine.fields && before.api_version == mine.api_version {
                    mine.unchanged = before.unchanged;
                }
                before.time
            }
            _ => write.now.into(),
        };
        managers.push(mine);
    }
    Ok(Applied { object, managers })
}

/// Takes out what the manager applied the last time, does not apply now, and nobody else owns.
fn prune(object: &mut Value, last: &Set<'_>, mine: &Entry<'_>, others: &[Entry<'_>], ty: TypeRef<'_>) {
    if last.difference(&mine.fields).is_empty() {
        return;
    }
    let named = |set: &Set<'_>| {
        let mut set = owned(set);
        set.ensure_named_fields_are_members(Some(ty));
        set
    };
    let last = named(last);
    let all = named(&field_set(object, ty));

    let mut pruned = object.clone();
    remove(&mut pruned, &last, ty);
    let mut kept = named(&field_set(&pruned, ty));
    kept.union(&named(&mine.fields));
    for other in others {
        kept.union(&named(&other.fields));
    }

    // Back comes what somebody owns, ...
    let mut pruned = object.clone();
    remove(&mut pruned, &all.difference(&kept), ty);
    // ... and what nobody owns, for the manager did not apply it either.
    let left = named(&field_set(&pruned, ty));
    let gone = all.difference(&left).intersection(&last);
    remove(object, &gone, ty);
}

/// A copy that borrows nothing.
fn owned(set: &Set<'_>) -> Set<'static> {
    let mut copy = Set::default();
    for path in set.paths() {
        copy.insert(&path.0);
    }
    copy
}

/// The fields that client-side apply set, as the object's annotation says, and that still are as it set them.
fn last_applied_fields(live: &Value, write: &Write<'_>) -> Option<Set<'static>> {
    let text = annotations(live)?.get(LAST_APPLIED_ANNOTATION)?.as_str().filter(|text| !text.is_empty())?;
    let config: Value = serde_json::from_str(text).ok()?;
    if config.get("apiVersion")?.as_str()? != write.api_version || validate(&config, write.ty).is_err() {
        return None;
    }
    let mut fields = field_set(&config, write.ty);
    let changes = compare(&config, live, write.ty);
    fields.subtract(&changes.modified);
    fields.subtract(&changes.added);
    fields.subtract(&changes.removed);
    Some(owned(&fields))
}

/// Where an object has client-side apply's annotation, it is to say what was applied last, this way or that.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let is_kept =
        annotations(object).and_then(|a| a.get(LAST_APPLIED_ANNOTATION)?.as_str()).is_some_and(|text| !text.is_empty());
    if !is_kept {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(LAST_APPLIED_ANNOTATION.to_owned(), Value::String(format!("{config}\n")));
    }
}

/// Takes the times of `live` over if nothing but times would change: such a write is none.
/// Returns whether it is so.
pub fn keep_times_if_unchanged(live: &Value, new: &mut Value) -> bool {
    fn without_times(entries: &[Value]) -> impl Iterator<Item = impl PartialEq> {
        entries.iter().map(|entry| {
            let fields = entry.as_object().into_iter().flatten();
            fields.filter(|(name, _)| *name != "time").collect::<Vec<_>>()
        })
    }
    let (old, entries) = (entries::of(Some(live)), entries::of(Some(new)));
    if old.len() != entries.len() || !without_times(old).eq(without_times(entries)) {
        return false;
    }
    let old = old.to_vec();
    let times = new.get_mut("metadata").and_then(|m| m.get_mut("managedFields")?.as_array_mut());
    let before = times.map(|times| std::mem::replace(times, old));
    if live == new {
        return true;
    }
    if let Some(before) = before
        && let Some(times) = new.get_mut("metadata").and_then(|m| m.get_mut("managedFields")?.as_array_mut())
    {
        *times = before;
    }
    false
}

fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("annotations")?.as_object()
}

fn name_of<'w>(write: &Write<'w>) -> &'w str {
    if write.manager.is_empty() { UNKNOWN_MANAGER } else { write.manager }
}

fn conflict(entry: &Entry<'_>, path: Path) -> Conflict {
    Conflict {
        manager: entry.manager.clone().into_owned(),
        operation: entry.operation,
        api_version: entry.api_version.clone().into_owned(),
        subresource: entry.subresource.clone().into_owned(),
        path,
        described: entry.describe(),
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.described, one.path);
    }
    let mut sorted: Vec<&Conflict> = conflicts.iter().collect();
    sorted.sort_by(|a, b| a.described.cmp(&b.described));
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in sorted {
        if last != Some(&conflict.described) {
            lines.push(format!("conflicts with {}:", conflict.described));
            last = Some(&conflict.described);
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// `namespace/name; apps/v1, Kind=Deployment`
fn describe(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    format!("{namespace}/{name}; {}, Kind={}", text("/apiVersion"), text("/kind"))
}

/// An entry to be written.
enum Written {
    New(Value),
    /// As it stood at this place.
    Same(usize),
}

/// The entries in their order.
fn encode(mut managers: Vec<Entry<'_>>) -> Vec<Written> {
    entries::sort(&mut managers);
    let written = managers.iter().map(|entry| match entry.unchanged {
        Some(at) => Written::Same(at),
        None => Written::New(entry.to_json()),
    });
    written.collect()
}

fn put(object: &mut Value, entries: Vec<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert(String::from("managedFields"), Value::Array(entries));
    }
}

#[cfg(test)]
mod tests;
