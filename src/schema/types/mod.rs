//! Facts about types, in a form that can be walked.
//!
//! [`Types`] is an arena of definitions; [`TypeRef`] is a handle into one, two words wide. The built-in
//! table is parsed once, at first use (about a millisecond and 200 KB); names are never copied out of the
//! text. Tables for schemas that appear at run time (custom resources) are put together with a [`Builder`];
//! everything in this crate walks them through the same handle.
//!
//! Limitation: a table is closed. A run-time table carries its own copy of the definitions that it refers
//! to, `ObjectMeta` for instance.

mod build;
mod table;
mod wire;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;

pub use build::{Builder, NewField, Part, TooLarge};
pub use table::TableError;
pub use wire::{Number, WireFields};

static BUILTIN: LazyLock<Types> = LazyLock::new(|| {
    // The text is ours and `builtin_table_is_sound` reads it in every test run.
    let types = Types::parse(include_str!("../../../embedded/types.txt")).unwrap_or_default();
    Types { zero_when_absent: true, ..types }
});

/// A closed set of definitions.
#[derive(Default)]
pub struct Types {
    text: Cow<'static, str>,
    /// Sorted by name.
    definitions: Vec<Definition>,
    fields: Vec<Field>,
    /// Indices of fields, within each struct's run in the order of their protobuf numbers.
    by_number: Vec<u16>,
    nodes: Vec<Node>,
    /// Names of list keys and of union members, referred to by runs.
    names: Vec<Span>,
    unions: Vec<(u16, Union)>,
    /// Group, version and kind of definitions that are kinds, sorted.
    kinds: Vec<(Span, Span, Span, u16)>,
    defaults: Vec<Value>,
    /// Whether values are Go structs upstream, so that a field that is absent may stand for its zero value.
    zero_when_absent: bool,
}

/// A type, as it is used in some place. Two words, `Copy`.
#[derive(Clone, Copy)]
pub struct TypeRef<'t> {
    types: &'t Types,
    node: u16,
}

/// What a type is made of, with references resolved.
#[derive(Clone, Copy)]
pub enum Shape<'t> {
    Scalar(Scalar),
    List(ListType<'t>),
    Map(MapType<'t>),
    Struct(StructType<'t>),
    /// An object with free fields. Built-in ones (`RawExtension`, `FieldsV1`) are owned as a whole; in those of schemas
    /// that come at run time ownership goes into objects, and lists are atomic.
    Object,
    /// Any JSON at all (`JSON` in CustomResourceDefinitions). Owned as a whole.
    Any,
}

/// Leaf types. `Time` and `MicroTime` are both `DateTime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    /// base64 in a string
    Byte,
    DateTime,
    Int32,
    Int64,
    /// An integer without a declared width.
    Integer,
    Double,
    Number,
    Boolean,
    IntOrString,
    Quantity,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Not declared; owned as a whole, as `Atomic`.
    Undeclared,
    Atomic,
    Set,
    Map,
}

#[derive(Clone, Copy)]
pub struct ListType<'t> {
    pub element: TypeRef<'t>,
    pub kind: ListKind,
    keys: &'t [Span],
}

#[derive(Clone, Copy)]
pub struct MapType<'t> {
    pub element: TypeRef<'t>,
    /// `x-kubernetes-map-type`, where declared.
    pub kind: Option<MapKind>,
}

/// `x-kubernetes-map-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    Atomic,
    Granular,
}

/// A definition with named fields.
#[derive(Clone, Copy)]
pub struct StructType<'t> {
    types: &'t Types,
    definition: u16,
    /// As declared at the place of use, which goes before the definition's own.
    kind_here: Option<MapKind>,
}

/// A field of a struct.
#[derive(Clone, Copy)]
pub struct FieldRef<'t> {
    types: &'t Types,
    field: &'t Field,
}

/// A discriminated union among a struct's fields (`x-kubernetes-unions`).
#[derive(Clone, Copy)]
pub struct UnionRef<'t> {
    types: &'t Types,
    union: &'t Union,
}

