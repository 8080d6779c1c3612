//! The least and the most that an expression can cost, from the bounds of what it is about.

use std::collections::HashMap;

use super::run::selector;
use super::{CHECK, Cost, LIST, MAP, REGEX, Range, SELECT, STRUCT, TRAVERSAL};
use crate::check::{Checked, Name};
use crate::env::Env;
use crate::library::format::REGEX_SIZE_MAX;
use crate::syntax::ast::{Expr, Fold, Id, Kind, Literal, operators};
use crate::types::{self, Decl, Type, declared_field};

/// Estimates a checked expression (upstream: `checker.Cost`).
pub fn estimate(env: &Env, checked: &Checked, expr: &Expr) -> Range {
    Estimator {
        env,
        checked,
        sizes: HashMap::new(),
        entries: HashMap::new(),
        decls: HashMap::new(),
        locals: Vec::new(),
    }
    .cost(expr)
}

/// Sizes of the keys (or indices) and values of a list or map made in the expression.
#[derive(Clone, Copy)]
struct Entries {
    is_list: bool,
    key: Range,
    value: Range,
}

/// Where a value comes from in the declarations.
#[derive(Clone)]
enum Origin {
    Declared(Decl),
    /// The key of a declared map: upstream gives it no size.
    Key,
}

/// A variable of a loop.
struct Local {
    name: String,
    origin: Option<Origin>,
    size: Option<Range>,
    entries: Option<Entries>,
}

struct Estimator<'e> {
    env: &'e Env,
    checked: &'e Checked,
    sizes: HashMap<Id, Range>,
    entries: HashMap<Id, Entries>,
    decls: HashMap<Id, Option<Origin>>,
    locals: Vec<Local>,
}

/// What one overload costs besides its arguments, and the size of what it returns.
struct Estimate {
    cost: Range,
    size: Option<Range>,
}

fn only(cost: Range) -> Estimate {
    Estimate { cost, size: None }
}

