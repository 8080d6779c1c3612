//! Rules are evaluated on values (`cel.Validator`).

use std::fmt::Write as _;
use std::ops::ControlFlow;

use cel::{Budget, EvalError, Variables};
use schema::structural::{Olds, Rule, Structural, is_same};
use serde_json::Value;

use super::compile::{Compiled, OLD_SELF, SELF};
use super::{Expression, Rules};
use crate::failure::FieldError;

const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl Rules {
    /// Checks an object, `old` being what it was, within the budget of one request.
    pub fn check(&self, value: &Value, schema: &Structural, old: Option<&Value>) -> Vec<FieldError> {
        let mut run = Run::new(Budget::new(cel::REQUEST_COST_MAX), "");
        let now = old.map(|old| Part { schema, value, old });
        let _ = run.node(self, schema, value, old, Ratchet { now, parent: None });
        run.errors
    }

    /// Checks a default at a path of the schema: that it may stay, and that it may come to be. `left` is what may be
    /// spent on all defaults.
    pub fn check_default(&self, default: &Value, schema: &Structural, path: &str, left: &mut u64) -> Vec<FieldError> {
        let mut least = *left;
        let mut check = |old| {
            let mut run = Run::new(Budget::new(*left), path);
            let _ = run.node(self, schema, default, old, Ratchet::default());
            least = least.min(run.budget.left());
            run.errors
        };
        let mut errors = check(Some(default));
        if errors.is_empty() {
            errors = check(None);
        }
        *left = least;
        errors
    }
}

/// A value with what it was.
#[derive(Clone, Copy)]
struct Part<'v> {
    schema: &'v Structural,
    value: &'v Value,
    old: &'v Value,
}

impl Part<'_> {
    fn is_same(&self) -> bool {
        is_same(self.schema, self.value, self.old)
    }
}

/// By what it is told whether a value changed.
#[derive(Clone, Copy, Default)]
struct Ratchet<'v> {
    /// None where the older value can't be told.
    now: Option<Part<'v>>,
    /// The nearest that it lies in and can be told.
    parent: Option<Part<'v>>,
}

impl<'v> Ratchet<'v> {
    fn is_same(&self) -> bool {
        self.now.or(self.parent).is_some_and(|part| part.is_same())
    }

    fn key(self, name: &str) -> Ratchet<'v> {
        let Some(now) = self.now else { return self };
        // Both are in the same version, whatever they were.
        if self.parent.is_none() && matches!(name, "apiVersion" | "kind") {
            return Ratchet::default();
        }
        let part =
            || Some(Part { schema: now.schema.field(name)?, value: now.value.get(name)?, old: now.old.get(name)? });
        Ratchet { now: part(), parent: Some(now) }
    }

    fn element(self, value: &'v Value, old: Option<&'v Value>) -> Ratchet<'v> {
        let Some(now) = self.now else { return self };
        let part = || Some(Part { schema: now.schema.items.as_deref()?, value, old: old? });
        Ratchet { now: part(), parent: Some(now) }
    }
}

struct Run {
    budget: Budget,
    errors: Vec<FieldError>,
    path: String,
}

impl Run {
    fn new(budget: Budget, base: &str) -> Run {
        Run { budget, errors: Vec::new(), path: base.to_owned() }
    }

