//! Strategic merge patch, `application/strategic-merge-patch+json`.
//!
//! A merge patch that knows of lists whose elements have a merge key, and of directives: `$patch` (replace,
//! delete, merge), `$retainKeys`, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::types::{FieldRef, Shape, TypeRef};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a patch is refused; all are 400 upstream except where the document would be at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: String },
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    #[error("unable to find api field in struct {definition} for the json field {field:?}")]
    UnknownField { definition: String, field: String },
    #[error("cannot merge lists without merge key for {0}")]
    ListWithoutMergeKey(String),
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirectiveInList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch { patch: String, order: String },
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("list element types are not identical: {0}")]
    MixedList(String),
    #[error("expected a {expected}, but received a {found}")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("strategic merge patch format is not supported")]
    NotAnObject,
}

type Merged<T> = Result<T, StrategicError>;

/// Merges `patch` into `target`, both of the type `ty`.
pub fn strategic_merge(target: &mut Value, patch: Value, ty: TypeRef<'_>) -> Merged<()> {
    let Value::Object(patch) = patch else { return Err(StrategicError::NotAnObject) };
    let Value::Object(original) = target else { return Err(StrategicError::NotAnObject) };
    *original = merge_map(std::mem::take(original), patch, Some(ty))?;
    Ok(())
}

/// What the table says on how a field is patched.
struct Meta<'t> {
    /// The field's type; of a list its elements'.
    ty: Option<TypeRef<'t>>,
    field: Option<FieldRef<'t>>,
}

impl<'t> Meta<'t> {
    fn of(parent: Option<TypeRef<'t>>, name: &str) -> Merged<Meta<'t>> {
        let Some(parent) = parent else { return Ok(Meta { ty: None, field: None }) };
        match parent.shape() {
            Shape::Struct(s) => match s.field(name) {
                Some(field) => Ok(Meta { ty: Some(element(field.ty())), field: Some(field) }),
                None => {
                    Err(StrategicError::UnknownField { definition: s.short_name().to_owned(), field: name.to_owned() })
                }
            },
            Shape::Map(m) => Ok(Meta { ty: Some(element(m.element)), field: None }),
            Shape::Scalar(_) | Shape::List(_) | Shape::Object | Shape::Any => Ok(Meta { ty: None, field: None }),
        }
    }

    fn merges(&self) -> bool {
        self.field.is_some_and(FieldRef::patch_merges)
    }

    fn replaces(&self) -> bool {
        self.field.is_some_and(|f| f.patch_strategy().split(',').any(|s| s == "replace"))
    }

    fn merge_key(&self) -> Option<&'t str> {
        self.field.and_then(FieldRef::merge_key)
    }

    fn name(&self) -> String {
        self.ty.and_then(TypeRef::definition_name).unwrap_or_default().to_owned()
    }
}

/// A list's element type; the type itself if it is no list.
fn element(ty: TypeRef<'_>) -> TypeRef<'_> {
    match ty.shape() {
        Shape::List(l) => l.element,
        _ => ty,
    }
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Option<TypeRef<'_>>,
) -> Merged<Map<String, Value>> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            // Deleting a map leaves it empty.
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(&directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_element_order(&mut original, &mut patch, ty)?;
    for (name, value) in patch {
        let (name, is_delete_list) = match name.strip_prefix(DELETE_FROM_LIST) {
            Some(name) => (name.to_owned(), true),
            None => (name, false),
        };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let Some(present) = original.get_mut(&name) else {
            if !is_delete_list && let Some(value) = without_directives(without_nulls(value)) {
                original.insert(name, value);
            }
            continue;
        };
        match (std::mem::take(present), value) {
            (Value::Object(old), Value::Object(new)) => {
                let meta = Meta::of(ty, &name)?;
                let merged = if meta.replaces() { new } else { merge_map(old, new, meta.ty)? };
                original.insert(name, Value::Object(merged));
            }
            (Value::Array(old), Value::Array(new)) => {
                let meta = Meta::of(ty, &name)?;
                let merged =
                    if meta.merges() || is_delete_list { merge_list(old, new, &meta, is_delete_list)? } else { new };
                original.insert(name, Value::Array(merged));
            }
            (old, _) if is_delete_list => {
                original.insert(name, old);
            }
            (_, new) => match without_directives(without_nulls(new)) {
                Some(new) => {
                    original.insert(name, new);
                }
                None => {
                    original.remove(&name);
                }
            },
        }
    }
    Ok(original)
}

fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Merged<()> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(StrategicError::RetainKeys) };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_retained = |name: &str| retained.contains(name);
    let strange = patch.iter().any(|(name, value)| {
        !value.is_null()
            && !name.starts_with(DELETE_FROM_LIST)
            && !name.starts_with(ELEMENT_ORDER)
            && !is_retained(name)
    });
    if strange {
        return Err(StrategicError::RetainKeys);
    }
    original.retain(|name, _| is_retained(name));
    Ok(())
}

