//! Environments, programs, and what programs run on.

use std::sync::Arc;

use crate::budget::Budget;
use crate::check::{self, Checked};
use crate::cost::{self, Range};
use crate::error::EvalError;
use crate::run::{self, Node};
use crate::source::{CompileErrors, Issues};
use crate::syntax::{self, ast::Expr};
use crate::timing;
use crate::types::{self, Decl, ObjectType, Type};
use crate::value::Value;

/// Variables and types that expressions may use. Cheap to clone; one serves any number of threads.
#[derive(Clone, Default)]
pub struct Env {
    variables: Vec<(Arc<str>, Decl)>,
    /// Object types that expressions may make, or name.
    objects: Option<Arc<dyn Objects>>,
}

/// Finds object types by name (upstream: a type provider).
pub trait Objects: Send + Sync {
    fn object(&self, name: &str) -> Option<Arc<dyn ObjectType>>;
}

/// A compiled expression.
pub struct Program {
    env: Env,
    expr: Expr,
    checked: Checked,
    node: Node,
    result: Type,
}

/// Values of variables.
pub trait Activation: Sync {
    /// `None`: there is no such variable. Work done here may be charged.
    fn variable<'s>(&'s self, name: &str, budget: &mut Budget) -> Option<Result<Value<'s>, EvalError>>;
}

/// Variables with their values at hand.
#[derive(Clone, Default)]
pub struct Variables<'a> {
    values: Vec<(&'a str, Value<'a>)>,
}

impl Env {
    pub fn new() -> Env {
        Env::default()
    }

    /// Declares a variable; a later declaration of the same name replaces the earlier.
    #[must_use]
    pub fn variable(mut self, name: &str, decl: Decl) -> Env {
        self.variables.retain(|(found, _)| &**found != name);
        self.variables.push((name.into(), decl));
        self
    }

    #[must_use]
    pub fn objects(mut self, objects: Arc<dyn Objects>) -> Env {
        self.objects = Some(objects);
        self
    }

    /// Parses, checks and plans an expression.
    pub fn compile(&self, text: &str) -> Result<Program, CompileErrors> {
        timing::compilation().of(|| self.compiled(text))
    }

    fn compiled(&self, text: &str) -> Result<Program, CompileErrors> {
        let (expr, nodes) = syntax::parse(text)?;
        let mut issues = Issues::new(text);
        let checked = check::check(self, &expr, nodes, &mut issues);
        if !issues.is_empty() {
            return Err(issues.into_errors());
        }
        let node = run::plan(&checked, &expr, &mut issues);
        if !issues.is_empty() {
            return Err(issues.into_errors());
        }
        let result = checked.ty(&expr);
        Ok(Program { env: self.clone(), expr, checked, node, result })
    }

    pub(crate) fn variable_decl(&self, name: &str) -> Option<Decl> {
        self.variables.iter().find(|(found, _)| &**found == name).map(|(_, decl)| decl.clone())
    }

    /// A type by its name in expressions, with the name that `type()` gives it.
    pub(crate) fn type_named(&self, name: &str) -> Option<(String, Type)> {
        let ty = match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "string" => Type::String,
            "null_type" => Type::Null,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "type" => Type::Type(None),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            types::OPTIONAL => Type::optional(Type::Dyn),
            _ => {
                let opaque = [types::URL, types::IP, types::CIDR, types::QUANTITY, types::SEMVER, types::FORMAT];
                if let Some(name) = opaque.into_iter().find(|found| *found == name) {
                    return Some((name.to_owned(), Type::opaque(name)));
                }
                return self.objects.as_ref()?.object(name).map(|object| (name.to_owned(), Type::Object(object)));
            }
        };
        Some((name.to_owned(), ty))
    }
}

impl Program {
    /// The type of the result.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// The least and most that one evaluation can cost.
    pub fn estimate(&self) -> Range {
        cost::estimate(&self.env, &self.checked, &self.expr)
    }

    /// Evaluates. What it costs is taken from the budget, whatever comes of it.
    pub fn eval<'a>(&'a self, activation: &'a dyn Activation, budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        let outer = budget.enter();
        let result = timing::evaluation().of(|| run::evaluate(&self.node, activation, budget));
        budget.leave(outer);
        result
    }

    /// Whether the expression mentions this variable (upstream: `UsesOldSelf` and the like).
    pub fn mentions(&self, variable: &str) -> bool {
        self.checked.mentions(variable)
    }
}

impl<'a> Variables<'a> {
    pub fn new() -> Variables<'a> {
        Variables::default()
    }

    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Variables<'a> {
        self.values.push((name, value));
        self
    }
}

impl Activation for Variables<'_> {
    fn variable<'s>(&'s self, name: &str, _: &mut Budget) -> Option<Result<Value<'s>, EvalError>> {
        self.values.iter().find(|(found, _)| *found == name).map(|(_, value)| Ok(value.clone()))
    }
}