    /// Breaks where no more rules are to run.
    fn node<'v>(
        &mut self,
        rules: &'v Rules,
        schema: &'v Structural,
        value: &'v Value,
        old: Option<&'v Value>,
        ratchet: Ratchet<'v>,
    ) -> ControlFlow<()> {
        if value.is_null() {
            return ControlFlow::Continue(());
        }
        let old = old.filter(|old| !old.is_null());
        for (rule, compiled) in &rules.rules {
            let at = At { rules, schema, rule, compiled, value, old };
            self.rule(&at, ratchet)?;
        }
        let mark = self.path.len();
        match value {
            Value::Array(items) => {
                let (Some(rules), Some(element)) = (&rules.items, schema.items.as_deref()) else {
                    return ControlFlow::Continue(());
                };
                let olds = Olds::new(schema, old);
                for (index, item) in items.iter().enumerate() {
                    let old = olds.find(item);
                    let _ = write!(self.path, "[{index}]");
                    self.node(rules, element, item, old, ratchet.element(item, old))?;
                    self.path.truncate(mark);
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    if let (Some(rules), Some(schema)) = (&rules.additional, schema.additional_schema()) {
                        let _ = write!(self.path, "[{name}]");
                        self.node(rules, schema, value, old, ratchet.key(name))?;
                        self.path.truncate(mark);
                    }
                    if let (Some(rules), Some(schema)) = (rules.fields.get(name), schema.properties.get(name)) {
                        let _ = write!(self.path, "{}{name}", if mark == 0 { "" } else { "." });
                        self.node(rules, schema, value, old, ratchet.key(name))?;
                        self.path.truncate(mark);
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn rule(&mut self, at: &At<'_>, ratchet: Ratchet<'_>) -> ControlFlow<()> {
        let shown = Value::from(at.schema.ty.as_str());
        if self.budget.left() == 0 {
            self.errors.push(FieldError::invalid(self.shown_path(), &shown, OUT_OF_BUDGET));
            return ControlFlow::Break(());
        }
        let program = match &at.compiled.rule {
            Ok(Some(Expression { program, .. })) => program,
            Ok(None) => return ControlFlow::Continue(()),
            Err(why) => {
                let text = format!("rule compile error: {why}");
                self.errors.push(FieldError::invalid(self.shown_path(), &shown, &text));
                return ControlFlow::Continue(());
            }
        };
        let optional = at.rule.optional_old_self == Some(true);
        if at.compiled.uses_old_self && at.old.is_none() && !optional {
            return ControlFlow::Continue(());
        }
        let result = at.variables(optional).and_then(|variables| {
            program.eval(&variables, &mut self.budget).map(|result| matches!(result, cel::Value::Bool(true)))
        });
        let why = match result {
            Ok(true) => return ControlFlow::Continue(()),
            Ok(false) => return self.failed(at, ratchet),
            Err(why) => why,
        };
        let name = at.name();
        let text = match &why {
            EvalError::Budget => OUT_OF_BUDGET.to_owned(),
            EvalError::CallLimit => format!(
                "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
            ),
            EvalError::Failed(text) if text.starts_with("no such overload") => format!(
                "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
            ),
            EvalError::Failed(_) => format!("{why} evaluating rule: {name}"),
        };
        self.errors.push(FieldError::invalid(self.shown_path(), &shown, &text));
        if why.is_final() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// A rule evaluated to false.
    fn failed(&mut self, at: &At<'_>, ratchet: Ratchet<'_>) -> ControlFlow<()> {
        let let_pass = !at.compiled.uses_old_self && ratchet.is_same();
        let path = match &at.compiled.field {
            Some(field) if self.path.is_empty() => field.clone(),
            Some(field) => format!("{}.{field}", self.path),
            None => self.shown_path(),
        };
        let detail = match self.message(at) {
            Ok(Some(message)) => message,
            Ok(None) if at.rule.message.is_empty() => format!("failed rule: {}", at.name()),
            Ok(None) => at.rule.message.trim().to_owned(),
            Err(text) => {
                if !let_pass {
                    self.errors.push(FieldError::invalid(path, &at.schema.ty.as_str().into(), &text));
                }
                return ControlFlow::Break(());
            }
        };
        if !let_pass {
            let value = (!matches!(at.schema.ty.as_str(), "object" | "array")).then_some(at.value);
            let error = match at.rule.reason.as_deref() {
                Some("FieldValueForbidden") => FieldError::forbidden(path, &detail),
                Some("FieldValueRequired") => FieldError::required(path, &detail),
                Some("FieldValueDuplicate") => {
                    FieldError::with("FieldValueDuplicate", path, "Duplicate value", value, "")
                }
                _ => FieldError::with("FieldValueInvalid", path, "Invalid value", value, &detail),
            };
            self.errors.push(error);
        }
        ControlFlow::Continue(())
    }

    /// The message that the rule's expression makes; none where it makes none of use. The error ends everything.
    fn message(&mut self, at: &At<'_>) -> Result<Option<String>, String> {
        let Ok(Some(Expression { program, .. })) = &at.compiled.message else { return Ok(None) };
        let result = at.variables(false).and_then(|variables| {
            program.eval(&variables, &mut self.budget).map(|result| match result {
                cel::Value::String(text) => Some(text.trim().to_owned()),
                _ => None,
            })
        });
        match result {
            Ok(text) => {
                Ok(text.filter(|text| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n')))
            }
            Err(EvalError::Budget) => Err(
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules \
                 will be run"
                    .to_owned(),
            ),
            Err(EvalError::CallLimit) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                at.rule.message_expression
            )),
            Err(EvalError::Failed(_)) => Ok(None),
        }
    }

    fn shown_path(&self) -> String {
        if self.path.is_empty() { "<nil>".to_owned() } else { self.path.clone() }
    }
}

/// A rule and the value that it is about.
struct At<'v> {
    rules: &'v Rules,
    schema: &'v Structural,
    rule: &'v Rule,
    compiled: &'v Compiled,
    value: &'v Value,
    old: Option<&'v Value>,
}

impl<'v> At<'v> {
    fn variables(&self, optional: bool) -> Result<Variables<'v>, EvalError> {
        let decl = &self.rules.decl;
        let variables = Variables::new().with(SELF, cel::Value::of_json(self.value, decl)?);
        if !self.rules.rules.iter().any(|(_, compiled)| compiled.uses_old_self) {
            return Ok(variables);
        }
        let old = self.old.map(|old| cel::Value::of_json(old, decl)).transpose()?;
        Ok(match old {
            old if optional => variables.with(OLD_SELF, old.map_or(cel::Value::Optional(None), cel::Value::some)),
            Some(old) => variables.with(OLD_SELF, old),
            None => variables,
        })
    }

    /// How findings call the rule.
    fn name(&self) -> &'v str {
        let text = if self.rule.message.is_empty() { &self.rule.rule } else { &self.rule.message };
        text.trim()
    }
}
