//! Walks a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fold;
use super::plan::Node;
use crate::budget::Budget;
use crate::cost::{self, LIST, MAP, SELECT, STRUCT};
use crate::env::Activation;
use crate::error::EvalError;
use crate::library::{Function, re};
use crate::value::{Key, Map, Struct, Text, Value};

pub type Evaluated<'a> = Result<Value<'a>, EvalError>;

pub struct Evaluator<'a, 'b> {
    pub activation: &'a dyn Activation,
    pub budget: &'b mut Budget,
    /// What loops around hold; an error waits in an accumulator for what may absorb it.
    pub locals: Vec<Evaluated<'a>>,
}

/// The value of a plan. The caller accounts for the evaluation in the budget.
pub fn evaluate<'a>(node: &'a Node, activation: &'a dyn Activation, budget: &mut Budget) -> Evaluated<'a> {
    Evaluator { activation, budget, locals: Vec::new() }.eval(node)
}

impl<'a> Evaluator<'a, '_> {
    pub fn eval(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.budget.descend()?;
        let value = self.value(node);
        self.budget.ascend();
        value
    }

    /// Each kind has a function of its own, so that none pays stack for the others.
    fn value(&mut self, node: &'a Node) -> Evaluated<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Variable(name) => self.variable(name),
            Node::Local(place) => self.local(*place),
            Node::Select { operand, field, optional } => self.select(operand, field, *optional),
            Node::Has { operand, field } => self.has(operand, field),
            Node::Index { operand, index, optional } => self.index(operand, index, *optional),
            Node::And(terms) => self.logical(&terms.0, &terms.1, false),
            Node::Or(terms) => self.logical(&terms.0, &terms.1, true),
            Node::If(parts) => self.choose(&parts.0, &parts.1, &parts.2),
            Node::NotStrictlyFalse(inner) => self.not_strictly_false(inner),
            Node::Call { functions, args, regex } => self.call(functions, args, regex.as_deref()),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct { name, fields } => self.structure(name, fields),
            Node::Fold(plan) => fold::fold(self, plan),
            Node::Gather(plan) => fold::gather(self, plan),
            Node::Bind(parts) => self.bind(&parts.0, &parts.1),
        }
    }

    fn variable(&mut self, name: &str) -> Evaluated<'a> {
        self.budget.charge(SELECT)?;
        let found = self.activation.variable(name, self.budget);
        found.unwrap_or_else(|| Err(EvalError::failed(format!("no such attribute(s): {name}"))))
    }

    fn local(&mut self, place: usize) -> Evaluated<'a> {
        self.budget.charge(SELECT)?;
        self.locals.get(place).cloned().unwrap_or_else(|| Err(EvalError::no_overload()))
    }

    fn select(&mut self, operand: &'a Node, field: &str, optional: bool) -> Evaluated<'a> {
        let value = self.eval(operand)?;
        self.budget.charge(qualified(operand))?;
        if optional { self.optional_field(&value, field) } else { self.field(&value, field) }
    }

    fn has(&mut self, operand: &'a Node, field: &str) -> Evaluated<'a> {
        let value = self.eval(operand)?;
        has(&value, field).map(Value::Bool)
    }

    fn index(&mut self, operand: &'a Node, index: &'a Node, optional: bool) -> Evaluated<'a> {
        let value = self.eval(operand)?;
        let key = self.eval(index)?;
        let computed = u64::from(!is_attribute(index));
        self.budget.charge(computed + qualified(operand) - SELECT)?;
        index_of(&value, &key, optional)
    }

    fn choose(&mut self, condition: &'a Node, then: &'a Node, otherwise: &'a Node) -> Evaluated<'a> {
        match self.eval(condition)? {
            Value::Bool(true) => self.eval(then),
            Value::Bool(false) => self.eval(otherwise),
            _ => Err(EvalError::no_overload()),
        }
    }

    fn not_strictly_false(&mut self, inner: &'a Node) -> Evaluated<'a> {
        let value = self.eval(inner);
        self.budget.charge(1)?;
        match value {
            Err(error) if error.is_final() => Err(error),
            Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn list(&mut self, items: &'a [(Node, bool)]) -> Evaluated<'a> {
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.eval(item)?;
            list.extend(present(value, *optional)?);
        }
        self.budget.charge(LIST)?;
        Ok(Value::list(list))
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Evaluated<'a> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = self.eval(value)?;
            enter(&mut map, &key, present(value, *optional)?)?;
        }
        self.budget.charge(MAP)?;
        Ok(Value::Map(Map::Shared(Arc::new(map))))
    }

    fn structure(&mut self, name: &Arc<str>, fields: &'a [(Box<str>, Node, bool)]) -> Evaluated<'a> {
        let mut map = BTreeMap::new();
        for (field, value, optional) in fields {
            let value = self.eval(value)?;
            if let Some(value) = present(value, *optional)? {
                map.insert(Key::String(Text::Borrowed(field)), value);
            }
        }
        self.budget.charge(STRUCT)?;
        let fields = Map::Shared(Arc::new(map));
        Ok(Value::Struct(Arc::new(Struct { name: name.clone(), fields })))
    }

    fn bind(&mut self, value: &'a Node, result: &'a Node) -> Evaluated<'a> {
        self.budget.charge(LIST)?;
        let value = self.eval(value);
        if let Err(error) = &value
            && error.is_final()
        {
            return value;
        }
        self.locals.push(value);
        let result = self.eval(result);
        self.locals.pop();
        result
    }

    /// `&&` and `||`: the deciding value of either side counts, even if the other failed.
    fn logical(&mut self, left: &'a Node, right: &'a Node, decides: bool) -> Evaluated<'a> {
        let first = match self.eval(left) {
            Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
            Ok(Value::Bool(_)) => None,
            Ok(_) => Some(EvalError::no_overload()),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => Some(error),
        };
        match self.eval(right)? {
            Value::Bool(value) if value == decides => Ok(Value::Bool(decides)),
            Value::Bool(value) => first.map_or(Ok(Value::Bool(value)), Err),
            _ => Err(first.unwrap_or_else(EvalError::no_overload)),
        }
    }

    fn call(
        &mut self,
        functions: &[&'static Function],
        args: &'a [Node],
        regex: Option<&regex::Regex>,
    ) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.eval(arg)?);
        }
        self.invoke(functions, &values, regex)
    }

    fn invoke(
        &mut self,
        functions: &[&'static Function],
        args: &[Value<'a>],
        regex: Option<&regex::Regex>,
    ) -> Evaluated<'a> {
        for function in functions {
            let result = match regex {
                Some(regex) => re::call(function.name, args, regex),
                None => (function.run)(args),
            };
            match result {
                Err(error) if error == EvalError::no_overload() => {}
                Err(error) => return Err(error),
                Ok(value) => {
                    self.budget.charge(cost::call(function.cost, args, &value))?;
                    return Ok(value);
                }
            }
        }
        Err(EvalError::no_overload())
    }

    fn field(&mut self, value: &Value<'a>, name: &str) -> Evaluated<'a> {
        if let Value::Optional(_) = value {
            return self.optional_field(value, name);
        }
        self.find(value, name).unwrap_or_else(|| Err(EvalError::failed(format!("no such key: {name}"))))
    }

    fn optional_field(&mut self, value: &Value<'a>, name: &str) -> Evaluated<'a> {
        let of = match value {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(of)) => (**of).clone(),
            other => other.clone(),
        };
        Ok(match self.find(&of, name) {
            Some(found) => Value::some(found?),
            None => Value::Optional(None),
        })
    }

    fn find(&mut self, value: &Value<'a>, name: &str) -> Option<Evaluated<'a>> {
        match value {
            Value::Map(map) => map.field(name),
            Value::Struct(of) => of.fields.field(name),
            Value::Lazy(fields) => fields.field(name, self.budget),
            _ => None,
        }
    }
}

/// An identifier, or what is reached from one.
fn is_attribute(node: &Node) -> bool {
    matches!(node, Node::Variable(_) | Node::Local(_) | Node::Select { .. } | Node::Index { .. })
}

/// The cost of one more step; what a call returned first becomes something to take steps from.
fn qualified(operand: &Node) -> u64 {
    if is_attribute(operand) { SELECT } else { 2 * SELECT }
}

fn has(value: &Value<'_>, field: &str) -> Result<bool, EvalError> {
    Ok(match value {
        Value::Map(map) => map.has(field),
        Value::Struct(of) => of.fields.has(field),
        Value::Optional(None) => false,
        Value::Optional(Some(of)) => has(of, field)?,
        // Declared fields of such a value are all there.
        Value::Lazy(_) => true,
        _ => return Err(EvalError::no_overload()),
    })
}

fn index_of<'a>(value: &Value<'a>, key: &Value<'a>, optional: bool) -> Evaluated<'a> {
    match value {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(of)) => return index_of(of, key, true),
        _ => {}
    }
    let found = match value {
        Value::List(list) => {
            let place = match key {
                Value::Int(place) => Some(*place),
                Value::Uint(place) => i64::try_from(*place).ok(),
                Value::Double(place) if place.fract() == 0.0 => Some(*place as i64),
                other => {
                    let kind = other.type_name();
                    return Err(EvalError::failed(format!("unsupported index type '{kind}' in list")));
                }
            };
            let found = place.and_then(|place| usize::try_from(place).ok()).and_then(|place| list.get(place));
            found.ok_or_else(|| EvalError::failed(format!("index out of bounds: {}", place.unwrap_or(i64::MAX))))
        }
        Value::Map(map) => Key::of(key).and_then(|key| map.get(&key)).ok_or_else(|| EvalError::no_key(key)),
        Value::Struct(of) => Key::of(key).and_then(|key| of.fields.get(&key)).ok_or_else(|| EvalError::no_key(key)),
        _ => return Err(EvalError::no_overload()),
    };
    match found {
        Ok(found) if optional => Ok(Value::some(found?)),
        Ok(found) => found,
        Err(_) if optional => Ok(Value::Optional(None)),
        Err(error) => Err(error),
    }
}

/// An entry of a map that is being made; no key comes twice.
fn enter<'a>(
    map: &mut BTreeMap<Key<'a>, Value<'a>>,
    key: &Value<'a>,
    value: Option<Value<'a>>,
) -> Result<(), EvalError> {
    let key = Key::of(key).ok_or_else(|| EvalError::failed(format!("unsupported key type: {}", key.type_name())))?;
    let Some(value) = value else { return Ok(()) };
    let shown = crate::value::show::key(&key);
    match map.insert(key, value) {
        Some(_) => Err(EvalError::failed(format!("Failed with repeated key: {shown}"))),
        None => Ok(()),
    }
}

/// What stands in a literal for this value; nothing for an absent optional.
fn present(value: Value<'_>, optional: bool) -> Result<Option<Value<'_>>, EvalError> {
    if !optional {
        return Ok(Some(value));
    }
    match value {
        Value::Optional(of) => Ok(of.map(|value| (*value).clone())),
        other => {
            let shown = crate::value::show::literal(&other);
            Err(EvalError::failed(format!("cannot initialize optional list element from non-optional value {shown}")))
        }
    }
}
