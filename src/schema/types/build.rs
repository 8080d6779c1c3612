//! Puts a table together from parts, for schemas that appear at run time.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::{Body, Definition, Field, ListKind, MapKind, Node, Number, Run, Scalar, Shape, Span, TypeRef, Types};

/// A table has more definitions, fields or types than its handles can count (65,535).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the schema is too large")]
pub struct TooLarge;

/// A type that is part of the table under construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part(u16);

/// A field of a struct that is to be added.
#[derive(Debug)]
pub struct NewField<'n> {
    pub name: &'n str,
    pub ty: Part,
    pub required: bool,
    pub default: Option<&'n Value>,
}

/// A table under construction. Parts are made from the leaves up.
#[derive(Default)]
pub struct Builder {
    text: String,
    types: Types,
    /// Definitions of other tables that are in here already.
    copied: HashMap<String, Part>,
}

impl Builder {
    pub fn scalar(&mut self, scalar: Scalar) -> Result<Part, TooLarge> {
        self.node(Node::Scalar(scalar))
    }

    /// An object with free fields.
    pub fn object(&mut self) -> Result<Part, TooLarge> {
        self.node(Node::Object)
    }

    pub fn list(&mut self, element: Part, kind: ListKind, keys: &[String]) -> Result<Part, TooLarge> {
        let start = u16::try_from(self.types.names.len()).map_err(|_| TooLarge)?;
        for key in keys {
            let span = self.span(key)?;
            self.types.names.push(span);
        }
        let keys = Run { start, len: u16::try_from(keys.len()).map_err(|_| TooLarge)? };
        self.node(Node::List { element: element.0, kind, keys })
    }

    pub fn map(&mut self, element: Part, kind: Option<MapKind>) -> Result<Part, TooLarge> {
        self.node(Node::Map { element: element.0, kind })
    }

    /// A struct; if it is `open`, fields that are not declared are kept.
    pub fn structure(
        &mut self,
        mut fields: Vec<NewField<'_>>,
        kind: Option<MapKind>,
        open: bool,
    ) -> Result<Part, TooLarge> {
        fields.sort_by(|a, b| a.name.cmp(b.name));
        let start = u16::try_from(self.types.fields.len()).map_err(|_| TooLarge)?;
        let len = u16::try_from(fields.len()).map_err(|_| TooLarge)?;
        for field in fields {
            let name = self.span(field.name)?;
            let default = match field.default {
                Some(value) => Some(self.default(value)?),
                None => None,
            };
            self.types.fields.push(Field {
                name,
                node: field.ty.0,
                default,
                // What comes at run time is not written in protobuf.
                number: Number::NONE,
                pointer: false,
                wrapped: false,
                kept: field.required,
                required: field.required,
                string_list_type: false,
                patch_strategy: None,
                merge_key: None,
            });
        }
        let definition = u16::try_from(self.types.definitions.len()).map_err(|_| TooLarge)?;
        let node = self.node(Node::Ref { definition, kind: None })?;
        let body = Body::Struct(Run { start, len });
        let name = Span::default();
        self.types.definitions.push(Definition { name, body, node: node.0, kind, in_every_group: false, open });
        Ok(node)
    }

    /// A type of another table, with all that it refers to. It must not refer to itself.
    pub fn copy(&mut self, ty: TypeRef<'_>) -> Result<Part, TooLarge> {
        if let Some(part) = ty.definition_name().and_then(|name| self.copied.get(name)) {
            return Ok(*part);
        }
        let part = match ty.shape() {
            Shape::Scalar(scalar) => self.scalar(scalar)?,
            Shape::List(list) => {
                let element = self.copy(list.element)?;
                let keys: Vec<String> = list.keys().map(str::to_owned).collect();
                self.list(element, list.kind, &keys)?
            }
            Shape::Map(map) => {
                let element = self.copy(map.element)?;
                self.map(element, map.kind)?
            }
            Shape::Struct(s) => {
                let mut fields = Vec::with_capacity(s.fields().len());
                for field in s.fields() {
                    let ty = self.copy(field.ty())?;
                    let (required, default) = (field.required(), field.default());
                    fields.push(NewField { name: field.name(), ty, required, default });
                }
                self.structure(fields, s.kind(), s.is_open())?
            }
            Shape::Object => self.object()?,
            Shape::Any => self.node(Node::Any)?,
        };
        if let Some(name) = ty.definition_name() {
            self.copied.insert(name.to_owned(), part);
        }
        Ok(part)
    }

    /// The table, in which a struct is the type of a kind.
    pub fn finish(mut self, [group, version, kind]: [&str; 3], ty: Part) -> Result<Types, TooLarge> {
        let definition = match self.types.nodes.get(usize::from(ty.0)) {
            Some(Node::Ref { definition, .. }) => *definition,
            _ => return Err(TooLarge),
        };
        let names = (self.span(group)?, self.span(version)?, self.span(kind)?, definition);
        self.types.kinds.push(names);
        self.types.text = Cow::Owned(self.text);
        self.types.definitions.shrink_to_fit();
        self.types.fields.shrink_to_fit();
        self.types.nodes.shrink_to_fit();
        Ok(self.types)
    }

    fn node(&mut self, node: Node) -> Result<Part, TooLarge> {
        let at = u16::try_from(self.types.nodes.len()).map_err(|_| TooLarge)?;
        self.types.nodes.push(node);
        Ok(Part(at))
    }

    fn default(&mut self, value: &Value) -> Result<u16, TooLarge> {
        let at = self.types.defaults.iter().position(|known| known == value).unwrap_or_else(|| {
            self.types.defaults.push(value.clone());
            self.types.defaults.len() - 1
        });
        u16::try_from(at).map_err(|_| TooLarge)
    }

    fn span(&mut self, name: &str) -> Result<Span, TooLarge> {
        let start = u32::try_from(self.text.len()).map_err(|_| TooLarge)?;
        let len = u16::try_from(name.len()).map_err(|_| TooLarge)?;
        self.text.push_str(name);
        Ok(Span { start, len })
    }
}
