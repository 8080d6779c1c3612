//! Rules become programs (`schema/cel.Compile`).

use cel::{Decl, Env, Program, Type};
use schema::structural::{Rule, Structural};

use crate::validation::definition::field_path;

pub(super) const SELF: &str = "self";
pub(super) const OLD_SELF: &str = "oldSelf";

/// An expression with the most that it can cost.
pub struct Expression {
    pub program: Program,
    pub cost_max: u64,
}

/// What became of a rule; errors in upstream's words.
pub struct Compiled {
    /// None where the rule is empty.
    pub rule: Result<Option<Expression>, String>,
    pub message: Result<Option<Expression>, String>,
    pub uses_old_self: bool,
    /// The field that findings are about, below the value.
    pub field: Option<String>,
}

/// Compiles the rules of one schema.
pub fn compile(schema: &Structural, decl: &Decl) -> Vec<Compiled> {
    if schema.rules.is_empty() {
        return Vec::new();
    }
    let env = Env::new().variable(SELF, decl.clone());
    let optional = env.clone().variable(OLD_SELF, Decl::Plain(Type::optional(decl.ty())));
    let env = env.variable(OLD_SELF, decl.clone());
    let one = |rule: &Rule| {
        let optional_old = rule.optional_old_self == Some(true);
        compile_one(rule, schema, if optional_old { &optional } else { &env })
    };
    schema.rules.iter().map(one).collect()
}

fn compile_one(rule: &Rule, schema: &Structural, env: &Env) -> Compiled {
    let mut compiled = Compiled { rule: Ok(None), message: Ok(None), uses_old_self: false, field: None };
    if rule.rule.trim().is_empty() {
        return compiled;
    }
    let program = match env.compile(&rule.rule) {
        Ok(program) => program,
        Err(errors) => {
            compiled.rule = Err(format!("compilation failed: {errors}"));
            return compiled;
        }
    };
    if !matches!(program.result(), Type::Bool) {
        compiled.rule = Err("cel expression must evaluate to a bool".to_owned());
        return compiled;
    }
    compiled.uses_old_self = program.mentions(OLD_SELF);
    compiled.rule = Ok(Some(expression(program)));
    if !rule.message_expression.is_empty() {
        compiled.message = match env.compile(&rule.message_expression) {
            Err(errors) => Err(format!("messageExpression compilation failed: {errors}")),
            Ok(program) if matches!(program.result(), Type::String) => Ok(Some(expression(program))),
            Ok(_) => Err("messageExpression must evaluate to a string".to_owned()),
        };
        if compiled.message.is_err() {
            return compiled;
        }
    }
    if !rule.field_path.is_empty() {
        compiled.field = field_path(&rule.field_path, schema, true).ok().map(|at| at.shown);
    }
    compiled
}

fn expression(program: Program) -> Expression {
    let cost_max = program.estimate().max;
    Expression { program, cost_max }
}
