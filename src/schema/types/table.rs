//! Reads the text form of a table.
//!
//! One definition begins at the start of a line, its fields follow, each on a line that begins with a tab;
//! `#` begins a comment line.
//!
//! ```text
//! io.k8s.api.core.v1.Pod @/v1/Pod
//!     spec io.k8s.api.core.v1.PodSpec = {}
//! io.k8s.api.core.v1.PodSpec
//!     containers! [map:name]io.k8s.api.core.v1.Container patch=merge key=name
//! io.k8s.apimachinery.pkg.apis.meta.v1.Time := date-time
//! ```
//!
//! Behind a definition's name: `@group/version/Kind`, `@*` (a kind in every group-version), `map=` its map
//! type, `union=discriminator:members`. Or `:=` and what it is another name for. A field: its name, `!` if
//! it is required, its type, `#` and its number in protobuf, `patch=` strategy, `key=` merge key, ` = ` default as
//! JSON. The number is a path where the field stands in an inlined message (`#2.1`); behind it `*` for a pointer in Go
//! and `~` for a list that protobuf wraps in a message; then `+` where a zero value is written although the field is
//! neither required nor a struct, and `-` where it is omitted although it is. A type: a scalar's name, `object`, `any`, a definition (with `<map type>` before it where that is declared at the place of
//! use), `[list type:keys]element`, `{map type}element`.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::{Body, Definition, Field, ListKind, MapKind, Node, Number, Run, Scalar, Span, Types, Union};

/// How deep lists and maps may nest in one type.
const NESTING_MAX: usize = 8;

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the type table: {reason}")]
pub struct TableError {
    pub line: usize,
    pub reason: &'static str,
}

pub(super) fn parse(text: Cow<'static, str>) -> Result<Types, TableError> {
    let mut reader = Reader { text: &text, types: Types::default(), indices: HashMap::new(), plain: HashMap::new() };
    reader.name_definitions()?;
    reader.read()?;
    let mut types = reader.types;
    types.text = text;
    let mut kinds = std::mem::take(&mut types.kinds);
    kinds.sort_by(|a, b| {
        (types.str(a.0), types.str(a.1), types.str(a.2)).cmp(&(types.str(b.0), types.str(b.1), types.str(b.2)))
    });
    types.kinds = kinds;
    types.sort_by_number();
    types.definitions.shrink_to_fit();
    types.fields.shrink_to_fit();
    types.nodes.shrink_to_fit();
    Ok(types)
}

struct Reader<'a> {
    text: &'a str,
    types: Types,
    /// Definition by name; its index is that in the sorted vector.
    indices: HashMap<&'a str, u16>,
    /// Nodes without a list's keys, by their text, so that equal types share one.
    plain: HashMap<&'a str, u16>,
}

type Read<T> = Result<T, &'static str>;

impl<'a> Reader<'a> {
    /// Finds all definitions first, because they refer to one another.
    fn name_definitions(&mut self) -> Result<(), TableError> {
        let mut names: Vec<&'a str> = self
            .text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with(['\t', '#']))
            .filter_map(|l| l.split(' ').next())
            .collect();
        names.sort_unstable();
        for name in names {
            let error = |reason| TableError { line: 0, reason };
            let at = u16::try_from(self.types.definitions.len()).map_err(|_| error("too many definitions"))?;
            if self.indices.insert(name, at).is_some() {
                return Err(error("a definition occurs twice"));
            }
            let node = self.node(Node::Ref { definition: at, kind: None }).map_err(error)?;
            let name = self.span(name).map_err(error)?;
            let body = Body::Struct(Run::default());
            self.types.definitions.push(Definition {
                name,
                body,
                node,
                kind: None,
                in_every_group: false,
                open: false,
            });
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), TableError> {
        let mut current = None;
        for (at, line) in self.text.lines().enumerate() {
            let error = |reason| TableError { line: at + 1, reason };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(field) = line.strip_prefix('\t') {
                let definition = current.ok_or(error("a field outside a definition"))?;
                self.field(definition, field).map_err(error)?;
            } else {
                current = Some(self.definition(line).map_err(error)?);
            }
        }
        Ok(())
    }