/// Merges the lists for which the patch has an order and puts them into it.
fn set_element_order(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    ty: Option<TypeRef<'_>>,
) -> Merged<()> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        let name = directive.strip_prefix(ELEMENT_ORDER).unwrap_or_default();
        let Value::Array(order) = order else { return Err(wrong_type("list", &order)) };
        let old = as_list(original.remove(name))?;
        let new = as_list(patch.remove(name))?;
        let meta = Meta::of(ty, name)?;
        let key = meta.merge_key();
        if let Some(new) = &new {
            check_order(new, &order, key)?;
        }
        let deletes = new.iter().flatten().any(|item| item.get(DIRECTIVE).is_some_and(|d| d == "delete"));
        let merged = match (&old, new) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) if meta.merges() => merge_list(old.clone(), new, &meta, false)?,
            (Some(_), Some(new)) => new,
        };
        let mut server_order = old.unwrap_or_default();
        if deletes {
            server_order = order_after_deletes(server_order, &merged, key);
        }
        let merged = ordered(merged, &order, &server_order, key)?;
        original.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

/// The order that upstream takes for the object's own once a patch has deleted elements: those that are left
/// moved up, and what is new took their places.
fn order_after_deletes(old: Vec<Value>, merged: &[Value], key: Option<&str>) -> Vec<Value> {
    let places = old.len();
    let before = positions(&old, key);
    let is_new = |item: &&Value| identity(item, key).is_none_or(|id| !before.contains_key(id.as_ref()));
    let new: Vec<Value> = merged.iter().filter(is_new).cloned().collect();
    let after = positions(merged, key);
    let kept = old.iter().filter(|item| identity(item, key).is_some_and(|id| after.contains_key(id.as_ref())));
    kept.cloned().chain(new).take(places).collect()
}

/// The elements of a patch's list must come in the order that the patch itself asks for.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Merged<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if let Some(key) = key
            && item.get(key).is_none()
        {
            return Err(no_merge_key(item, key));
        }
        if !wanted.any(|w| same_element(item, w, key)) {
            return Err(StrategicError::OrderMismatch {
                patch: Value::from(patch).to_string(),
                order: Value::from(order).to_string(),
            });
        }
    }
    Ok(())
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    meta: &Meta<'_>,
    is_delete_list: bool,
) -> Merged<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !elements_are_maps(&original, &patch)? {
        let in_patch: HashSet<Cow<'_, str>> = patch.iter().filter_map(|item| identity(item, None)).collect();
        if is_delete_list {
            original.retain(|item| identity(item, None).is_none_or(|id| !in_patch.contains(&id)));
            return Ok(original);
        }
        let mut seen: HashSet<Cow<'_, str>> = HashSet::with_capacity(original.len() + patch.len());
        let both = original.iter().chain(&patch);
        let merged = both.filter(|item| identity(item, None).is_some_and(|id| seen.insert(id))).cloned().collect();
        return ordered(merged, &patch, &original, None);
    }
    if is_delete_list {
        return Err(StrategicError::PrimitiveList);
    }
    let Some(key) = meta.merge_key() else { return Err(StrategicError::ListWithoutMergeKey(meta.name())) };
    let (mut merged, patch) = list_directives(original, patch, key)?;
    let server_order: Vec<Value> = merged.iter().map(|item| key_only(item, key)).collect();
    let patch_order: Vec<Value> = patch.iter().map(|item| key_only(item, key)).collect();
    let mut places: HashMap<String, usize> = HashMap::with_capacity(merged.len());
    for (at, item) in merged.iter().enumerate() {
        if let Some(id) = identity(item, Some(key)) {
            places.entry(id.into_owned()).or_insert(at);
        }
    }
    for item in patch {
        let Some(id) = identity(&item, Some(key)).map(Cow::into_owned) else { return Err(no_merge_key(&item, key)) };
        let found = places.get(&id).and_then(|at| merged.get_mut(*at));
        match (found, item) {
            (Some(Value::Object(old)), Value::Object(new)) => *old = merge_map(std::mem::take(old), new, meta.ty)?,
            (_, item) => {
                places.insert(id, merged.len());
                merged.push(without_nulls(item));
            }
        }
    }
    ordered(merged, &patch_order, &server_order, Some(key))
}

