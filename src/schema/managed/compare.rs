//! What is different between two objects, as sets of fields.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::element::PathElement;
use super::set::{Node, Set};
use super::typed::{Kind, Ty, as_decoded, is_always_there, list_element, same};
use crate::types::{ListType, StructType, TypeRef};

/// The difference between two objects. No path is in more than one of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison<'a> {
    pub removed: Set<'a>,
    pub modified: Set<'a>,
    pub added: Set<'a>,
}

/// Compares two objects of a type. `metadata.managedFields` is not looked at.
pub fn compare<'a>(old: &'a Value, new: &'a Value, ty: TypeRef<'a>) -> Comparison<'a> {
    walk(Some(old), Some(new), Ty::Known(ty), 0).below
}

impl Comparison<'_> {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Leaves out some fields and everything below them.
    pub fn exclude(&mut self, fields: &Set<'_>) {
        self.removed.subtract_with_children(fields);
        self.modified.subtract_with_children(fields);
        self.added.subtract_with_children(fields);
    }
}

/// What one pair of values gives: whether the place itself is in one of the sets, and what is below it.
#[derive(Default)]
struct Outcome<'a> {
    here: Option<Change>,
    below: Comparison<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed,
    Modified,
    Added,
}

impl<'a> Comparison<'a> {
    fn put(&mut self, element: PathElement<'a>, outcome: Outcome<'a>) {
        let Outcome { here, below } = outcome;
        let put = |set: &mut Set<'a>, change, children: Set<'a>| {
            if here == Some(change) || !children.is_empty() {
                set.push(Node { element: element.clone(), member: here == Some(change), children });
            }
        };
        put(&mut self.removed, Change::Removed, below.removed);
        put(&mut self.modified, Change::Modified, below.modified);
        put(&mut self.added, Change::Added, below.added);
    }

    fn put_here(&mut self, element: PathElement<'a>, change: Change) {
        self.put(element, Outcome { here: Some(change), below: Comparison::default() });
    }
}

fn walk<'a>(old: Option<&'a Value>, new: Option<&'a Value>, ty: Ty<'a>, depth: usize) -> Outcome<'a> {
    if old == new {
        return Outcome::default();
    }
    let kind = ty.kind(new.or(old));
    let is_container = match kind {
        Kind::Leaf => false,
        // If neither side has anything in it, it is a leaf.
        Kind::List(_) => items(old).len() + items(new).len() > 0,
        Kind::Struct(_) | Kind::Map(_) => object(old).is_some() || object(new).is_some(),
    };
    if !is_container {
        let here = match (old, new) {
            (None, None) => None,
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Removed),
            (Some(old), Some(new)) if same(old, new) => None,
            (Some(_), Some(_)) => Some(Change::Modified),
        };
        return Outcome { here, below: Comparison::default() };
    }
    let mut below = Comparison::default();
    match kind {
        Kind::Leaf => {}
        Kind::List(list) => compare_lists(items(old), items(new), list, depth, &mut below),
        Kind::Struct(s) => compare_structs(old, new, s, depth, &mut below),
        Kind::Map(element) => compare_maps(old, new, |_| Some(element), depth, &mut below),
    }
    let here = match (old, new) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        _ => None,
    };
    Outcome { here, below }
}

fn compare_structs<'a>(
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    s: StructType<'a>,
    depth: usize,
    below: &mut Comparison<'a>,
) {
    let is_there = |value: Option<&Value>| matches!(value, Some(Value::Object(_)));
    let (old_is_there, new_is_there) = (is_there(old), is_there(new));
    let mut visit = |name: &'a str, o: Option<&'a Value>, n: Option<&'a Value>| {
        if depth == 1 && name == "managedFields" {
            return;
        }
        let Some(field) = s.field(name) else {
            // Not declared: pruned before and not ours to track, unless such fields are kept.
            if s.is_open() && o != n {
                below.put(PathElement::field(name), walk(o, n, Ty::Deduced, depth + 1));
            }
            return;
        };
        let o = if old_is_there { as_decoded(field, o) } else { None };
        let n = if new_is_there { as_decoded(field, n) } else { None };
        if o != n {
            below.put(PathElement::field(field.name()), walk(o, n, Ty::Known(field.ty()), depth + 1));
        }
    };
    let (o, n) = (object(old), object(new));
    for (name, value) in o.into_iter().flatten() {
        visit(name, Some(value), n.and_then(|n| n.get(name)));
    }
    for (name, value) in n.into_iter().flatten() {
        if o.is_none_or(|o| !o.contains_key(name)) {
            visit(name, None, Some(value));
        }
    }
    // Where only one side is there, it has also the fields that are always there.
    if old_is_there != new_is_there {
        let written = o.or(n);
        for field in s.fields().filter(|f| is_always_there(*f)) {
            if written.is_none_or(|w| !w.contains_key(field.name())) {
                visit(field.name(), None, None);
            }
        }
    }
}

fn compare_maps<'a>(
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    element: impl Fn(&str) -> Option<Ty<'a>>,
    depth: usize,
    below: &mut Comparison<'a>,
) {
    let (o, n) = (object(old), object(new));
    for (name, value) in o.into_iter().flatten() {
        let other = n.and_then(|n| n.get(name));
        if other != Some(value)
            && let Some(ty) = element(name)
        {
            below.put(PathElement::field(name), walk(Some(value), other, ty, depth + 1));
        }
    }
    for (name, value) in n.into_iter().flatten() {
        if o.is_none_or(|o| !o.contains_key(name))
            && let Some(ty) = element(name)
        {
            below.put(PathElement::field(name), walk(None, Some(value), ty, depth + 1));
        }
    }
}

