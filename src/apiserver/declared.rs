//! Types of variables that expressions in configuration files see: objects whose fields are listed.

use std::sync::Arc;

use cel::{Decl, ObjectType, Type};

/// An object with its fields.
pub struct Declared {
    name: &'static str,
    fields: &'static [(&'static str, Field)],
}

pub enum Field {
    Text,
    Texts,
    /// Lists of texts by name.
    TextsByName,
    Object(fn() -> Decl),
    Objects(fn() -> Decl),
}

impl Declared {
    pub fn decl(name: &'static str, fields: &'static [(&'static str, Field)]) -> Decl {
        Decl::Object(Arc::new(Declared { name, fields }))
    }
}

impl ObjectType for Declared {
    fn name(&self) -> &str {
        self.name
    }

    fn field(&self, name: &str) -> Option<Decl> {
        let (_, field) = self.fields.iter().find(|(known, _)| *known == name)?;
        Some(match field {
            Field::Text => Decl::Plain(Type::String),
            Field::Texts => Decl::Plain(Type::list(Type::String)),
            Field::TextsByName => Decl::Plain(Type::map(Type::String, Type::list(Type::String))),
            Field::Object(decl) => decl(),
            Field::Objects(decl) => Decl::Plain(Type::list(decl().ty())),
        })
    }
}