impl Estimator<'_> {
    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => Range::ZERO,
            Kind::Ident(name) => {
                let origin = match self.local(name) {
                    Some(local) => local.origin.clone(),
                    None => self.env.variable_decl(name.trim_start_matches('.')).map(Origin::Declared),
                };
                self.decls.insert(expr.id, origin);
                Range::fixed(SELECT)
            }
            Kind::Select { operand, field, test } => self.selection(expr, operand, field, *test),
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(items) => {
                let mut sum = Range::fixed(LIST);
                let mut value = Range { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for item in items {
                    sum = sum.plus(self.cost(&item.value));
                    value = value.union(self.size_or_unknown(&item.value));
                }
                self.entries.insert(expr.id, Entries { is_list: true, key: Range::ONE, value });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Range::fixed(MAP);
                let blank = Range { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut key, mut value) = (blank, blank);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entries { is_list: false, key, value });
                sum
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Range::fixed(STRUCT), |sum, field| sum.plus(self.cost(&field.value)))
            }
            Kind::Fold(fold) if is_bind(fold) => self.bind(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn origin(&self, expr: &Expr) -> Option<Origin> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.origin.clone();
        }
        self.decls.get(&expr.id).cloned().flatten()
    }

    fn selection(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Range {
        if test {
            return self.cost(operand);
        }
        // A variable with dots in its name.
        if let Some(Name::Variable(name)) = self.checked.note(expr.id).and_then(|note| note.name.as_ref()) {
            self.decls.insert(expr.id, self.env.variable_decl(name).map(Origin::Declared));
            return Range::fixed(SELECT);
        }
        let mut sum = self.cost(operand);
        if matches!(self.checked.ty(operand), Type::Map(_) | Type::Object(_) | Type::Param(_)) {
            sum = sum.plus(Range::fixed(SELECT));
        }
        let origin = match self.origin(operand) {
            Some(Origin::Declared(Decl::Object(object) | Decl::Plain(Type::Object(object)))) => {
                declared_field(&*object, field).map(Origin::Declared)
            }
            _ => None,
        };
        self.decls.insert(expr.id, origin);
        sum
    }

    fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Range {
        if function == "dyn"
            && let [arg] = args
        {
            let cost = self.cost(arg).plus(Range::ONE);
            self.copy(expr, arg);
            return cost;
        }
        let Some(call) = self.checked.note(expr.id).and_then(|note| note.call.clone()) else {
            // An optional selection: an identifier's cost for the selection.
            return args.iter().fold(Range::ONE, |sum, arg| sum.plus(self.cost(arg)));
        };
        let all: Vec<&Expr> =
            if call.namespaced { args.iter().collect() } else { target.into_iter().chain(args).collect() };
        let costs: Vec<Range> = all.iter().map(|arg| self.cost(arg)).collect();
        let arguments = costs.iter().fold(Range::ZERO, |sum, cost| sum.plus(*cost));
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        let is_index = function == operators::INDEX;
        for index in &call.chosen {
            let Some((overload, declared)) = call.declared.overloads.get(*index) else { continue };
            let found = match declared.cost {
                Cost::Logical => {
                    let (left, right) = (costs.first().copied(), costs.get(1).copied());
                    let (left, right) = (left.unwrap_or(Range::ZERO), right.unwrap_or(Range::ZERO));
                    only(Range { min: left.min, max: left.plus(right).max })
                }
                Cost::Conditional => self.conditional(expr, &all, &costs),
                kind => {
                    let one = self.overload(expr, kind, &overload.params, target.is_some() && !call.namespaced, &all);
                    Estimate { cost: one.cost.plus(arguments), size: one.size }
                }
            };
            cost = cost.union(found.cost);
            size = match (size, found.size) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if is_index && let Some(of) = all.first() {
                size = self.entries_of(of).map(|entries| entries.value);
                let origin = match self.origin(of) {
                    Some(Origin::Declared(Decl::List { items, .. })) => Some(Origin::Declared((*items).clone())),
                    Some(Origin::Declared(Decl::Map { values, .. })) => Some(Origin::Declared((*values).clone())),
                    _ => None,
                };
                self.decls.insert(expr.id, origin);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        if call.chosen.is_empty() { Range::ZERO } else { cost }
    }

    fn conditional(&mut self, expr: &Expr, all: &[&Expr], costs: &[Range]) -> Estimate {
        let (&[_, then, otherwise], &[condition, a, b]) = (all, costs) else { return only(Range::ZERO) };
        let size = self.size_or_unknown(then).union(self.size_or_unknown(otherwise));
        if let (Some(x), Some(y)) = (self.entries_of(then), self.entries_of(otherwise)) {
            self.entries.insert(expr.id, united(x, y));
        }
        Estimate { cost: condition.plus(a.union(b)), size: Some(size) }
    }

    /// One overload; `all` are its arguments, the target first.
    fn overload(&mut self, expr: &Expr, kind: Cost, params: &[Type], member: bool, all: &[&Expr]) -> Estimate {
        let sizes: Vec<Range> = all.iter().map(|arg| self.size_or_unknown(arg)).collect();
        let size = |index: usize| sizes.get(index).copied().unwrap_or(Range::UNKNOWN);
        let first = params.first();
        match kind {
            Cost::One | Cost::Conditional | Cost::Logical => only(Range::ONE),
            Cost::Equal | Cost::Compare => {
                if kind == Cost::Equal
                    && let [a, b] = all
                    && let Some(cost) = self.library_equality(a, b, &sizes)
                {
                    return only(cost);
                }
                let compared = !matches!(kind, Cost::Compare)
                    || matches!(first, Some(Type::String | Type::Bytes | Type::Param(_)));
                if !compared {
                    return only(Range::ONE);
                }
                let max = size(0).max.min(size(1).max);
                only(Range { min: u64::from(max > 0), max }.scaled(TRAVERSAL))
            }
            Cost::Add => self.add(expr, first, all, size(0).plus(size(1))),
            Cost::In => only(if matches!(params.get(1), Some(Type::List(_))) { size(1) } else { Range::ONE }),
            Cost::Text => only(size(0).scaled(TRAVERSAL)),
            Cost::TextAlike => Estimate { cost: size(0).scaled(TRAVERSAL), size: Some(size(0)) },
            Cost::TextTwice => only(size(0).scaled(2.0 * TRAVERSAL)),
            Cost::Traverse => only(self.traversed(all, size(0))),
            Cost::Replace => {
                Estimate { cost: size(0).scaled(2.0 * TRAVERSAL), size: Some(replaced(size(0), size(1), size(2))) }
            }
            Cost::Split => {
                let max = all.get(2).and_then(|limit| constant(limit)).unwrap_or(size(0).max);
                Estimate { cost: size(0).scaled(2.0 * TRAVERSAL), size: Some(Range { min: 0, max }) }
            }
            Cost::Join => {
                let mut joined = Range::ZERO;
                if let Some(item) = self.item_size(all) {
                    joined = size(0).times(item);
                }
                if all.len() > 1 {
                    let gaps = Range { min: size(0).min.saturating_sub(1), max: size(0).max.saturating_sub(1) };
                    joined = joined.plus(size(1).times(gaps));
                }
                Estimate { cost: joined.scaled(TRAVERSAL), size: Some(joined) }
            }
            Cost::Contains => only(size(0).scaled(TRAVERSAL).times(size(1).scaled(TRAVERSAL))),
            Cost::Affix => only(size(1).scaled(TRAVERSAL)),
            Cost::Matches if !member => only(Range::ONE),
            Cost::Matches => only(size(0).plus(Range::ONE).scaled(TRAVERSAL).times(size(1).scaled(REGEX))),
            Cost::Find => Estimate {
                cost: size(0).plus(Range::ONE).scaled(TRAVERSAL).times(size(1).scaled(REGEX)),
                size: Some(Range { min: 0, max: size(0).max }),
            },
            Cost::FormatString => only(size(0).scaled(TRAVERSAL)),
            Cost::Quote => Estimate {
                cost: size(0).scaled(TRAVERSAL),
                size: Some(Range {
                    min: size(0).min.saturating_add(2),
                    max: size(0).max.saturating_mul(2).saturating_add(2),
                }),
            },
            Cost::ToBytes if matches!(first, Some(Type::String)) => Estimate {
                cost: size(0).scaled(TRAVERSAL),
                size: Some(Range { min: size(0).min, max: size(0).max.saturating_mul(4) }),
            },
            Cost::ToString if matches!(first, Some(Type::Bytes)) => Estimate {
                cost: size(0).scaled(TRAVERSAL),
                size: Some(Range { min: size(0).min / 4, max: size(0).max }),
            },
            Cost::ToBytes | Cost::ToString => only(Range::ONE),
            Cost::ContainsIp | Cost::ContainsCidr => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = bytes.plus(bytes).scaled(TRAVERSAL);
                if kind == Cost::ContainsCidr {
                    cost = cost.plus(bytes.scaled(TRAVERSAL)).plus(Range::ONE);
                }
                if matches!(params.get(1), Some(Type::String)) {
                    cost = cost.plus(size(1).scaled(TRAVERSAL));
                }
                only(cost)
            }
            Cost::Validate => only(size(1).scaled(TRAVERSAL).scaled(REGEX_SIZE_MAX as f64 * REGEX)),
            Cost::Selector => only(Range { min: selector(size(1).min), max: selector(size(1).max) }),
            Cost::Check => only(Range::fixed(CHECK)),
            Cost::Sets(factor) => only(size(0).times(size(1)).scaled(f64::from(factor)).plus(Range::ONE)),
            Cost::Slice => {
                let start = all.get(1).and_then(|start| constant(start)).unwrap_or(0);
                let end = all.get(2).and_then(|end| constant(end)).unwrap_or(size(0).max);
                made(1.0, Range::fixed(end.saturating_sub(start)))
            }
            Cost::Range => made(1.0, Range::fixed(all.first().and_then(|n| constant(n)).unwrap_or(u64::MAX))),
            Cost::Reverse => made(1.0, size(0)),
            Cost::Flatten => {
                let levels = match all.get(1) {
                    Some(levels) => constant(levels).unwrap_or(u64::MAX),
                    None => 1,
                };
                made(levels as f64, size(0))
            }
            Cost::Distinct => made(2.0, size(0).times(size(0))),
            Cost::Sort | Cost::SortBy => {
                let (keys, keys_type) = if kind == Cost::Sort { (size(0), first) } else { (size(1), params.get(1)) };
                let text = matches!(keys_type, Some(Type::List(of)) if matches!(**of, Type::String | Type::Bytes));
                made(if text { 2.0 + TRAVERSAL } else { 2.0 }, keys.times(keys))
            }
        }
    }

    /// `None`: the operands' types are not of a library.
    fn library_equality(&self, a: &Expr, b: &Expr, sizes: &[Range]) -> Option<Range> {
        let (Type::Opaque(name, None), Type::Opaque(other, None)) = (self.checked.ty(a), self.checked.ty(b)) else {
            return None;
        };
        if name != other {
            return None;
        }
        const FORMAT_SIZE_MAX: u64 = 64;
        Some(match name {
            types::FORMAT => Range { min: 1, max: FORMAT_SIZE_MAX }.scaled(TRAVERSAL),
            types::URL => {
                let known = self.sizes.get(&b.id).map_or(1, |_| sizes.get(1).map_or(1, |size| size.max));
                Range { min: 1, max: known }.scaled(TRAVERSAL)
            }
            _ => Range::ONE,
        })
    }

    fn add(&mut self, expr: &Expr, first: Option<&Type>, all: &[&Expr], joined: Range) -> Estimate {
        match first {
            Some(Type::String | Type::Bytes) => Estimate { cost: joined.scaled(TRAVERSAL), size: Some(joined) },
            Some(Type::List(_)) => {
                if let [a, b] = all
                    && let (Some(x), Some(y)) = (self.entries_of(a), self.entries_of(b))
                {
                    self.entries.insert(expr.id, united(x, y));
                }
                Estimate { cost: Range::ONE, size: Some(joined) }
            }
            _ => only(Range::ONE),
        }
    }

    /// Each item, and what is in it if it is a text.
    fn traversed(&mut self, all: &[&Expr], size: Range) -> Range {
        let Some(target) = all.first() else { return Range::ONE };
        match self.checked.ty(target) {
            Type::List(item) => {
                let mut each = Range::ONE;
                if matches!(*item, Type::String | Type::Bytes) {
                    let inner = self.item_size(all).unwrap_or(Range::UNKNOWN);
                    each = each.plus(inner.scaled(TRAVERSAL));
                }
                size.times(each)
            }
            _ => size.scaled(TRAVERSAL),
        }
    }

    /// The declared size of the items of the first argument.
    fn item_size(&self, all: &[&Expr]) -> Option<Range> {
        let target = all.first()?;
        let Type::List(_) = self.checked.ty(target) else { return None };
        match self.origin(target) {
            Some(Origin::Declared(Decl::List { items, .. })) => Some(Range { min: 0, max: items.size_max() }),
            _ => Some(Range::UNKNOWN),
        }
    }

    fn bind(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.start));
        self.push_value(&fold.accumulator, &fold.start);
        sum = sum.plus(self.cost(&fold.result));
        self.copy(expr, &fold.result);
        self.locals.pop();
        sum
    }

    fn push_value(&mut self, name: &str, value: &Expr) {
        let local = Local {
            name: name.to_owned(),
            origin: self.origin(value),
            size: self.size(value),
            entries: self.entries_of(value),
        };
        self.locals.push(local);
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.start));
        self.push_value(&fold.accumulator, &fold.start);
        let entries = self.entries_of(&fold.range);
        let is_list =
            entries.map_or_else(|| matches!(self.checked.ty(&fold.range), Type::List(_)), |found| found.is_list);
        let (key, value) = match self.origin(&fold.range) {
            Some(Origin::Declared(Decl::List { items, .. })) if is_list => {
                (None, Some(Origin::Declared((*items).clone())))
            }
            Some(Origin::Declared(Decl::Map { values, .. })) if !is_list => {
                (Some(Origin::Key), Some(Origin::Declared((*values).clone())))
            }
            _ => (None, None),
        };
        let key = (key, entries.map(|found| found.key));
        let value = (value, entries.map(|found| found.value));
        let first = if fold.variable2.is_some() || !is_list { key } else { value.clone() };
        let mut push = |name: &str, (origin, size): (Option<Origin>, Option<Range>)| {
            self.locals.push(Local { name: name.to_owned(), origin, size, entries: None });
        };
        push(&fold.variable, first);
        if let Some(variable) = &fold.variable2 {
            push(variable, value);
        }
        let loop_cost = self.cost(&fold.condition);
        let step_cost = self.cost(&fold.step);
        self.locals.pop();
        if fold.variable2.is_some() {
            self.locals.pop();
        }
        sum = sum.plus(self.cost(&fold.result));
        self.locals.pop();
        let count = self.size_or_unknown(&fold.range);
        sum = sum.plus(count.times(step_cost.plus(loop_cost)));
        match &fold.start.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.start) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entries_of(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn copy(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entries_of(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(found) = self.sizes.get(&expr.id) {
            return Some(*found);
        }
        let literal = match &expr.kind {
            Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List(items) => Some(items.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = literal {
            return Some(Range::fixed(size as u64));
        }
        match self.origin(expr) {
            Some(Origin::Declared(Decl::Plain(Type::Dyn))) => {}
            Some(Origin::Declared(decl)) => {
                let found = Range { min: 0, max: decl.size_max() };
                self.sizes.insert(expr.id, found);
                return Some(found);
            }
            Some(Origin::Key) => return Some(Range::ZERO),
            _ => {}
        }
        if self.checked.ty(expr).is_scalar() {
            return Some(Range::ONE);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        if let Some(found) = self.entries.get(&expr.id) {
            return Some(*found);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }
}

fn united(a: Entries, b: Entries) -> Entries {
    Entries { is_list: a.is_list, key: a.key.union(b.key), value: a.value.union(b.value) }
}

/// A loop that is no loop: a name for a value.
pub fn is_bind(fold: &Fold) -> bool {
    matches!(&fold.range.kind, Kind::List(items) if items.is_empty())
        && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
}

fn constant(expr: &Expr) -> Option<u64> {
    match expr.kind {
        Kind::Literal(Literal::Int(value)) => u64::try_from(value).ok(),
        _ => None,
    }
}

fn made(factor: f64, size: Range) -> Estimate {
    Estimate { cost: size.scaled(factor).plus(Range::fixed(1 + LIST)), size: Some(size) }
}

/// How long a text can be after replacing: the most and the largest replacements, and the fewest and smallest.
fn replaced(text: Range, from: Range, to: Range) -> Range {
    let count = |text: u64, from: u64| (text as f64 / from as f64).ceil() as u64;
    let (max_count, max_kept) = if from.min == 0 {
        (text.max.saturating_add(1), text.max)
    } else if to.max <= from.min {
        (0, text.max)
    } else {
        (count(text.max, from.min), 0)
    };
    let (min_count, min_kept) = if from.max == 0 {
        (text.min.saturating_add(1), text.min)
    } else if from.max <= to.min {
        (0, text.min)
    } else {
        (count(text.min, from.max), 0)
    };
    Range { min: min_count, max: max_count }.times(to).plus(Range { min: min_kept, max: max_kept })
}
