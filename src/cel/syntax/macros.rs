//! What looks like a call and becomes a loop or a test.

use super::ast::{Expr, Fold, Kind, Literal, operators};
use super::parser::Nodes;
use crate::source::Offset;

/// The variable that a loop collects in; not a name that an expression can write.
pub const ACCUMULATOR: &str = "@result";
const ACCUMULATOR_OLD: &str = "__result__";
const UNUSED: &str = "#unused";
const SORT_INPUT: &str = "@__sortBy_input__";

pub enum Expanded {
    Macro(Expr),
    /// As it came.
    NoMacro(Option<Expr>, Vec<Expr>),
}

type Complaint = (Offset, String);

/// Expands a call if its name, style and number of arguments are those of a macro.
pub fn expand(
    nodes: &mut Nodes,
    at: Offset,
    function: &str,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Result<Expanded, Complaint> {
    let mut make = Maker { nodes, at };
    let Some(target) = target else {
        let mut args = args;
        if function == "has" && args.len() == 1 {
            let Some(argument) = args.pop() else { return Ok(Expanded::NoMacro(None, args)) };
            return make.has(argument).map(Expanded::Macro);
        }
        return Ok(Expanded::NoMacro(None, args));
    };
    let expanded = match (function, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2) => make.quantifier(function, target, args, 1),
        ("all" | "exists" | "existsOne", 3) => make.quantifier(function, target, args, 2),
        ("map", 2 | 3) => make.map(target, args),
        ("filter", 2) => make.filter(target, args),
        ("transformList", 3 | 4) => make.transform_list(target, args),
        ("transformMap" | "transformMapEntry", 3 | 4) => make.transform_map(function, target, args),
        ("optMap" | "optFlatMap", 2) => make.optional_map(function, target, args),
        ("sortBy", 2) => make.sort_by(target, args),
        _ => return Ok(Expanded::NoMacro(Some(target), args)),
    };
    expanded.map(Expanded::Macro)
}

struct Maker<'n> {
    nodes: &'n mut Nodes,
    at: Offset,
}

