//! The tree as the evaluator wants it: functions found, variables numbered, regular expressions compiled, constants
//! made.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use crate::check::{Call, Checked, Name};
use crate::cost::estimate_is_bind;
use crate::library::{Function, re, time};
use crate::source::{Issues, Offset};
use crate::syntax::ast::{Expr, Fold, Kind, Literal, operators};
use crate::value::{Key, Map, Value};

pub enum Node {
    Const(Value<'static>),
    Variable(Box<str>),
    /// The place of a loop's variable among those around.
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Box<str>,
        optional: bool,
    },
    Has {
        operand: Box<Node>,
        field: Box<str>,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    If(Box<(Node, Node, Node)>),
    NotStrictlyFalse(Box<Node>),
    Call {
        functions: Vec<&'static Function>,
        args: Vec<Node>,
        regex: Option<Box<Regex>>,
    },
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(Box<str>, Node, bool)>,
    },
    Fold(Box<Loop>),
    Gather(Box<Gather>),
    /// A value that the result refers to as the local behind those around.
    Bind(Box<(Node, Node)>),
}

/// A loop in general. The locals are the accumulator, the variable, and the second variable if there is one.
pub struct Loop {
    pub range: Node,
    pub two: bool,
    pub start: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

/// A loop that makes a list or map, without copying it at each step. Locals are as those of [`Loop`].
pub struct Gather {
    pub range: Node,
    pub two: bool,
    pub filter: Option<Node>,
    pub made: Made,
}

pub enum Made {
    Item(Node),
    Entry(Node, Node),
    Entries(Node),
}

/// Makes the plan; literals that cannot be what they are used for are reported.
pub fn plan(checked: &Checked, expr: &Expr, issues: &mut Issues<'_>) -> Node {
    Planner { checked, issues, locals: Vec::new() }.node(expr)
}

struct Planner<'c, 'i, 't> {
    checked: &'c Checked,
    issues: &'i mut Issues<'t>,
    locals: Vec<String>,
}

