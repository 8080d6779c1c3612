//! `x-kubernetes-validations`: rules in Kubernetes' expression language (`apiserver/schema/cel`).
//!
//! A rule sees its value as `self` and, where that can be told, the older one as `oldSelf`. Rules of values that are
//! not there, or null, do not run. On an update, a failure that does not speak of `oldSelf` is let pass where the value
//! is what it was. Work is bounded for each rule and for each object.
//!
//! | module | what |
//! |---|---|
//! | [`declared`] | types and sizes of values, as expressions know them |
//! | [`compile`] | rules as programs |
//! | [`check`] | evaluation |

mod check;
mod compile;
mod declared;

use std::collections::BTreeMap;

use cel::Decl;
use schema::structural::{Rule, Structural};

pub use compile::{Compiled, Expression, compile};
pub use declared::Declared;

/// The rules of a schema, compiled, with those of all below it.
pub struct Rules {
    decl: Decl,
    rules: Vec<(Rule, Compiled)>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    fields: BTreeMap<String, Rules>,
}

impl Rules {
    /// None where there are none. `is_resource` as for [`Declared::new`].
    pub fn new(schema: &Structural, is_resource: bool) -> Option<Rules> {
        let has_rules = |schema: &Structural| !schema.rules.is_empty();
        if !schema.any(&mut { has_rules }) {
            return None;
        }
        Rules::of(schema, &Declared::new(schema, is_resource))
    }

    fn of(schema: &Structural, declared: &Declared) -> Option<Rules> {
        let decl = declared.decl.clone()?;
        let boxed = |schema: Option<&Structural>, declared: &Option<Box<Declared>>| {
            Rules::of(schema?, declared.as_deref()?).map(Box::new)
        };
        let field = |(name, schema): (&String, &Structural)| {
            Some((name.clone(), Rules::of(schema, declared.fields.get(name)?)?))
        };
        let rules = Rules {
            rules: schema.rules.iter().cloned().zip(compile(schema, &decl)).collect(),
            items: boxed(schema.items.as_deref(), &declared.items),
            additional: boxed(schema.additional_schema(), &declared.additional),
            fields: schema.properties.iter().filter_map(field).collect(),
            decl,
        };
        let empty =
            rules.rules.is_empty() && rules.items.is_none() && rules.additional.is_none() && rules.fields.is_empty();
        (!empty).then_some(rules)
    }
}

#[cfg(test)]
mod tests;
