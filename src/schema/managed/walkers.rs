//! What a configuration holds, merging it into an object, and taking fields out again.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::element::PathElement;
use super::set::{Node, Set};
use super::typed::{Kind, Ty, list_element, member};
use crate::types::{ListType, Scalar, Shape, TypeRef};

/// How many reasons a refusal names.
const ERRORS_MAX: usize = 100;

/// The fields that a value holds: its leaves, its list elements and map keys.
pub fn field_set<'a>(value: &'a Value, ty: TypeRef<'a>) -> Set<'a> {
    fields(value, Ty::Known(ty)).1
}

/// Whether the place itself is a member, and what is below it.
fn fields<'a>(value: &'a Value, ty: Ty<'a>) -> (bool, Set<'a>) {
    let mut below = Set::default();
    match (ty.kind(Some(value)), value) {
        (Kind::Leaf, _) => return (true, below),
        (Kind::Struct(s), Value::Object(map)) => {
            for (name, value) in map {
                let Some(ty) = member(s, name) else { continue };
                let (is_member, children) = fields(value, ty);
                // What is not declared is a key as in a map.
                let member = is_member || is_nothing(value) || matches!(ty, Ty::Deduced);
                below.push(Node { element: PathElement::field(name), member, children });
            }
        }
        (Kind::Map(element), Value::Object(map)) => {
            for (name, value) in map {
                let (_, children) = fields(value, element);
                below.push(Node { element: PathElement::field(name), member: true, children });
            }
        }
        (Kind::List(list), Value::Array(items)) => {
            let mut elements: Vec<(PathElement<'a>, &Value)> =
                items.iter().filter_map(|item| Some((list_element(list, item).ok()?, item))).collect();
            // In the order of the set, so that nothing is inserted in its middle; duplicates side by side.
            elements.sort_by(|(a, _), (b, _)| a.cmp(b));
            for same in elements.chunk_by(|(a, _), (b, _)| a == b) {
                let Some((element, item)) = same.first() else { continue };
                // What occurs twice is owned as a whole.
                let children = if same.len() > 1 { Set::default() } else { fields(item, Ty::Known(list.element)).1 };
                below.push(Node { element: element.clone(), member: true, children });
            }
        }
        // null, or not what the type says: nothing below.
        _ => {}
    }
    (false, below)
}

/// `null` and empty objects are members although they hold nothing.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Merges an applied configuration into an object. Nothing is taken out by it, but a leaf that is `null`.
pub fn merge(live: &Value, config: &Value, ty: TypeRef<'_>) -> Value {
    merge_values(Some(live), Some(config), Ty::Known(ty)).unwrap_or_default()
}

fn merge_values(live: Option<&Value>, config: Option<&Value>, ty: Ty<'_>) -> Option<Value> {
    let Some(config) = config else { return live.cloned() };
    match (ty.kind(Some(config)), live, config) {
        (Kind::Struct(_) | Kind::Map(_), Some(Value::Object(old)), Value::Object(new))
            if !(old.is_empty() && new.is_empty()) =>
        {
            let kind = ty.kind(Some(config));
            let mut merged = Map::new();
            // A struct's field that is null is not there; a map's key is, with nothing as its value.
            let null = matches!(kind, Kind::Map(_)).then_some(Value::Null);
            for (name, old) in old {
                let value = match (new.get(name), child(kind, name)) {
                    (Some(new), Some(ty)) => merge_values(Some(old), Some(new), ty).or_else(|| null.clone()),
                    _ => Some(old.clone()),
                };
                if let Some(value) = value {
                    merged.insert(name.clone(), value);
                }
            }
            for (name, new) in new {
                if !old.contains_key(name)
                    && let Some(ty) = child(kind, name)
                    && let Some(value) = merge_values(None, Some(new), ty).or_else(|| null.clone())
                {
                    merged.insert(name.clone(), value);
                }
            }
            Some(Value::Object(merged))
        }
        (Kind::List(list), Some(Value::Array(old)), Value::Array(new)) if !old.is_empty() && !new.is_empty() => {
            Some(Value::Array(merge_lists(old, new, list)))
        }
        // An empty list or null takes nothing out of what has parts of its own.
        (Kind::Struct(_) | Kind::Map(_), Some(Value::Object(old)), Value::Null) if !old.is_empty() => live.cloned(),
        (Kind::List(_), Some(Value::Array(old)), Value::Null | Value::Array(_)) if !old.is_empty() => live.cloned(),
        (_, _, Value::Null) => None,
        (_, _, config) => Some(without_nulls(config, ty)),
    }
}

fn child<'t>(kind: Kind<'t>, name: &str) -> Option<Ty<'t>> {
    match kind {
        Kind::Struct(s) => member(s, name),
        Kind::Map(element) => Some(element),
        Kind::Leaf | Kind::List(_) => None,
    }
}