impl Planner<'_, '_, '_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(literal) => Node::Const(constant(literal)),
            Kind::Ident(_) => self.named(expr).unwrap_or(Node::Const(Value::Null)),
            Kind::Select { operand, field, test } => {
                if let Some(node) = self.named(expr) {
                    return node;
                }
                let (operand, field) = (self.boxed(operand), field.as_str().into());
                if *test { Node::Has { operand, field } } else { Node::Select { operand, field, optional: false } }
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(items) => {
                let planned: Vec<(Node, bool)> =
                    items.iter().map(|item| (self.node(&item.value), item.optional)).collect();
                // A list of constants is one itself.
                let constants: Option<Vec<Value<'static>>> = planned
                    .iter()
                    .map(|item| match item {
                        (Node::Const(value), false) => Some(value.clone()),
                        _ => None,
                    })
                    .collect();
                match constants {
                    Some(values) => Node::Const(Value::list(values)),
                    None => Node::List(planned),
                }
            }
            Kind::Map(entries) => {
                let planned: Vec<(Node, Node, bool)> = entries
                    .iter()
                    .map(|entry| (self.node(&entry.key), self.node(&entry.value), entry.optional))
                    .collect();
                constant_map(&planned).unwrap_or(Node::Map(planned))
            }
            Kind::Struct { name, fields } => {
                let object = self.checked.note(expr.id).and_then(|note| note.object.clone());
                let name = object.map_or_else(|| name.as_str().into(), |object| object.name().into());
                let fields = fields
                    .iter()
                    .map(|field| {
                        let json = crate::names::unescape(&field.name).unwrap_or_else(|| field.name.clone());
                        (json.into(), self.node(&field.value), field.optional)
                    })
                    .collect();
                Node::Struct { name, fields }
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    /// The variable or type that this is as a whole.
    fn named(&self, expr: &Expr) -> Option<Node> {
        Some(match self.checked.note(expr.id)?.name.as_ref()? {
            Name::Local(name) => Node::Local(self.locals.iter().rposition(|local| local == name)?),
            Name::Variable(name) => Node::Variable(name.as_str().into()),
            Name::Type(name) => Node::Const(Value::Type(name.as_str().into())),
        })
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Node {
        match (function, args) {
            (operators::AND, [a, b]) => return Node::And(Box::new((self.node(a), self.node(b)))),
            (operators::OR, [a, b]) => return Node::Or(Box::new((self.node(a), self.node(b)))),
            (operators::CONDITIONAL, [a, b, c]) => {
                return Node::If(Box::new((self.node(a), self.node(b), self.node(c))));
            }
            (operators::NOT_STRICTLY_FALSE, [a]) => return Node::NotStrictlyFalse(self.boxed(a)),
            (operators::INDEX | operators::OPT_INDEX, [operand, index]) => {
                let optional = function == operators::OPT_INDEX;
                return Node::Index { operand: self.boxed(operand), index: self.boxed(index), optional };
            }
            (operators::OPT_SELECT, [operand, field]) => {
                let Kind::Literal(Literal::String(field)) = &field.kind else { return Node::Const(Value::Null) };
                return Node::Select { operand: self.boxed(operand), field: field.as_str().into(), optional: true };
            }
            _ => {}
        }
        let Some(call) = self.checked.note(expr.id).and_then(|note| note.call.clone()) else {
            return Node::Const(Value::Null);
        };
        let target = target.filter(|_| !call.namespaced);
        let all: Vec<&Expr> = target.into_iter().chain(args).collect();
        let regex = self.regex(&call, &all);
        self.check_literal(&call, &all);
        let args = all.into_iter().map(|arg| self.node(arg)).collect();
        let mut functions: Vec<&'static Function> = Vec::new();
        for index in &call.chosen {
            if let Some((_, function)) = call.declared.overloads.get(*index)
                && !functions.iter().any(|found| std::ptr::eq(*found, *function))
            {
                functions.push(function);
            }
        }
        Node::Call { functions, args, regex }
    }

    fn regex(&mut self, call: &Call, args: &[&Expr]) -> Option<Box<Regex>> {
        if !re::takes_regex(&call.name) {
            return None;
        }
        let (at, pattern) = literal(args.get(1)?)?;
        match re::compile(pattern) {
            Ok(regex) => Some(Box::new(regex)),
            Err(_) if call.name == "matches" => {
                self.issues.report(at, "invalid matches argument");
                None
            }
            Err(why) => {
                self.issues.report(at, why);
                None
            }
        }
    }

    /// Times in literals are read before anything runs.
    fn check_literal(&mut self, call: &Call, args: &[&Expr]) {
        let Some((at, text)) = args.first().and_then(|arg| literal(arg)) else { return };
        let wrong = match call.name.as_str() {
            "duration" => time::duration(text).is_err(),
            "timestamp" => time::timestamp(text).is_err(),
            _ => false,
        };
        if wrong {
            self.issues.report(at, format!("invalid {} argument", call.name));
        }
    }

    fn fold(&mut self, fold: &Fold) -> Node {
        let outer = self.locals.len();
        if estimate_is_bind(fold) {
            let value = self.node(&fold.start);
            self.locals.push(fold.accumulator.clone());
            let result = self.node(&fold.result);
            self.locals.truncate(outer);
            return Node::Bind(Box::new((value, result)));
        }
        let range = self.node(&fold.range);
        let start = self.node(&fold.start);
        self.locals.push(fold.accumulator.clone());
        self.locals.push(fold.variable.clone());
        self.locals.extend(fold.variable2.clone());
        let two = fold.variable2.is_some();
        if let Some((filter, made)) = gathered(fold) {
            let filter = filter.map(|filter| self.node(filter));
            let made = match made {
                [item] if matches!(fold.start.kind, Kind::List(_)) => Made::Item(self.node(item)),
                [entries] => Made::Entries(self.node(entries)),
                [key, value, ..] => Made::Entry(self.node(key), self.node(value)),
                [] => Made::Item(Node::Const(Value::Null)),
            };
            self.locals.truncate(outer);
            return Node::Gather(Box::new(Gather { range, two, filter, made }));
        }
        let condition = self.node(&fold.condition);
        let step = self.node(&fold.step);
        self.locals.truncate(outer + 1);
        let result = self.node(&fold.result);
        self.locals.truncate(outer);
        Node::Fold(Box::new(Loop { range, two, start, condition, step, result }))
    }
}

/// The filter and what is added at each step, if the loop only makes a list or map.
fn gathered(fold: &Fold) -> Option<(Option<&Expr>, &[Expr])> {
    if !matches!(&fold.start.kind, Kind::List(_) | Kind::Map(_)) {
        return None;
    }
    let (filter, step) = match &fold.step.kind {
        Kind::Call { function, args, .. } if function == operators::CONDITIONAL => match args.as_slice() {
            [filter, step, _] => (Some(filter), step),
            _ => return None,
        },
        _ => (None, &fold.step),
    };
    let Kind::Call { function, args, .. } = &step.kind else { return None };
    match (function.as_str(), args.as_slice()) {
        (operators::ADD, [_, item]) => match &item.kind {
            Kind::List(items) => items.first().map(|item| (filter, std::slice::from_ref(&item.value))),
            _ => None,
        },
        (operators::MAP_INSERT, [_, added @ ..]) => Some((filter, added)),
        _ => None,
    }
}

fn literal<'e>(expr: &&'e Expr) -> Option<(Offset, &'e str)> {
    match &expr.kind {
        Kind::Literal(Literal::String(text)) => Some((expr.at, text)),
        _ => None,
    }
}

/// A map of constants is one itself, unless a key comes twice.
fn constant_map(entries: &[(Node, Node, bool)]) -> Option<Node> {
    let mut map = BTreeMap::new();
    for entry in entries {
        let (Node::Const(key), Node::Const(value), false) = entry else { return None };
        if map.insert(Key::of(key)?, value.clone()).is_some() {
            return None;
        }
    }
    Some(Node::Const(Value::Map(Map::Shared(Arc::new(map)))))
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::string(text.as_str()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}
