//! Which types fit which, and what that says about types not known yet (cel-go's `isAssignable`).

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::{OPTIONAL, Type};

/// Types nested deeper than this are `dyn` inside: loops over loops can double a type at every level.
const DEPTH_MAX: u32 = 12;

/// What the parameters stand for so far.
#[derive(Default)]
pub struct Bindings {
    known: HashMap<u32, Type>,
    /// What the attempt under way replaced.
    replaced: Vec<(u32, Option<Type>)>,
}

impl Bindings {
    /// All of these fit; nothing is learnt if one does not.
    pub fn fit_all(&mut self, given: &[Type], wanted: &[Type]) -> bool {
        self.attempt(|tried| given.len() == wanted.len() && given.iter().zip(wanted).all(|(a, b)| tried.assign(a, b)))
    }

    pub fn fit(&mut self, a: &Type, b: &Type) -> bool {
        self.attempt(|tried| tried.assign(a, b))
    }

    fn attempt(&mut self, fits: impl FnOnce(&mut Bindings) -> bool) -> bool {
        self.replaced.clear();
        let fits = fits(self);
        if !fits {
            while let Some((number, before)) = self.replaced.pop() {
                match before {
                    Some(ty) => self.known.insert(number, ty),
                    None => self.known.remove(&number),
                };
            }
        }
        fits
    }

    fn learn(&mut self, number: u32, ty: Type) {
        let before = self.known.insert(number, ty);
        self.replaced.push((number, before));
    }

    /// The type with what is known put in; what is not becomes `dyn` if so wished.
    pub fn resolve(&self, ty: &Type, free_to_dyn: bool) -> Type {
        self.resolve_within(ty, free_to_dyn, DEPTH_MAX)
    }

    fn resolve_within(&self, ty: &Type, free_to_dyn: bool, levels: u32) -> Type {
        let Some(below) = levels.checked_sub(1) else { return Type::Dyn };
        let inner = |ty: &Type| self.resolve_within(ty, free_to_dyn, below);
        match ty {
            Type::Param(number) => match self.known.get(number) {
                // What a parameter stands for is a level of its own: it may stand for another.
                Some(known) => inner(known),
                None if free_to_dyn => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(items) => Type::list(inner(items)),
            Type::Map(of) => Type::map(inner(&of.0), inner(&of.1)),
            Type::Opaque(name, Some(of)) => Type::Opaque(name, Some(Arc::new(inner(of)))),
            Type::Type(Some(of)) => Type::Type(Some(Arc::new(inner(of)))),
            other => other.clone(),
        }
    }

    fn assign(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(number) = b {
            let (fits, bound) = self.substitute(a, *number, b);
            if fits || bound {
                return fits;
            }
        }
        if let Type::Param(number) = a {
            return self.substitute(b, *number, a).0;
        }
        match (a, b) {
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) | (Type::Type(_), Type::Type(_)) => true,
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::List(a), Type::List(b)) => self.assign(a, b),
            (Type::Map(a), Type::Map(b)) => self.assign(&a.0, &b.0) && self.assign(&a.1, &b.1),
            (Type::Opaque(a, Some(x)), Type::Opaque(b, Some(y))) => a == b && self.assign(x, y),
            _ => a.same(b),
        }
    }

    /// Whether the type fits the parameter, and whether something was known of it.
    fn substitute(&mut self, ty: &Type, number: u32, parameter: &Type) -> (bool, bool) {
        if ty.same(parameter) {
            return (true, true);
        }
        if let Some(known) = self.known.get(&number).cloned() {
            if ty.same(&known) {
                return (true, true);
            }
            if self.assign(ty, &known) {
                let general = most_general(ty, &known);
                if !self.mentions(&general, number) {
                    self.learn(number, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.mentions(ty, number) {
            return (false, false);
        }
        self.learn(number, ty.clone());
        (true, false)
    }

    /// A parameter must not stand for something that it is part of.
    fn mentions(&self, ty: &Type, number: u32) -> bool {
        match ty {
            Type::Param(other) if *other == number => true,
            Type::Param(other) => self.known.get(other).is_some_and(|known| self.mentions(known, number)),
            Type::List(of) | Type::Opaque(_, Some(of)) | Type::Type(Some(of)) => self.mentions(of, number),
            Type::Map(of) => self.mentions(&of.0, number) || self.mentions(&of.1, number),
            _ => false,
        }
    }
}

fn nullable(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Object(_) | Type::Opaque(..) | Type::Timestamp | Type::Duration)
}

pub fn most_general(a: &Type, b: &Type) -> Type {
    if less_specific(a, b) { a.clone() } else { b.clone() }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) => less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        (Type::Opaque(OPTIONAL, Some(a)), Type::Opaque(OPTIONAL, Some(b))) => less_specific(a, b),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a.same(b),
    }
}
