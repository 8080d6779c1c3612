//! Types of all parts of an expression, and which functions its calls mean (cel-go's `checker`).

pub mod signature;
mod unify;

use std::sync::Arc;

use crate::env::Env;
use crate::library::{self, Declared};
use crate::source::{Issues, Offset};
use crate::syntax::ast::{Entry, Expr, FieldInit, Fold, Id, Item, Kind, Literal, operators};
use crate::types::{ObjectType, Type, declared_field};
use signature::{Overload, TYPE_PARAMETERS};
use unify::{Bindings, most_general};

/// What is known of each node, by its id.
pub struct Checked {
    notes: Vec<Note>,
}

#[derive(Clone)]
pub struct Note {
    pub ty: Type,
    pub call: Option<Call>,
    /// The variable or type that an identifier or a chain of selections names.
    pub name: Option<Name>,
    /// What a literal of an object makes.
    pub object: Option<Arc<dyn ObjectType>>,
}

#[derive(Clone)]
pub enum Name {
    /// Bound by a loop.
    Local(String),
    /// Declared in the environment.
    Variable(String),
    Type(String),
}

/// A call resolved: candidates by argument types. More than one is left where arguments are dynamic.
#[derive(Clone)]
pub struct Call {
    pub name: String,
    pub declared: &'static Declared,
    pub chosen: Vec<usize>,
    /// The target was the name's first part, no value: `sets.contains(a, b)`.
    pub namespaced: bool,
}

impl Checked {
    pub fn note(&self, id: Id) -> Option<&Note> {
        self.notes.get(id as usize)
    }

    /// Some part names this variable.
    pub fn mentions(&self, variable: &str) -> bool {
        let named = |note: &Note| matches!(&note.name, Some(Name::Variable(name)) if name == variable);
        self.notes.iter().any(named)
    }

    pub fn ty(&self, expr: &Expr) -> Type {
        self.note(expr.id).map_or(Type::Dyn, |note| note.ty.clone())
    }
}

/// Checks all of it and reports what is wrong.
pub fn check(env: &Env, expr: &Expr, nodes: u32, issues: &mut Issues<'_>) -> Checked {
    let blank = Note { ty: Type::Error, call: None, name: None, object: None };
    let mut checker = Checker {
        env,
        issues,
        notes: vec![blank; nodes as usize],
        scopes: Vec::new(),
        bindings: Bindings::default(),
        next_param: TYPE_PARAMETERS,
    };
    checker.check(expr);
    let Checker { mut notes, bindings, .. } = checker;
    for note in &mut notes {
        note.ty = bindings.resolve(&note.ty, true);
    }
    Checked { notes }
}

struct Checker<'e, 'i, 't> {
    env: &'e Env,
    issues: &'i mut Issues<'t>,
    notes: Vec<Note>,
    /// Variables of the loops around, the innermost last.
    scopes: Vec<(String, Type)>,
    bindings: Bindings,
    next_param: u32,
}