impl Types {
    /// The types of Kubernetes v1.36, of all group-versions.
    pub fn builtin() -> &'static Types {
        &BUILTIN
    }

    /// Parses a table in the form that `embedded/types.txt` has.
    pub fn parse(text: impl Into<Cow<'static, str>>) -> Result<Types, TableError> {
        table::parse(text.into())
    }

    /// The type of a kind. The core group is the empty string.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeRef<'_>> {
        let at = self
            .kinds
            .binary_search_by(|(g, v, k, _)| (self.str(*g), self.str(*v), self.str(*k)).cmp(&(group, version, kind)))
            .ok()?;
        let (.., definition) = self.kinds.get(at)?;
        self.definition_ref(*definition)
    }

    /// The type of an `apiVersion` (`v1`, `apps/v1`) and kind.
    pub fn api_version_kind(&self, api_version: &str, kind: &str) -> Option<TypeRef<'_>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kind(group, version, kind)
    }

    /// The type with a definition's name, `io.k8s.api.core.v1.Pod` for instance.
    pub fn named(&self, name: &str) -> Option<TypeRef<'_>> {
        let at = self.definitions.binary_search_by(|d| self.str(d.name).cmp(name)).ok()?;
        self.definition_ref(u16::try_from(at).ok()?)
    }

    /// All definitions in the order of their names.
    pub fn definitions(&self) -> impl Iterator<Item = (&str, TypeRef<'_>)> {
        self.definitions.iter().map(|d| (self.str(d.name), TypeRef { types: self, node: d.node }))
    }

    /// All kinds as group, version, kind, in this order.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, &str, TypeRef<'_>)> {
        self.kinds.iter().filter_map(|(group, version, kind, definition)| {
            Some((self.str(*group), self.str(*version), self.str(*kind), self.definition_ref(*definition)?))
        })
    }

    /// The kinds that a definition is, as group, version, kind.
    pub fn kinds_of<'t>(&'t self, definition: &str) -> impl Iterator<Item = (&'t str, &'t str, &'t str)> {
        let at = self.definitions.binary_search_by(|d| self.str(d.name).cmp(definition)).ok();
        self.kinds
            .iter()
            .filter(move |(.., of)| Some(usize::from(*of)) == at)
            .map(|(g, v, k, _)| (self.str(*g), self.str(*v), self.str(*k)))
    }

    /// Whether the types are Go structs upstream: fields that are not omitted when empty are then always
    /// there, and empty lists and maps of other fields never.
    pub fn zero_when_absent(&self) -> bool {
        self.zero_when_absent
    }

    fn definition_ref(&self, definition: u16) -> Option<TypeRef<'_>> {
        Some(TypeRef { types: self, node: self.definitions.get(usize::from(definition))?.node })
    }

    fn str(&self, span: Span) -> &str {
        let start = span.start as usize;
        self.text.get(start..start + usize::from(span.len)).unwrap_or_default()
    }
}

