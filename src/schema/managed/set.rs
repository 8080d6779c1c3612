//! Sets of fields, as `FieldsV1` has them.

use std::fmt;

use serde_json::{Map, Value};

use super::element::PathElement;
use crate::types::{Shape, TypeRef};

/// A set of paths: a tree in which a node may be a member, have members below it, or both. It borrows its
/// names from the JSON that it was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set<'a> {
    /// Sorted by element; none is empty (neither a member nor with members below).
    nodes: Vec<Node<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub element: PathElement<'a>,
    pub member: bool,
    pub children: Set<'a>,
}

/// A path into an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<PathElement<'static>>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

impl Set<'static> {
    /// The set of some paths of fields.
    pub fn of_fields(paths: &[&[&'static str]]) -> Set<'static> {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::field(name)).collect::<Vec<_>>());
        }
        set
    }
}

impl<'a> Set<'a> {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a path. The empty path stands for the whole object, which nobody owns.
    pub fn insert(&mut self, path: &[PathElement<'a>]) {
        if let Some((first, rest)) = path.split_first() {
            let node = self.node(first.clone());
            if rest.is_empty() { node.member = true } else { node.children.insert(rest) }
        }
    }

    pub fn contains(&self, path: &[PathElement<'_>]) -> bool {
        match path.split_first() {
            None => false,
            Some((first, [])) => self.get(first).is_some_and(|n| n.member),
            Some((first, rest)) => self.get(first).is_some_and(|n| n.children.contains(rest)),
        }
    }

    /// All paths, parents before children.
    pub fn paths(&self) -> Vec<Path> {
        fn walk(set: &Set<'_>, prefix: &mut Vec<PathElement<'static>>, paths: &mut Vec<Path>) {
            for node in &set.nodes {
                prefix.push(node.element.clone().into_owned());
                if node.member {
                    paths.push(Path(prefix.clone()));
                }
                walk(&node.children, prefix, paths);
                prefix.pop();
            }
        }
        let mut paths = Vec::new();
        walk(self, &mut Vec::new(), &mut paths);
        paths
    }

    /// Reads `fieldsV1`. Elements of unknown form are left out.
    pub fn from_json(json: &'a Value) -> Set<'a> {
        let mut set = Set::default();
        let Value::Object(map) = json else { return set };
        set.nodes.reserve_exact(map.len());
        for (text, below) in map {
            if text == "." {
                continue;
            }
            let Some(element) = PathElement::parse(text) else { continue };
            let children = Set::from_json(below);
            // Without anything below it, it is a member; else it is one if it says so.
            let member = children.is_empty() || below.get(".").is_some();
            set.push(Node { element, member, children });
        }
        set
    }

    /// Writes `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for node in &self.nodes {
            let mut below = node.children.to_json();
            if node.member
                && !node.children.is_empty()
                && let Value::Object(below) = &mut below
            {
                below.insert(String::from("."), Value::Object(Map::new()));
            }
            map.insert(node.element.to_text(), below);
        }
        Value::Object(map)
    }

    /// All of both.
    pub fn union(&mut self, other: &Set<'a>) {
        for node in &other.nodes {
            match self.position(&node.element) {
                Ok(at) => {
                    if let Some(mine) = self.nodes.get_mut(at) {
                        mine.member |= node.member;
                        mine.children.union(&node.children);
                    }
                }
                Err(at) => self.nodes.insert(at, node.clone()),
            }
        }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set<'_>) -> Set<'a> {
        let mut both = Set::default();
        for node in &self.nodes {
            let Some(theirs) = other.get(&node.element) else { continue };
            let member = node.member && theirs.member;
            let children = node.children.intersection(&theirs.children);
            if member || !children.is_empty() {
                both.nodes.push(Node { element: node.element.clone(), member, children });
            }
        }
        both
    }

    /// Takes out what is in the other. A parent in the other does not take out its children, nor a child
    /// its parent. Returns whether anything was taken out.
    pub fn subtract(&mut self, other: &Set<'_>) -> bool {
        let mut changed = false;
        if other.is_empty() {
            return changed;
        }
        self.nodes.retain_mut(|node| {
            if let Some(theirs) = other.get(&node.element) {
                changed |= node.member && theirs.member;
                node.member &= !theirs.member;
                changed |= node.children.subtract(&theirs.children);
            }
            node.member || !node.children.is_empty()
        });
        changed
    }

    /// Takes out what is in the other, and everything below it.
    pub fn subtract_with_children(&mut self, other: &Set<'_>) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            match other.get(&node.element) {
                Some(theirs) if theirs.member => return false,
                Some(theirs) => node.children.subtract_with_children(&theirs.children),
                None => {}
            }
            node.member || !node.children.is_empty()
        });
    }

    /// What is in this and not in the other, as [`Set::subtract`] has it.
    pub fn difference(&self, other: &Set<'_>) -> Set<'a> {
        let mut rest = self.clone();
        rest.subtract(other);
        rest
    }

    /// Only the members that have no members below them.
    pub fn leaves(&self) -> Set<'a> {
        let nodes = self.nodes.iter().map(|n| Node {
            element: n.element.clone(),
            member: n.member && n.children.is_empty(),
            children: n.children.leaves(),
        });
        Set { nodes: nodes.collect() }
    }

    /// Makes members of the struct fields on the way to members; keys of maps and elements of lists are
    /// left as they are.
    pub fn ensure_named_fields_are_members(&mut self, ty: Option<TypeRef<'_>>) {
        let shape = ty.map(TypeRef::shape);
        for node in &mut self.nodes {
            if node.children.is_empty() {
                continue;
            }
            let below = match (&node.element, shape) {
                (PathElement::Field(name), Some(Shape::Struct(s))) => {
                    let field = s.field(name);
                    node.member |= field.is_some();
                    field.map(|f| f.ty())
                }
                (PathElement::Field(_), Some(Shape::Map(m))) => Some(m.element),
                (PathElement::Key(_), Some(Shape::List(l))) => Some(l.element),
                _ => None,
            };
            node.children.ensure_named_fields_are_members(below);
        }
    }

    pub(super) fn get(&self, element: &PathElement<'_>) -> Option<&Node<'a>> {
        self.nodes.get(self.position(element).ok()?)
    }

    /// Adds a node; quick if it comes behind all others. Empty ones are left out.
    pub(super) fn push(&mut self, node: Node<'a>) {
        if !node.member && node.children.is_empty() {
            return;
        }
        if self.nodes.last().is_none_or(|last| last.element < node.element) {
            self.nodes.push(node);
            return;
        }
        match self.position(&node.element) {
            Ok(at) => {
                if let Some(mine) = self.nodes.get_mut(at) {
                    mine.member |= node.member;
                    mine.children.union(&node.children);
                }
            }
            Err(at) => self.nodes.insert(at, node),
        }
    }

    fn node(&mut self, element: PathElement<'a>) -> &mut Node<'a> {
        let at = match self.position(&element) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node { element, member: false, children: Set::default() });
                at
            }
        };
        #[expect(clippy::indexing_slicing, reason = "found or inserted at that place just now")]
        &mut self.nodes[at]
    }

    fn position(&self, element: &PathElement<'_>) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| n.element.cmp(element))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::types::Types;

    #[test]
    fn fields_v1_is_read_and_written() {
        let json = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:type": {}},
            "f:finalizers": {"v:\"a\"": {}},
        });
        let set = Set::from_json(&json);
        assert_eq!(set.to_json(), json);
        let shown: Vec<String> = set.paths().iter().map(Path::to_string).collect();
        assert_eq!(
            shown,
            [
                r#".finalizers[="a"]"#,
                ".metadata.labels",
                ".metadata.labels.app",
                r#".spec.ports[port=80,protocol="TCP"]"#,
                r#".spec.ports[port=80,protocol="TCP"].port"#,
                ".spec.type",
            ]
        );
        assert!(set.contains(&["metadata", "labels"].map(PathElement::field)));
        assert!(!set.contains(&["metadata"].map(PathElement::field)));
        assert!(Set::from_json(&json!({"x:": {}, "f:a": 1})).contains(&[PathElement::field("a")]));
    }

    #[test]
    fn named_fields_become_members() {
        let pod = Types::builtin().kind("", "v1", "Pod").unwrap();
        let json = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}}});
        let mut set = Set::from_json(&json);
        set.ensure_named_fields_are_members(Some(pod));
        assert_eq!(
            set.to_json(),
            json!({
                "f:metadata": {".": {}, "f:labels": {".": {}, "f:a": {}}},
                "f:spec": {".": {}, "f:containers": {".": {}, "k:{\"name\":\"a\"}": {"f:image": {}}}},
            })
        );
    }

    fn sets() -> impl Strategy<Value = Set<'static>> {
        let element = prop_oneof![
            "[a-c]".prop_map(|n| PathElement::Field(n.into())),
            "[a-b]".prop_map(|n| PathElement::Value(format!("\"{n}\"").into())),
        ];
        prop::collection::vec(prop::collection::vec(element, 1..4), 0..8).prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|p| set.insert(p));
            set
        })
    }

    fn union(a: &Set<'static>, b: &Set<'static>) -> Set<'static> {
        let mut a = a.clone();
        a.union(b);
        a
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn algebra(a in sets(), b in sets(), c in sets()) {
            prop_assert_eq!(union(&a, &b), union(&b, &a));
            prop_assert_eq!(union(&union(&a, &b), &c), union(&a, &union(&b, &c)));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(union(&a, &a), a.clone());
            prop_assert_eq!(a.intersection(&a), a.clone());
            prop_assert!(a.difference(&a).is_empty());
            prop_assert_eq!(union(&a.difference(&b), &a.intersection(&b)), a.clone());
            prop_assert_eq!(a.difference(&union(&b, &c)), a.difference(&b).difference(&c));
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(union(&a, &b), {
                let mut paths = Set::default();
                for path in a.paths().into_iter().chain(b.paths()) { paths.insert(&path.0); }
                paths
            });
            let json = a.to_json();
            prop_assert_eq!(&Set::from_json(&json), &a);
            let mut recursive = a.clone();
            recursive.subtract_with_children(&b);
            prop_assert!(recursive.difference(&a.difference(&b)).is_empty());
        }

        #[test]
        fn subtracting_says_whether_it_did(a in sets(), b in sets()) {
            let mut rest = a.clone();
            prop_assert_eq!(rest.subtract(&b), rest != a);
        }
    }
}