impl Checker<'_, '_, '_> {
    fn set(&mut self, expr: &Expr, ty: Type) -> Type {
        if let Some(note) = self.notes.get_mut(expr.id as usize) {
            note.ty = ty.clone();
        }
        ty
    }

    fn name(&mut self, expr: &Expr, name: Name) {
        if let Some(note) = self.notes.get_mut(expr.id as usize) {
            note.name = Some(name);
        }
    }

    fn new_param(&mut self) -> Type {
        self.next_param += 1;
        Type::Param(self.next_param - 1)
    }

    fn undeclared(&mut self, at: Offset, name: &str) -> Type {
        self.issues.report(at, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, at: Offset, expected: &Type, found: &Type) {
        let (expected, found) = (self.bindings.resolve(expected, false), self.bindings.resolve(found, false));
        self.issues.report(at, format!("expected type '{expected}' but found '{found}'"));
    }

    fn check(&mut self, expr: &Expr) -> Type {
        let ty = match &expr.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => match self.resolve(name) {
                Some((found, ty)) => {
                    self.name(expr, found);
                    ty
                }
                None => self.undeclared(expr.at, name),
            },
            Kind::Select { operand, field, test } => return self.selection(expr, operand, field, *test),
            Kind::Call { function, target, args } => return self.call(expr, function, target.as_deref(), args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => return self.structure(expr, name, fields),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.set(expr, ty)
    }

    /// A variable or a type by its name.
    fn resolve(&self, name: &str) -> Option<(Name, Type)> {
        let global = name.strip_prefix('.');
        if global.is_none()
            && let Some((_, ty)) = self.scopes.iter().rev().find(|(found, _)| found == name)
        {
            return Some((Name::Local(name.to_owned()), ty.clone()));
        }
        let name = global.unwrap_or(name);
        if let Some(decl) = self.env.variable_decl(name) {
            return Some((Name::Variable(name.to_owned()), decl.ty()));
        }
        let (name, ty) = self.env.type_named(name)?;
        Some((Name::Type(name), Type::Type(Some(Arc::new(ty)))))
    }

    fn selection(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Type {
        // `a.b.c` may be the name of a variable as a whole, unless `a` is a loop's.
        if !test && let Some(name) = crate::syntax::qualified(expr) {
            let first = name.split('.').next().unwrap_or_default();
            let local = self.scopes.iter().any(|(found, _)| found == first);
            if !local && let Some((found, ty)) = self.resolve(&name) {
                self.name(expr, found);
                return self.set(expr, ty);
            }
        }
        let found = self.field(expr.at, operand, field, false);
        self.set(expr, if test { Type::Bool } else { found })
    }

    /// The type of a field of the operand.
    fn field(&mut self, at: Offset, operand: &Expr, field: &str, optional: bool) -> Type {
        let of = self.check(operand);
        let (of, was_optional) = self.bindings.resolve(&of, false).unwrap_optional();
        let found = match &of {
            Type::Map(of) => of.1.clone(),
            Type::Object(object) => match declared_field(&**object, field) {
                Some(decl) => decl.ty(),
                None => {
                    self.issues.report(at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.bindings.fit(&Type::Dyn, &of);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.issues.report(at, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        let found = self.bindings.resolve(&found, false);
        if was_optional || optional { Type::optional(found) } else { found }
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        if function == operators::OPT_SELECT
            && let [operand, field] = args
        {
            let Kind::Literal(Literal::String(name)) = &field.kind else {
                self.issues.report(field.at, "unsupported optional field selection");
                return self.set(expr, Type::Error);
            };
            self.check(field);
            let ty = self.field(expr.at, operand, name, true);
            return self.set(expr, ty);
        }
        let mut given: Vec<Type> = args.iter().map(|arg| self.check(arg)).collect();
        let namespaced = target
            .and_then(crate::syntax::qualified)
            .map(|prefix| format!("{}.{function}", prefix.trim_start_matches('.')))
            .and_then(|name| library::find(&name).map(|declared| (name, declared)));
        let function = function.trim_start_matches('.');
        if let Some((name, declared)) = namespaced {
            return self.resolve_call(expr, &name, declared, &given, false, true);
        }
        let Some(target) = target else {
            return match library::find(function) {
                Some(declared) => self.resolve_call(expr, function, declared, &given, false, false),
                None => {
                    let ty = self.undeclared(expr.at, function);
                    self.set(expr, ty)
                }
            };
        };
        given.insert(0, self.check(target));
        match library::find(function) {
            Some(declared) => self.resolve_call(expr, function, declared, &given, true, false),
            None => {
                let ty = self.undeclared(expr.at, function);
                self.set(expr, ty)
            }
        }
    }

    fn resolve_call(
        &mut self,
        expr: &Expr,
        name: &str,
        declared: &'static Declared,
        given: &[Type],
        member: bool,
        namespaced: bool,
    ) -> Type {
        let mut chosen = Vec::new();
        let mut result: Option<Type> = None;
        if name == operators::AND || name == operators::OR {
            result = self.logical(expr, given);
            chosen.push(0);
        } else {
            for (index, (overload, _)) in declared.overloads.iter().enumerate() {
                if overload.member != member {
                    continue;
                }
                let (params, returns) = self.instantiate(overload);
                if !self.bindings.fit_all(given, &params) {
                    continue;
                }
                chosen.push(index);
                let returns = self.bindings.resolve(&returns, false);
                result = Some(match result {
                    Some(earlier) if earlier.is_dyn() || returns.same(&earlier) => earlier,
                    Some(_) => Type::Dyn,
                    None => returns,
                });
            }
            if result.is_none() {
                let shown = self.show_call(given, member);
                self.issues.report(expr.at, format!("found no matching overload for '{name}' applied to '{shown}'"));
            }
        }
        let ty = result.unwrap_or(Type::Error);
        if let Some(note) = self.notes.get_mut(expr.id as usize) {
            note.call = Some(Call { name: name.to_owned(), declared, chosen, namespaced });
        }
        self.set(expr, ty)
    }

    /// `None`: an operand is no boolean.
    fn logical(&mut self, expr: &Expr, given: &[Type]) -> Option<Type> {
        let Kind::Call { args, .. } = &expr.kind else { return None };
        let mut result = Some(Type::Bool);
        for (arg, ty) in args.iter().zip(given) {
            if !self.bindings.fit(ty, &Type::Bool) {
                self.mismatch(arg.at, &Type::Bool, ty);
                result = None;
            }
        }
        result
    }

    fn show_call(&self, given: &[Type], member: bool) -> String {
        let mut shown: Vec<String> = given.iter().map(|ty| self.bindings.resolve(ty, true).to_string()).collect();
        let target = if member { format!("{}.", shown.remove(0)) } else { String::new() };
        format!("{target}({})", shown.join(", "))
    }

    /// An overload with parameters of its own.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let base = self.next_param;
        self.next_param += TYPE_PARAMETERS;
        let fresh = |ty: &Type| shift(ty, base);
        (overload.params.iter().map(fresh).collect(), fresh(&overload.result))
    }

    fn join(&mut self, at: Offset, earlier: Option<Type>, next: Type) -> Type {
        let Some(earlier) = earlier else { return next };
        if self.bindings.fit(&earlier, &next) {
            return most_general(&earlier, &next);
        }
        self.mismatch(at, &earlier, &next);
        Type::Error
    }

    /// The type in an entry that is there only if its value is.
    fn present(&mut self, value: &Expr, ty: Type, optional: bool) -> Type {
        if !optional {
            return ty;
        }
        let (of, is_optional) = self.bindings.resolve(&ty, false).unwrap_optional();
        if !is_optional && !of.is_dyn() {
            self.mismatch(value.at, &Type::optional(of.clone()), &of);
        }
        of
    }

    fn list(&mut self, items: &[Item]) -> Type {
        let mut joined = None;
        for item in items {
            let ty = self.check(&item.value);
            let ty = self.present(&item.value, ty, item.optional);
            joined = Some(self.join(item.value.at, joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| self.new_param()))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key);
            keys = Some(self.join(entry.key.at, keys, key));
            let value = self.check(&entry.value);
            let value = self.present(&entry.value, value, entry.optional);
            values = Some(self.join(entry.value.at, values, value));
        }
        let keys = keys.unwrap_or_else(|| self.new_param());
        let values = values.unwrap_or_else(|| self.new_param());
        Type::map(keys, values)
    }

    fn structure(&mut self, expr: &Expr, name: &str, fields: &[FieldInit]) -> Type {
        let object = match self.env.type_named(name.trim_start_matches('.')) {
            Some((_, Type::Object(object))) => object,
            Some((shown, _)) => {
                self.issues.report(expr.at, format!("'{shown}' is not a message type"));
                return self.set(expr, Type::Error);
            }
            None => {
                let ty = self.undeclared(expr.at, name);
                return self.set(expr, ty);
            }
        };
        for field in fields {
            let given = self.check(&field.value);
            let given = self.present(&field.value, given, field.optional);
            let Some(declared) = declared_field(&*object, &field.name) else {
                self.issues.report(field.at, format!("undefined field '{}'", field.name));
                continue;
            };
            let declared = declared.ty();
            if !self.bindings.fit(&declared, &given) {
                let given = self.bindings.resolve(&given, false);
                let name = &field.name;
                self.issues.report(
                    field.at,
                    format!("expected type of field '{name}' is '{declared}' but provided type is '{given}'"),
                );
            }
        }
        if let Some(note) = self.notes.get_mut(expr.id as usize) {
            note.object = Some(object.clone());
        }
        self.set(expr, Type::Object(object))
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let range = self.check(&fold.range);
        let accumulator = self.check(&fold.start);
        let range = self.bindings.resolve(&range, false);
        let two = fold.variable2.is_some();
        let (first, second) = match &range {
            Type::List(items) if two => (Type::Int, (**items).clone()),
            Type::List(items) => ((**items).clone(), Type::Dyn),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.bindings.fit(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.issues.report(
                    fold.range.at,
                    format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"),
                );
                (Type::Error, Type::Error)
            }
        };
        let scopes = self.scopes.len();
        self.scopes.push((fold.accumulator.clone(), accumulator.clone()));
        self.scopes.push((fold.variable.clone(), first));
        if let Some(variable) = &fold.variable2 {
            self.scopes.push((variable.clone(), second));
        }
        self.assert(&fold.condition, &Type::Bool);
        self.assert(&fold.step, &accumulator);
        self.scopes.truncate(scopes + 1);
        let result = self.check(&fold.result);
        self.scopes.truncate(scopes);
        self.bindings.resolve(&result, false)
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let found = self.check(expr);
        if !self.bindings.fit(wanted, &found) {
            self.mismatch(expr.at, wanted, &found);
        }
    }
}

fn shift(ty: &Type, by: u32) -> Type {
    match ty {
        Type::Param(number) => Type::Param(number + by),
        Type::List(items) => Type::list(shift(items, by)),
        Type::Map(of) => Type::map(shift(&of.0, by), shift(&of.1, by)),
        Type::Opaque(name, Some(of)) => Type::Opaque(name, Some(Arc::new(shift(of, by)))),
        Type::Type(Some(of)) => Type::Type(Some(Arc::new(shift(of, by)))),
        other => other.clone(),
    }
}