/// Carries out `$patch` among a list's elements. Returns the list and the elements that are left to merge.
fn list_directives(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Merged<(Vec<Value>, Vec<Value>)> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut deleted: HashSet<String> = HashSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => rest.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let Some(id) = identity(&item, Some(key)) else { return Err(no_merge_key(&item, key)) };
                    deleted.insert(id.into_owned());
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(StrategicError::MergeDirectiveInList),
                _ => {
                    return Err(StrategicError::UnknownDirective {
                        directive: directive_text(directive),
                        map: go_text(&item),
                    });
                }
            },
        }
    }
    if replace {
        return Ok((rest, Vec::new()));
    }
    if !deleted.is_empty() {
        original.retain(|item| identity(item, Some(key)).is_none_or(|id| !deleted.contains(id.as_ref())));
    }
    Ok((original, rest))
}

/// Whether the lists' elements are objects. All must be of one type.
fn elements_are_maps(a: &[Value], b: &[Value]) -> Merged<bool> {
    let mut elements = a.iter().chain(b);
    let Some(first) = elements.next() else { return Ok(false) };
    if first.is_array() {
        return Err(StrategicError::ListOfLists);
    }
    let kind = std::mem::discriminant(first);
    if elements.any(|e| std::mem::discriminant(e) != kind) {
        return Err(StrategicError::MixedList(format!("[{} {}]", go_list(a), go_list(b))));
    }
    Ok(first.is_object())
}

/// Puts the elements that `order` names into its order, and leaves the others, as well as it goes, where
/// they are in `server_order`.
fn ordered(items: Vec<Value>, order: &[Value], server_order: &[Value], key: Option<&str>) -> Merged<Vec<Value>> {
    if let Some(key) = key
        && let Some(item) = items.iter().find(|i| i.get(key).is_none())
    {
        return Err(no_merge_key(item, key));
    }
    let in_order = positions(order, key);
    let on_server = positions(server_order, key);
    let position = |positions: &HashMap<Cow<'_, str>, usize>, item: &Value| {
        identity(item, key).and_then(|id| positions.get(id.as_ref()).copied())
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| position(&in_order, item).is_some());
    named.sort_by_cached_key(|item| position(&in_order, item));
    others.sort_by_cached_key(|item| position(&on_server, item).unwrap_or(usize::MAX));
    let mut merged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = position(&on_server, &item);
        while let (Some(at), Some(other)) = (at, others.peek())
            && position(&on_server, other).is_some_and(|other| other < at)
        {
            merged.extend(others.next());
        }
        merged.push(item);
    }
    merged.extend(others);
    Ok(merged)
}

/// Where each element is, the first of equal ones.
fn positions<'v>(list: &'v [Value], key: Option<&str>) -> HashMap<Cow<'v, str>, usize> {
    let mut positions = HashMap::with_capacity(list.len());
    for (at, item) in list.iter().enumerate() {
        if let Some(id) = identity(item, key) {
            positions.entry(id).or_insert(at);
        }
    }
    positions
}

/// What makes elements the same one: their merge key, or without one all of them. As text:
/// strings bare unless they could be taken for other JSON.
fn identity<'v>(item: &'v Value, key: Option<&str>) -> Option<Cow<'v, str>> {
    let value = key.map_or(Some(item), |key| item.get(key))?;
    Some(match value {
        Value::String(text) if !text.starts_with(|c: char| "0123456789-tfn{[\"".contains(c)) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    })
}

/// Whether two elements are the same one: equal, or with equal merge keys.
fn same_element(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn key_only(item: &Value, key: &str) -> Value {
    let value = item.get(key).cloned().unwrap_or_default();
    Value::Object(Map::from_iter([(key.to_owned(), value)]))
}

fn as_list(value: Option<Value>) -> Merged<Option<Vec<Value>>> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(wrong_type("list", &other)),
    }
}

/// Drops what carries a directive: there is nothing for it to act on.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter().filter_map(|(name, value)| Some((name, without_directives(value)?))).collect(),
        )),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// Drops fields that are `null`: there is nothing for them to remove.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn no_merge_key(item: &Value, key: &str) -> StrategicError {
    StrategicError::NoMergeKey { map: go_text(item), key: key.to_owned() }
}

fn unknown_directive(directive: &Value, mut patch: Map<String, Value>) -> StrategicError {
    patch.insert(DIRECTIVE.to_owned(), directive.clone());
    StrategicError::UnknownDirective { directive: directive_text(directive), map: go_text(&Value::Object(patch)) }
}

fn directive_text(directive: &Value) -> String {
    directive.as_str().map_or_else(|| directive.to_string(), str::to_owned)
}

fn wrong_type(expected: &'static str, found: &Value) -> StrategicError {
    let found = match found {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    };
    StrategicError::WrongType { expected, found }
}

/// A value as Go prints it: `map[image:x name:y]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => String::from("<nil>"),
        Value::String(text) => text.clone(),
        Value::Array(items) => go_list(items),
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields: Vec<String> = fields.into_iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

fn go_list(items: &[Value]) -> String {
    format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