/// What differs between the loops.
struct Loop {
    start: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

impl Maker<'_> {
    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.nodes.call(self.at, function, args)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.nodes.literal(self.at, literal)
    }

    fn accumulator(&mut self) -> Expr {
        self.nodes.ident(self.at, ACCUMULATOR)
    }

    fn fold(&mut self, range: Expr, variable: String, variable2: Option<String>, parts: Loop) -> Expr {
        let Loop { start, condition, step, result } = parts;
        let accumulator = ACCUMULATOR.to_owned();
        let fold = Fold { range, variable, variable2, accumulator, start, condition, step, result };
        self.nodes.node(self.at, Kind::Fold(Box::new(fold)))
    }

    /// `result` evaluated with `variable` standing for `value`, lazily.
    fn bind(&mut self, variable: String, value: Expr, result: Expr) -> Expr {
        let fold = Fold {
            range: self.nodes.list(self.at, Vec::new()),
            variable: UNUSED.to_owned(),
            variable2: None,
            step: self.nodes.ident(self.at, &variable),
            accumulator: variable,
            start: value,
            condition: self.literal(Literal::Bool(false)),
            result,
        };
        self.nodes.node(self.at, Kind::Fold(Box::new(fold)))
    }

    fn has(&mut self, argument: Expr) -> Result<Expr, Complaint> {
        match argument.kind {
            Kind::Select { operand, field, test: false } => {
                Ok(self.nodes.node(self.at, Kind::Select { operand, field, test: true }))
            }
            _ => Err((argument.at, "invalid argument to has() macro".to_owned())),
        }
    }

    /// The loop's variables, taken from the front of the arguments.
    fn variables(&mut self, args: &mut Vec<Expr>, count: usize, complaint: &str) -> Result<Vec<String>, Complaint> {
        let mut names: Vec<String> = Vec::new();
        for argument in args.drain(..count) {
            let Kind::Ident(name) = argument.kind else { return Err((argument.at, complaint.to_owned())) };
            if names.contains(&name) {
                return Err((argument.at, format!("duplicate variable name: {name}")));
            }
            if name == ACCUMULATOR || name == ACCUMULATOR_OLD {
                return Err((argument.at, "iteration variable overwrites accumulator variable".to_owned()));
            }
            names.push(name);
        }
        Ok(names)
    }

    fn quantifier(
        &mut self,
        kind: &str,
        range: Expr,
        mut args: Vec<Expr>,
        variables: usize,
    ) -> Result<Expr, Complaint> {
        let mut names = self.variables(&mut args, variables, "argument must be a simple name")?.into_iter();
        let Some(predicate) = args.pop() else { return Err((self.at, "missing argument".to_owned())) };
        let accumulator = self.accumulator();
        let parts = match kind {
            "all" => Loop {
                start: self.literal(Literal::Bool(true)),
                condition: {
                    let accumulator = self.accumulator();
                    self.call(operators::NOT_STRICTLY_FALSE, vec![accumulator])
                },
                step: self.call(operators::AND, vec![accumulator, predicate]),
                result: self.accumulator(),
            },
            "exists" => Loop {
                start: self.literal(Literal::Bool(false)),
                condition: {
                    let accumulator = self.accumulator();
                    let not = self.call(operators::NOT, vec![accumulator]);
                    self.call(operators::NOT_STRICTLY_FALSE, vec![not])
                },
                step: self.call(operators::OR, vec![accumulator, predicate]),
                result: self.accumulator(),
            },
            _ => {
                let one = self.literal(Literal::Int(1));
                let more = self.call(operators::ADD, vec![accumulator, one]);
                let same = self.accumulator();
                let counted = self.accumulator();
                let one = self.literal(Literal::Int(1));
                Loop {
                    start: self.literal(Literal::Int(0)),
                    condition: self.literal(Literal::Bool(true)),
                    step: self.call(operators::CONDITIONAL, vec![predicate, more, same]),
                    result: self.call(operators::EQUALS, vec![counted, one]),
                }
            }
        };
        let first = names.next().unwrap_or_default();
        Ok(self.fold(range, first, names.next(), parts))
    }

    /// `accumulator + [value]`, only where the filter holds.
    fn collect(&mut self, range: Expr, mut names: Vec<String>, filter: Option<Expr>, value: Expr) -> Expr {
        let accumulator = self.accumulator();
        let item = self.nodes.list(self.at, vec![value]);
        let mut step = self.call(operators::ADD, vec![accumulator, item]);
        if let Some(filter) = filter {
            let same = self.accumulator();
            step = self.call(operators::CONDITIONAL, vec![filter, step, same]);
        }
        let parts = Loop {
            start: self.nodes.list(self.at, Vec::new()),
            condition: self.literal(Literal::Bool(true)),
            step,
            result: self.accumulator(),
        };
        let second = (names.len() > 1).then(|| names.pop()).flatten();
        self.fold(range, names.pop().unwrap_or_default(), second, parts)
    }

    fn map(&mut self, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Complaint> {
        let names = self.variables(&mut args, 1, "argument is not an identifier")?;
        let Some(value) = args.pop() else { return Err((self.at, "missing argument".to_owned())) };
        Ok(self.collect(range, names, args.pop(), value))
    }

    fn filter(&mut self, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Complaint> {
        let names = self.variables(&mut args, 1, "argument is not an identifier")?;
        let name = names.first().cloned().unwrap_or_default();
        let value = self.nodes.ident(self.at, &name);
        Ok(self.collect(range, names, args.pop(), value))
    }

    fn transform_list(&mut self, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Complaint> {
        let names = self.variables(&mut args, 2, "argument must be a simple name")?;
        let Some(value) = args.pop() else { return Err((self.at, "missing argument".to_owned())) };
        Ok(self.collect(range, names, args.pop(), value))
    }

    fn transform_map(&mut self, kind: &str, range: Expr, mut args: Vec<Expr>) -> Result<Expr, Complaint> {
        let mut names = self.variables(&mut args, 2, "argument must be a simple name")?.into_iter();
        let key = names.next().unwrap_or_default();
        let Some(value) = args.pop() else { return Err((self.at, "missing argument".to_owned())) };
        let accumulator = self.accumulator();
        let mut step = if kind == "transformMap" {
            let key = self.nodes.ident(self.at, &key);
            self.call(operators::MAP_INSERT, vec![accumulator, key, value])
        } else {
            self.call(operators::MAP_INSERT, vec![accumulator, value])
        };
        if let Some(filter) = args.pop() {
            let same = self.accumulator();
            step = self.call(operators::CONDITIONAL, vec![filter, step, same]);
        }
        let parts = Loop {
            start: self.nodes.node(self.at, Kind::Map(Vec::new())),
            condition: self.literal(Literal::Bool(true)),
            step,
            result: self.accumulator(),
        };
        Ok(self.fold(range, key, names.next(), parts))
    }

    /// `target.hasValue() ? optional.of(bind) : optional.none()`.
    fn optional_map(&mut self, kind: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Complaint> {
        let Some(value) = args.pop() else { return Err((self.at, "missing argument".to_owned())) };
        let name = match args.pop().map(|name| (name.at, name.kind)) {
            Some((_, Kind::Ident(name))) => name,
            Some((at, _)) => return Err((at, format!("{kind}() variable name must be a simple identifier"))),
            None => return Err((self.at, "missing argument".to_owned())),
        };
        let Some(copy) = self.nodes.copy(&target) else { return Err((self.at, "expression is too large".to_owned())) };
        let present = self.nodes.member(self.at, "hasValue", target, Vec::new());
        let inner = self.nodes.member(self.at, "value", copy, Vec::new());
        let mut bound = self.bind(name, inner, value);
        if kind == "optMap" {
            bound = self.call("optional.of", vec![bound]);
        }
        let none = self.call("optional.none", Vec::new());
        Ok(self.call(operators::CONDITIONAL, vec![present, bound, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Result<Expr, Complaint> {
        if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. }) {
            let complaint =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err((target.at, complaint.to_owned()));
        }
        let input = self.nodes.ident(self.at, SORT_INPUT);
        let keys = self.map(input, args)?;
        let input = self.nodes.ident(self.at, SORT_INPUT);
        let sorted = self.nodes.member(self.at, operators::SORT_BY_KEYS, input, vec![keys]);
        Ok(self.bind(SORT_INPUT.to_owned(), target, sorted))
    }
}