    fn definition(&mut self, line: &'a str) -> Read<u16> {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let index = *self.indices.get(name).ok_or("unknown definition")?;
        let start = u16::try_from(self.types.fields.len()).map_err(|_| "too many fields")?;
        let mut body = Body::Struct(Run { start, len: 0 });
        let mut map_kind = None;
        let mut in_every_group = false;
        while let Some(word) = words.next() {
            if word == ":=" {
                body = Body::Alias(self.ty(words.next().ok_or("a type is missing")?, 0)?);
            } else if word == "@*" {
                in_every_group = true;
            } else if let Some(kind) = word.strip_prefix('@') {
                let mut parts = kind.splitn(3, '/');
                let (Some(group), Some(version), Some(kind)) = (parts.next(), parts.next(), parts.next()) else {
                    return Err("a kind is group/version/Kind");
                };
                let entry = (self.span(group)?, self.span(version)?, self.span(kind)?, index);
                self.types.kinds.push(entry);
            } else if let Some(kind) = word.strip_prefix("map=") {
                map_kind = Some(map_kind_of(kind)?);
            } else if let Some(union) = word.strip_prefix("union=") {
                let (discriminator, members) = union.split_once(':').ok_or("a union is discriminator:members")?;
                let union = Union { discriminator: self.span(discriminator)?, members: self.names(members)? };
                self.types.unions.push((index, union));
            } else {
                return Err("unknown word behind a definition");
            }
        }
        let definition = self.types.definitions.get_mut(usize::from(index)).ok_or("unknown definition")?;
        definition.body = body;
        definition.kind = map_kind;
        definition.in_every_group = in_every_group;
        Ok(index)
    }

    fn field(&mut self, definition: u16, line: &'a str) -> Read<()> {
        let (line, default) = match line.split_once(" = ") {
            Some((line, json)) => {
                let value: Value = serde_json::from_str(json).map_err(|_| "a default is not JSON")?;
                (line, Some(self.default(value)?))
            }
            None => (line, None),
        };
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let (name, required) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
        let node = self.ty(words.next().ok_or("a field's type is missing")?, 0)?;
        let mut field = Field {
            name: self.span(name)?,
            node,
            default,
            number: Number::NONE,
            pointer: false,
            wrapped: false,
            kept: required,
            required,
            string_list_type: false,
            patch_strategy: None,
            merge_key: None,
        };
        for word in words {
            if let Some(number) = word.strip_prefix('#') {
                let (number, kept) = match (number.strip_suffix('+'), number.strip_suffix('-')) {
                    (Some(number), _) => (number, Some(true)),
                    (None, Some(number)) => (number, Some(false)),
                    (None, None) => (number, None),
                };
                field.pointer = number.ends_with('*');
                field.wrapped = number.ends_with('~');
                field.kept = kept.unwrap_or(required || (!field.pointer && self.is_reference(node)));
                field.number = Number::parse(number.trim_end_matches(['*', '~'])).ok_or("a number cannot be read")?;
                continue;
            }
            match word.split_once('=') {
                Some(("patch", strategy)) => field.patch_strategy = Some(self.span(strategy)?),
                Some(("key", key)) => field.merge_key = Some(self.span(key)?),
                Some(("string-list-type", "atomic")) => field.string_list_type = true,
                _ => return Err("unknown word behind a field"),
            }
        }
        let definition = self.types.definitions.get_mut(usize::from(definition)).ok_or("unknown definition")?;
        let Body::Struct(run) = &mut definition.body else { return Err("an alias has no fields") };
        run.len += 1;
        let previous = run.range().nth_back(1).and_then(|at| self.types.fields.get(at));
        if previous.is_some_and(|p| self.text.get(p.name.range()) >= Some(name)) {
            return Err("fields are not sorted");
        }
        self.types.fields.push(field);
        Ok(())
    }

    fn is_reference(&self, node: u16) -> bool {
        matches!(self.types.nodes.get(usize::from(node)), Some(Node::Ref { .. }))
    }