/// A copy without the struct fields that are `null`.
fn without_nulls(value: &Value, ty: Ty<'_>) -> Value {
    match (ty, value) {
        (Ty::Known(known), Value::Object(map)) => match known.shape() {
            Shape::Struct(s) => Value::Object(
                map.iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(name, value)| {
                        let ty = s.field(name).map_or(Ty::Deduced, |f| Ty::Known(f.ty()));
                        (name.clone(), without_nulls(value, ty))
                    })
                    .collect(),
            ),
            Shape::Map(m) => {
                Value::Object(map.iter().map(|(k, v)| (k.clone(), without_nulls(v, Ty::Known(m.element)))).collect())
            }
            Shape::Scalar(_) | Shape::List(_) | Shape::Object | Shape::Any => value.clone(),
        },
        (Ty::Known(known), Value::Array(items)) => match known.shape() {
            Shape::List(l) => {
                Value::Array(items.iter().map(|item| without_nulls(item, Ty::Known(l.element))).collect())
            }
            Shape::Scalar(_) | Shape::Map(_) | Shape::Struct(_) | Shape::Object | Shape::Any => value.clone(),
        },
        _ => value.clone(),
    }
}

/// Merges lists element by element. Elements that both have come in the configuration's order; those that
/// only the object has stay, as well as it goes, where they are.
fn merge_lists(old: &[Value], new: &[Value], list: ListType<'_>) -> Vec<Value> {
    fn identities<'v>(list: ListType<'_>, items: &'v [Value]) -> Vec<(PathElement<'v>, &'v Value)> {
        items.iter().filter_map(|item| Some((list_element(list, item).ok()?, item))).collect()
    }
    let old = identities(list, old);
    let new = identities(list, new);
    let mut partners: HashMap<&PathElement<'_>, Option<&Value>> = HashMap::with_capacity(old.len());
    for (element, item) in &old {
        // Of elements that occur twice in the object none is merged with the new one.
        partners.entry(element).and_modify(|partner| *partner = None).or_insert(Some(*item));
    }
    let wanted_at_all: HashSet<&PathElement<'_>> = new.iter().map(|(element, _)| element).collect();
    let partner = |element: &PathElement<'_>| partners.get(element).copied().flatten();
    let ty = Ty::Known(list.element);
    let mut shared = new.iter().map(|(e, _)| e).filter(|e| partners.contains_key(e));
    let mut next_shared = shared.next();
    let mut taken: HashSet<&PathElement<'_>> = HashSet::with_capacity(new.len());
    let mut merged = Vec::with_capacity(old.len().max(new.len()));
    let (mut o, mut n) = (0, 0);
    while o < old.len() || n < new.len() {
        let (here, there) = (old.get(o), new.get(n));
        if let (Some((element, _)), Some((wanted, item))) = (here, there) {
            if element == wanted {
                merged.extend(merge_values(partner(wanted), Some(item), ty));
                taken.insert(wanted);
                o += 1;
                n += 1;
                next_shared = shared.next();
                continue;
            }
            if wanted_at_all.contains(element) && next_shared.is_some_and(|next| next != element) {
                // Shared, but its turn comes later.
                o += 1;
                continue;
            }
        }
        if let Some((element, item)) = here {
            if !wanted_at_all.contains(element) {
                merged.push((*item).clone());
                o += 1;
                continue;
            }
            if taken.contains(element) {
                o += 1;
            }
        }
        if let Some((wanted, item)) = there {
            merged.extend(merge_values(partner(wanted), Some(item), ty));
            taken.insert(wanted);
            n += 1;
            if next_shared == Some(wanted) {
                next_shared = shared.next();
            }
        } else if here.is_some_and(|(element, _)| !taken.contains(element)) {
            // Not reachable with the bookkeeping above, but a loop must end.
            o += 1;
        }
    }
    merged
}

/// Takes fields out of an object. What loses all that it has goes too, but not what it was in.
pub fn remove(value: &mut Value, fields: &Set<'_>, ty: TypeRef<'_>) {
    remove_fields(value, fields, Ty::Known(ty));
}

