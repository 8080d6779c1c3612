//! Overloads as the tables of functions write them.

use std::sync::Arc;

use crate::types::{self, Type};

#[derive(Clone, Debug)]
pub struct Overload {
    /// Called on a target, which is the first parameter.
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
}

/// Type parameters are `A` and `B`.
pub const TYPE_PARAMETERS: u32 = 2;

const NAMES: [(&str, Type); 12] = [
    ("dyn", Type::Dyn),
    ("null", Type::Null),
    ("bool", Type::Bool),
    ("int", Type::Int),
    ("uint", Type::Uint),
    ("double", Type::Double),
    ("string", Type::String),
    ("bytes", Type::Bytes),
    ("timestamp", Type::Timestamp),
    ("duration", Type::Duration),
    ("A", Type::Param(0)),
    ("B", Type::Param(1)),
];

const OPAQUE: [&str; 11] = [
    types::URL,
    types::IP,
    types::CIDR,
    types::QUANTITY,
    types::SEMVER,
    types::FORMAT,
    types::AUTHORIZER,
    types::PATH_CHECK,
    types::GROUP_CHECK,
    types::RESOURCE_CHECK,
    types::DECISION,
];

/// Overloads from `string.(int) -> string; (A) -> bool`. The tables are this crate's; a unit test reads all of them.
pub fn parse(text: &str) -> Vec<Overload> {
    text.split(';').filter_map(one).collect()
}

fn one(text: &str) -> Option<Overload> {
    let (call, result) = text.split_once("->")?;
    let (target, args) = match call.trim().strip_prefix('(') {
        Some(args) => (None, args),
        None => {
            let (target, args) = call.trim().split_once(".(")?;
            (Some(read(target)?), args)
        }
    };
    let member = target.is_some();
    let mut params: Vec<Type> = target.into_iter().collect();
    for arg in split(args.trim_end().strip_suffix(')')?) {
        params.push(read(arg)?);
    }
    Some(Overload { member, params, result: read(result)? })
}

fn read(text: &str) -> Option<Type> {
    let text = text.trim();
    if let Some((_, ty)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Some(ty.clone());
    }
    if let Some(name) = OPAQUE.iter().find(|name| **name == text) {
        return Some(Type::opaque(name));
    }
    let (name, inner) = text.strip_suffix(')')?.split_once('(')?;
    let mut of = split(inner).into_iter().map(read);
    let first = of.next()??;
    Some(match name {
        "list" => Type::list(first),
        "map" => Type::map(first, of.next()??),
        "type" => Type::Type(Some(Arc::new(first))),
        types::OPTIONAL => Type::optional(first),
        _ => return None,
    })
}

/// At commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (index, found) in text.char_indices() {
        match found {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_whole() {
        let found = parse("map(A, list(B)).(string, A) -> optional_type(B); () -> kubernetes.URL");
        assert_eq!(found.len(), 2);
        assert!(found[0].member);
        assert_eq!(
            format!("{:?} {:?}", found[0].params, found[0].result),
            "[map(_var0, list(_var1)), string, _var0] optional_type(_var1)"
        );
        assert!(!found[1].member && found[1].params.is_empty());
    }
}