/// The elements on both sides with the same identity. More than one on a side is a duplicate.
#[derive(Default)]
struct Pair<'a> {
    old: Vec<&'a Value>,
    new: Vec<&'a Value>,
}

fn compare_lists<'a>(old: &'a [Value], new: &'a [Value], list: ListType<'a>, depth: usize, below: &mut Comparison<'a>) {
    let mut order: Vec<PathElement<'a>> = Vec::with_capacity(new.len());
    let mut pairs: HashMap<PathElement<'a>, Pair<'a>> = HashMap::with_capacity(new.len());
    let mut gather = |items: &'a [Value], is_old: bool| {
        for item in items {
            // What has no identity is refused where it comes in; it has no owner here.
            let Ok(element) = list_element(list, item) else { continue };
            let pair = pairs.entry(element).or_insert_with_key(|element| {
                order.push(element.clone());
                Pair::default()
            });
            if is_old { pair.old.push(item) } else { pair.new.push(item) }
        }
    };
    gather(old, true);
    gather(new, false);
    // In the order of the set, so that nothing is inserted in its middle.
    order.sort_unstable();
    let ty = Ty::Known(list.element);
    for element in order {
        let Some(Pair { old, new }) = pairs.remove(&element) else { continue };
        match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => {
                let (old, new) = (old.first().copied(), new.first().copied());
                if old != new {
                    below.put(element, walk(old, new, ty, depth + 1));
                }
            }
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    below.put_here(element, Change::Modified);
                }
            }
            ([_, _, ..], new) => {
                if let Some(new) = new.first().copied() {
                    below.put(element.clone(), walk(None, Some(new), ty, depth + 1));
                }
                below.put_here(element, Change::Removed);
            }
            (old, [_, _, ..]) => {
                if let Some(old) = old.first().copied() {
                    below.put(element.clone(), walk(Some(old), None, ty, depth + 1));
                }
                below.put_here(element, Change::Added);
            }
        }
    }
}

/// The object that a value is, if it has anything in it.
fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object).filter(|map| !map.is_empty())
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Types;

    fn compared(old: &Value, new: &Value) -> (Value, Value, Value) {
        let ty = Types::builtin().kind("", "v1", "Pod").unwrap();
        let c = compare(old, new, ty);
        (c.removed.to_json(), c.modified.to_json(), c.added.to_json())
    }

    #[test]
    fn fields_elements_and_atomics() {
        let old = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}, "managedFields": [1]},
            "spec": {"containers": [{"name": "a", "image": "x", "args": ["1"]}], "nodeSelector": {"x": "y"}},
        });
        let new = json!({
            "metadata": {"labels": {"a": "3", "c": "4"}},
            "spec": {
                "containers": [{"name": "b", "ports": [{"containerPort": 80}]}, {"name": "a", "image": "x", "args": ["2"]}],
                "nodeSelector": {"x": "z"},
            },
        });
        let (removed, modified, added) = compared(&old, &new);
        assert_eq!(removed, json!({"f:metadata": {"f:labels": {"f:b": {}}}}));
        assert_eq!(
            modified,
            json!({
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:args": {}}}, "f:nodeSelector": {}},
            })
        );
        assert_eq!(
            added,
            json!({
                "f:metadata": {"f:labels": {"f:c": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {
                    ".": {}, "f:name": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }}},
            })
        );
    }

    #[test]
    fn what_go_omits_is_no_difference() {
        let bare = json!({"kind": "Pod"});
        let full = json!({"kind": "Pod", "metadata": {"labels": {}, "creationTimestamp": null}, "spec": {"containers": [], "tolerations": []}, "status": {}});
        let (removed, modified, added) = compared(&bare, &full);
        assert_eq!((removed, added), (json!({}), json!({})));
        // Upstream tells null from [] too.
        assert_eq!(modified, json!({"f:spec": {"f:containers": {}}}));
        // A pointer to an empty struct is something.
        let (_, _, added) = compared(&bare, &json!({"spec": {"securityContext": {}}}));
        assert_eq!(added, json!({"f:spec": {"f:securityContext": {}}}));
    }

    #[test]
    fn duplicates_are_marked_as_one() {
        let one = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
        let two = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]}});
        let element = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {}}}});
        let (removed, modified, added) = compared(&one, &two);
        assert_eq!(added, element);
        assert_eq!(modified, json!({}));
        assert_eq!(
            removed,
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}}}})
        );
        let other = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "z"}]}});
        assert_eq!(compared(&two, &other).1, element);
        assert_eq!(compared(&two, &one).0, element);
    }

    #[test]
    fn free_form_objects_are_one_to_their_owners() {
        let ty = Types::builtin().kind("apps", "v1", "ControllerRevision").unwrap();
        let old = json!({"data": {"a": {"b": 1, "l": [1]}, "n": 1}});
        let new = json!({"data": {"a": {"b": 2, "l": [1, 2]}, "n": 1}});
        let c = compare(&old, &new, ty);
        assert_eq!(c.modified.to_json(), json!({"f:data": {}}));
        assert!(c.added.is_empty() && c.removed.is_empty());
    }
}