impl<'t> TypeRef<'t> {
    /// What the type is made of.
    pub fn shape(self) -> Shape<'t> {
        let mut node = self.node;
        let mut kind_here = None;
        // A reference leads to a struct or to an alias, and an alias to something else than a reference.
        for _ in 0..4 {
            match self.types.nodes.get(usize::from(node)) {
                Some(Node::Scalar(scalar)) => return Shape::Scalar(*scalar),
                Some(Node::List { element, kind, keys }) => {
                    return Shape::List(ListType {
                        element: self.at(*element),
                        kind: *kind,
                        keys: self.types.names.get(keys.range()).unwrap_or_default(),
                    });
                }
                Some(Node::Map { element, kind }) => {
                    return Shape::Map(MapType { element: self.at(*element), kind: *kind });
                }
                Some(Node::Object) => return Shape::Object,
                Some(Node::Any) | None => return Shape::Any,
                Some(Node::Ref { definition, kind }) => {
                    kind_here = kind_here.or(*kind);
                    match self.types.definitions.get(usize::from(*definition)).map(|d| d.body) {
                        Some(Body::Alias(to)) => node = to,
                        Some(Body::Struct(_)) => {
                            return Shape::Struct(StructType { types: self.types, definition: *definition, kind_here });
                        }
                        None => return Shape::Any,
                    }
                }
            }
        }
        Shape::Any
    }

    /// The struct that this type is, if it is one.
    pub fn as_struct(self) -> Option<StructType<'t>> {
        if let Shape::Struct(s) = self.shape() { Some(s) } else { None }
    }

    /// The type of a field: a struct's declared one, or any key of a map.
    pub fn field(self, name: &str) -> Option<TypeRef<'t>> {
        match self.shape() {
            Shape::Struct(s) => s.field(name).map(FieldRef::ty),
            Shape::Map(m) => Some(m.element),
            Shape::Scalar(_) | Shape::List(_) | Shape::Object | Shape::Any => None,
        }
    }

    /// The type at a path of fields; lists are passed through to their elements.
    pub fn path(self, path: &[&str]) -> Option<TypeRef<'t>> {
        path.iter().try_fold(self, |ty, name| {
            let mut ty = ty;
            while let Shape::List(list) = ty.shape() {
                ty = list.element;
            }
            ty.field(name)
        })
    }

    /// The type of a list's or map's elements.
    pub fn element(self) -> Option<TypeRef<'t>> {
        match self.shape() {
            Shape::List(l) => Some(l.element),
            Shape::Map(m) => Some(m.element),
            Shape::Scalar(_) | Shape::Struct(_) | Shape::Object | Shape::Any => None,
        }
    }

    pub fn list_kind(self) -> Option<ListKind> {
        if let Shape::List(l) = self.shape() { Some(l.kind) } else { None }
    }

    /// The name of the definition that this is a reference to, `io.k8s.api.core.v1.PodSpec` for instance.
    pub fn definition_name(self) -> Option<&'t str> {
        match self.types.nodes.get(usize::from(self.node)) {
            Some(Node::Ref { definition, .. }) => {
                self.types.definitions.get(usize::from(*definition)).map(|d| self.types.str(d.name))
            }
            _ => None,
        }
    }

    /// `x-kubernetes-map-type` declared at this place of use of a definition.
    pub fn map_kind_here(self) -> Option<MapKind> {
        match self.types.nodes.get(usize::from(self.node)) {
            Some(Node::Ref { kind, .. }) => *kind,
            _ => None,
        }
    }

    /// The table that the type is of.
    pub fn types(self) -> &'t Types {
        self.types
    }

    fn at(self, node: u16) -> TypeRef<'t> {
        TypeRef { types: self.types, node }
    }
}

impl<'t> ListType<'t> {
    /// Names of the fields that identify an element of a `Map` list.
    pub fn keys(self) -> impl ExactSizeIterator<Item = &'t str> + Clone {
        let types = self.element.types;
        self.keys.iter().map(move |span| types.str(*span))
    }

    /// Whether elements have owners of their own.
    pub fn is_associative(self) -> bool {
        matches!(self.kind, ListKind::Set | ListKind::Map)
    }
}

impl MapType<'_> {
    pub fn is_atomic(self) -> bool {
        self.kind == Some(MapKind::Atomic)
    }
}