/// Returns whether everything was taken out. What then goes still counts for its parent as something.
fn remove_fields(value: &mut Value, fields: &Set<'_>, ty: Ty<'_>) -> bool {
    let kind = ty.kind(Some(value));
    let mut left = 0;
    match (kind, value) {
        (Kind::Struct(_) | Kind::Map(_), Value::Object(map)) => map.retain(|name, value| {
            let node = fields.get(&PathElement::field(name));
            if node.is_some_and(|n| n.member) {
                return false;
            }
            left += 1;
            match (node, child(kind, name)) {
                (Some(node), Some(ty)) => !remove_fields(value, &node.children, ty) || is_always_an_object(kind, name),
                _ => true,
            }
        }),
        (Kind::List(list), Value::Array(items)) => items.retain_mut(|item| {
            let node = list_element(list, item).ok().and_then(|element| fields.get(&element));
            if node.is_some_and(|n| n.member) {
                return false;
            }
            left += 1;
            node.is_none_or(|node| !remove_fields(item, &node.children, Ty::Known(list.element)))
        }),
        _ => return false,
    }
    left == 0
}

/// Whether a field is a struct that is no pointer upstream: emptied, it is still there.
fn is_always_an_object(kind: Kind<'_>, name: &str) -> bool {
    match kind {
        Kind::Struct(s) => s
            .field(name)
            .is_some_and(|f| f.ty().types().zero_when_absent() && matches!(f.default(), Some(Value::Object(_)))),
        Kind::Leaf | Kind::List(_) | Kind::Map(_) => false,
    }
}

/// Checks that a configuration has only declared fields, values that fit their types, and no list element
/// twice. The text is that of upstream's typed values.
pub fn validate(value: &Value, ty: TypeRef<'_>) -> Result<(), String> {
    let mut errors = Vec::new();
    check(value, ty, &mut String::new(), &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn check(value: &Value, ty: TypeRef<'_>, path: &mut String, errors: &mut Vec<String>) {
    match (ty.shape(), value) {
        (_, Value::Null) | (Shape::Any | Shape::Object, _) => {}
        (Shape::Scalar(scalar), _) => {
            if let Some(message) = scalar_error(scalar, value) {
                report(errors, path, message);
            }
        }
        (Shape::Struct(s), Value::Object(map)) => {
            for (name, value) in map {
                let mark = path.len();
                path.push('.');
                path.push_str(name);
                match s.field(name) {
                    Some(field) => check(value, field.ty(), path, errors),
                    None if s.is_open() => {}
                    None => report(errors, path, "field not declared in schema".to_owned()),
                }
                path.truncate(mark);
            }
        }
        (Shape::Map(m), Value::Object(map)) => {
            for (name, value) in map {
                let mark = path.len();
                path.push('.');
                path.push_str(name);
                check(value, m.element, path, errors);
                path.truncate(mark);
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            let mut seen: HashSet<PathElement<'_>> = HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let element = if list.is_associative() {
                    match list_element(list, item) {
                        Ok(element) => element,
                        Err(message) => {
                            report(errors, path, format!("element {index}: {message}"));
                            return;
                        }
                    }
                } else {
                    PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))
                };
                let mark = path.len();
                let shown = element.to_string();
                if !seen.insert(element) {
                    report(errors, path, format!("duplicate entries for key {shown}"));
                }
                path.push_str(&shown);
                check(item, list.element, path, errors);
                path.truncate(mark);
            }
        }
        (Shape::List(_), _) => report(errors, path, format!("expected list, got {value}")),
        (Shape::Struct(_) | Shape::Map(_), _) => report(errors, path, format!("expected map, got {value}")),
    }
}

fn report(errors: &mut Vec<String>, path: &str, message: String) {
    if errors.len() >= ERRORS_MAX {
        return;
    }
    errors.push(if path.is_empty() { message } else { format!("{path}: {message}") });
}

fn scalar_error(scalar: Scalar, value: &Value) -> Option<String> {
    let go_type = match value {
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    match (scalar, value) {
        (Scalar::String, Value::String(_)) | (Scalar::Boolean, Value::Bool(_)) => None,
        (Scalar::Int32 | Scalar::Int64 | Scalar::Integer | Scalar::Double | Scalar::Number, Value::Number(_)) => None,
        (
            Scalar::Byte | Scalar::DateTime | Scalar::IntOrString | Scalar::Quantity,
            Value::Number(_) | Value::String(_) | Value::Bool(_),
        ) => None,
        (Scalar::String, _) => Some(format!("expected string, got {value}")),
        (Scalar::Boolean, _) => Some(format!("expected boolean, got {value}")),
        (Scalar::Int32 | Scalar::Int64 | Scalar::Integer | Scalar::Double | Scalar::Number, _) => {
            Some(format!("expected numeric (int or float), got {go_type}"))
        }
        _ => Some(format!("expected any scalar, got {value}")),
    }
}