    fn ty(&mut self, text: &'a str, depth: usize) -> Read<u16> {
        if let Some(node) = self.plain.get(text) {
            return Ok(*node);
        }
        if depth > NESTING_MAX {
            return Err("a type is nested too deeply");
        }
        let node = if let Some(rest) = text.strip_prefix('[') {
            let (list, element) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let (kind, keys) = list.split_once(':').unwrap_or((list, ""));
            let kind = match kind {
                "" => ListKind::Undeclared,
                "atomic" => ListKind::Atomic,
                "set" => ListKind::Set,
                "map" => ListKind::Map,
                _ => return Err("unknown list type"),
            };
            Node::List { element: self.ty(element, depth + 1)?, kind, keys: self.names(keys)? }
        } else if let Some(rest) = text.strip_prefix('{') {
            let (kind, element) = rest.split_once('}').ok_or("a brace is not closed")?;
            let kind = if kind.is_empty() { None } else { Some(map_kind_of(kind)?) };
            Node::Map { element: self.ty(element, depth + 1)?, kind }
        } else if let Some(rest) = text.strip_prefix('<') {
            let (kind, name) = rest.split_once('>').ok_or("an angle bracket is not closed")?;
            Node::Ref { definition: *self.indices.get(name).ok_or("unknown type")?, kind: Some(map_kind_of(kind)?) }
        } else if let Some(definition) = self.indices.get(text) {
            let definition = self.types.definitions.get(usize::from(*definition)).ok_or("unknown type")?;
            return Ok(definition.node);
        } else {
            match text {
                "string" => Node::Scalar(Scalar::String),
                "byte" => Node::Scalar(Scalar::Byte),
                "date-time" => Node::Scalar(Scalar::DateTime),
                "int32" => Node::Scalar(Scalar::Int32),
                "int64" => Node::Scalar(Scalar::Int64),
                "integer" => Node::Scalar(Scalar::Integer),
                "double" => Node::Scalar(Scalar::Double),
                "number" => Node::Scalar(Scalar::Number),
                "boolean" => Node::Scalar(Scalar::Boolean),
                "int-or-string" => Node::Scalar(Scalar::IntOrString),
                "quantity" => Node::Scalar(Scalar::Quantity),
                "object" => Node::Object,
                "any" => Node::Any,
                _ => return Err("unknown type"),
            }
        };
        let node = self.node(node)?;
        self.plain.insert(text, node);
        Ok(node)
    }

    fn node(&mut self, node: Node) -> Read<u16> {
        let at = u16::try_from(self.types.nodes.len()).map_err(|_| "too many types")?;
        self.types.nodes.push(node);
        Ok(at)
    }

    fn names(&mut self, list: &'a str) -> Read<Run> {
        let start = u16::try_from(self.types.names.len()).map_err(|_| "too many names")?;
        let mut len = 0;
        for name in list.split(',').filter(|n| !n.is_empty()) {
            let span = self.span(name)?;
            self.types.names.push(span);
            len += 1;
        }
        Ok(Run { start, len })
    }

    fn default(&mut self, value: Value) -> Read<u16> {
        let at = self.types.defaults.iter().position(|d| *d == value).unwrap_or_else(|| {
            self.types.defaults.push(value);
            self.types.defaults.len() - 1
        });
        u16::try_from(at).map_err(|_| "too many defaults")
    }

    /// Where in the text a piece of it stands.
    fn span(&self, piece: &'a str) -> Read<Span> {
        let start = (piece.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        debug_assert!(start + piece.len() <= self.text.len(), "a piece of this text");
        Ok(Span {
            start: u32::try_from(start).map_err(|_| "the table is too large")?,
            len: u16::try_from(piece.len()).map_err(|_| "a name is too long")?,
        })
    }
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.len)
    }
}

fn map_kind_of(text: &str) -> Read<MapKind> {
    match text {
        "atomic" => Ok(MapKind::Atomic),
        "granular" => Ok(MapKind::Granular),
        _ => Err("unknown map type"),
    }
}