impl<'t> StructType<'t> {
    /// The definition's name.
    pub fn name(self) -> &'t str {
        self.definition().map(|d| self.types.str(d.name)).unwrap_or_default()
    }

    /// The name of the Go type: what is behind the last dot.
    pub fn short_name(self) -> &'t str {
        let name = self.name();
        name.rsplit_once('.').map_or(name, |(_, short)| short)
    }

    pub fn field(self, name: &str) -> Option<FieldRef<'t>> {
        let fields = self.field_slice();
        let at = fields.binary_search_by(|f| self.types.str(f.name).cmp(name)).ok()?;
        Some(FieldRef { types: self.types, field: fields.get(at)? })
    }

    /// The fields, sorted by name.
    pub fn fields(self) -> impl ExactSizeIterator<Item = FieldRef<'t>> + Clone {
        let types = self.types;
        self.field_slice().iter().map(move |field| FieldRef { types, field })
    }

    /// Whether the struct is owned as a whole.
    pub fn is_atomic(self) -> bool {
        self.kind() == Some(MapKind::Atomic)
    }

    /// `x-kubernetes-map-type` that holds here.
    pub fn kind(self) -> Option<MapKind> {
        self.kind_here.or(self.kind_of_definition())
    }

    /// `x-kubernetes-map-type` of the definition itself.
    pub fn kind_of_definition(self) -> Option<MapKind> {
        self.definition().and_then(|d| d.kind)
    }

    /// Whether the definition is a kind in every group-version (`DeleteOptions`, `WatchEvent`).
    pub fn is_in_every_group(self) -> bool {
        self.definition().is_some_and(|d| d.in_every_group)
    }

    /// Whether fields that are not declared are kept, and owned as they are.
    pub fn is_open(self) -> bool {
        self.definition().is_some_and(|d| d.open)
    }

    pub fn unions(self) -> impl Iterator<Item = UnionRef<'t>> {
        let types = self.types;
        types
            .unions
            .iter()
            .filter(move |(of, _)| *of == self.definition)
            .map(move |(_, union)| UnionRef { types, union })
    }

    fn definition(self) -> Option<&'t Definition> {
        self.types.definitions.get(usize::from(self.definition))
    }

    fn field_slice(self) -> &'t [Field] {
        match self.definition().map(|d| d.body) {
            Some(Body::Struct(run)) => self.types.fields.get(run.range()).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl<'t> FieldRef<'t> {
    pub fn name(self) -> &'t str {
        self.types.str(self.field.name)
    }

    pub fn ty(self) -> TypeRef<'t> {
        TypeRef { types: self.types, node: self.field.node }
    }

    pub fn required(self) -> bool {
        self.field.required
    }

    /// Whether Go writes the field's zero value. Pointers have none but null.
    pub fn kept_when_zero(self) -> bool {
        self.field.kept
    }

    pub fn default(self) -> Option<&'t Value> {
        self.types.defaults.get(usize::from(self.field.default?))
    }

    /// `x-kubernetes-patch-strategy` as it is written: `merge`, `replace`, `retainKeys`, `merge,retainKeys`.
    pub fn patch_strategy(self) -> &'t str {
        self.field.patch_strategy.map_or("", |s| self.types.str(s))
    }

    /// Whether a strategic merge patch merges this list element by element.
    pub fn patch_merges(self) -> bool {
        self.patch_strategy().split(',').any(|s| s == "merge")
    }

    /// `x-kubernetes-patch-merge-key`
    pub fn merge_key(self) -> Option<&'t str> {
        self.field.merge_key.map(|s| self.types.str(s))
    }

    /// Whether the declaration has a list type although the JSON is a string (a `[]byte` in Go).
    pub fn string_with_list_type(self) -> bool {
        self.field.string_list_type
    }
}

impl<'t> UnionRef<'t> {
    /// The field that says which member is set; empty where there is none.
    pub fn discriminator(self) -> &'t str {
        self.types.str(self.union.discriminator)
    }

    pub fn members(self) -> impl Iterator<Item = &'t str> {
        let types = self.types;
        types.names.get(self.union.members.range()).unwrap_or_default().iter().map(move |s| types.str(*s))
    }
}

/// A piece of the table's text.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u16,
}

/// A run of items in one of the arena's vectors.
#[derive(Clone, Copy, Default)]
struct Run {
    start: u16,
    len: u16,
}

struct Definition {
    name: Span,
    body: Body,
    /// The node that is a plain reference to this definition.
    node: u16,
    kind: Option<MapKind>,
    in_every_group: bool,
    open: bool,
}

#[derive(Clone, Copy)]
enum Body {
    /// Sorted by name.
    Struct(Run),
    Alias(u16),
}

struct Field {
    name: Span,
    node: u16,
    default: Option<u16>,
    number: Number,
    /// A pointer in Go: its zero value is not the same as its absence.
    pointer: bool,
    /// Stands in protobuf as a message that has the list as its field 1.
    wrapped: bool,
    /// Written also when it is zero.
    kept: bool,
    required: bool,
    string_list_type: bool,
    patch_strategy: Option<Span>,
    merge_key: Option<Span>,
}

enum Node {
    Scalar(Scalar),
    List { element: u16, kind: ListKind, keys: Run },
    Map { element: u16, kind: Option<MapKind> },
    Ref { definition: u16, kind: Option<MapKind> },
    Object,
    Any,
}

struct Union {
    discriminator: Span,
    members: Run,
}

impl Run {
    fn range(self) -> std::ops::Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_table_is_sound() {
        let types = Types::parse(include_str!("../../../embedded/types.txt")).unwrap();
        assert!(types.definitions.len() > 700);
        assert!(types.definitions.is_sorted_by_key(|d| types.str(d.name)));
        for (name, ty) in types.definitions() {
            if let Some(s) = ty.as_struct() {
                assert!(s.field_slice().is_sorted_by_key(|f| types.str(f.name)), "{name}");
            }
        }
    }

    #[test]
    fn kinds_are_found_and_walked() {
        let types = Types::builtin();
        let pod = types.kind("", "v1", "Pod").unwrap();
        assert_eq!(pod.definition_name(), Some("io.k8s.api.core.v1.Pod"));
        assert_eq!(types.kinds_of("io.k8s.api.core.v1.Pod").collect::<Vec<_>>(), [("", "v1", "Pod")]);
        let ports = pod.path(&["spec", "containers", "ports"]).unwrap();
        let Shape::List(list) = ports.shape() else { panic!("ports is a list") };
        assert_eq!(list.kind, ListKind::Map);
        assert_eq!(list.keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        let port = list.element.as_struct().unwrap();
        assert_eq!(port.field("protocol").unwrap().default(), Some(&Value::from("TCP")));
        assert!(port.field("containerPort").unwrap().required());
        assert!(port.field("nope").is_none());

        let volumes = pod.path(&["spec"]).unwrap().as_struct().unwrap().field("volumes").unwrap();
        assert_eq!(volumes.patch_strategy(), "merge,retainKeys");
        assert_eq!(volumes.merge_key(), Some("name"));
        assert!(volumes.patch_merges());

        let deployment = types.api_version_kind("apps/v1", "Deployment").unwrap();
        let selector = deployment.path(&["spec", "selector"]).unwrap().as_struct().unwrap();
        assert!(selector.is_atomic());
        let claim = types.named("io.k8s.api.core.v1.PersistentVolumeSpec").unwrap().field("claimRef").unwrap();
        assert!(!claim.as_struct().unwrap().is_atomic());
        assert!(types.kinds().any(|(g, v, k, _)| (g, v, k) == ("apps", "v1", "Deployment")));
        assert!(types.kind("", "v2", "Pod").is_none());
        assert!(types.named("io.k8s.api.core.v1.Prod").is_none());
    }

    #[test]
    fn bad_tables_are_refused_with_the_line() {
        for (text, line) in [
            ("a.B\n\tx nope\n", 2),
            ("\tx string\n", 1),
            ("a.B @x\n", 1),
            ("a.B := [\n", 1),
            ("a.B\n\tx string = {\n", 2),
        ] {
            assert_eq!(Types::parse(text).err().map(|e| e.line), Some(line), "{text:?}");
        }
    }

    #[test]
    fn run_time_tables_are_walked_alike() {
        let text = String::from(
            "x.Widget @example.com/v1/Widget\n\tparts [map:name]x.Part\nx.Part map=atomic\n\tname! string\n",
        );
        let types = Types::parse(text).unwrap();
        let parts = types.kind("example.com", "v1", "Widget").unwrap().field("parts").unwrap();
        assert_eq!(parts.list_kind(), Some(ListKind::Map));
        assert!(parts.element().unwrap().as_struct().unwrap().is_atomic());
    }
}
