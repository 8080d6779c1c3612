//! Loops.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::eval::{Evaluated, Evaluator};
use super::plan::{Gather, Loop, Made};
use crate::cost::{LIST, SELECT};
use crate::error::EvalError;
use crate::library::ITEMS_MAX;
use crate::value::{Key, Map, Value, show};

/// The values of a loop's variables, one turn after the other. Two variables get index or key, and value.
enum Turns<'a> {
    List(crate::value::List<'a>),
    Map(Map<'a>, Vec<Key<'a>>),
}

impl<'a> Turns<'a> {
    fn of(value: Value<'a>) -> Result<Turns<'a>, EvalError> {
        match value {
            Value::List(list) => Ok(Turns::List(list)),
            Value::Map(map) => {
                let keys = map.keys();
                Ok(Turns::Map(map, keys))
            }
            _ => Err(EvalError::no_overload()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Turns::List(list) => list.len(),
            Turns::Map(_, keys) => keys.len(),
        }
    }

    fn turn(&self, index: usize, two: bool) -> Result<(Value<'a>, Option<Value<'a>>), EvalError> {
        let gone = EvalError::no_overload;
        Ok(match self {
            Turns::List(list) => {
                let item = list.get(index).ok_or_else(gone)??;
                if two { (Value::Int(i64::try_from(index).unwrap_or(i64::MAX)), Some(item)) } else { (item, None) }
            }
            Turns::Map(map, keys) => {
                let key = keys.get(index).ok_or_else(gone)?;
                let value = if two { Some(map.get(key).ok_or_else(gone)??) } else { None };
                (key.value(), value)
            }
        })
    }
}

impl<'a> Evaluator<'a, '_> {
    /// Puts a turn's variables where the loop's body looks for them.
    fn enter(&mut self, outer: usize, turns: &Turns<'a>, index: usize, two: bool) -> Result<(), EvalError> {
        let (first, second) = turns.turn(index, two)?;
        self.locals.truncate(outer + 1);
        self.locals.push(Ok(first));
        self.locals.extend(second.map(Ok));
        Ok(())
    }
}

pub fn fold<'a>(evaluator: &mut Evaluator<'a, '_>, plan: &'a Loop) -> Evaluated<'a> {
    let turns = Turns::of(evaluator.eval(&plan.range)?)?;
    let start = evaluator.eval(&plan.start)?;
    let outer = evaluator.locals.len();
    evaluator.locals.push(Ok(start));
    let result = turn_all(evaluator, plan, &turns, outer);
    evaluator.locals.truncate(outer);
    result
}

fn turn_all<'a>(evaluator: &mut Evaluator<'a, '_>, plan: &'a Loop, turns: &Turns<'a>, outer: usize) -> Evaluated<'a> {
    for index in 0..turns.len() {
        evaluator.enter(outer, turns, index, plan.two)?;
        if !matches!(evaluator.eval(&plan.condition)?, Value::Bool(true)) {
            break;
        }
        let step = evaluator.eval(&plan.step);
        if let Err(error) = &step
            && error.is_final()
        {
            return step;
        }
        if let Some(accumulator) = evaluator.locals.get_mut(outer) {
            *accumulator = step;
        }
    }
    evaluator.locals.truncate(outer + 1);
    evaluator.eval(&plan.result)
}

/// Costs are those of the loop that it stands for: the accumulator, the literal around each item, the addition.
pub fn gather<'a>(evaluator: &mut Evaluator<'a, '_>, plan: &'a Gather) -> Evaluated<'a> {
    let turns = Turns::of(evaluator.eval(&plan.range)?)?;
    let outer = evaluator.locals.len();
    evaluator.locals.push(Ok(Value::Null));
    let made = match &plan.made {
        Made::Item(_) => gather_items(evaluator, plan, &turns, outer),
        _ => gather_entries(evaluator, plan, &turns, outer),
    };
    evaluator.locals.truncate(outer);
    let made = made?;
    evaluator.budget.charge(SELECT)?;
    Ok(made)
}

/// Whether this turn adds something.
fn wanted<'a>(
    evaluator: &mut Evaluator<'a, '_>,
    plan: &'a Gather,
    turns: &Turns<'a>,
    outer: usize,
    index: usize,
) -> Result<bool, EvalError> {
    evaluator.enter(outer, turns, index, plan.two)?;
    let wanted = match &plan.filter {
        None => true,
        Some(filter) => match evaluator.eval(filter)? {
            Value::Bool(wanted) => wanted,
            _ => return Err(EvalError::no_overload()),
        },
    };
    evaluator.budget.charge(SELECT)?;
    Ok(wanted)
}

fn gather_items<'a>(
    evaluator: &mut Evaluator<'a, '_>,
    plan: &'a Gather,
    turns: &Turns<'a>,
    outer: usize,
) -> Evaluated<'a> {
    let mut items = Vec::new();
    for index in 0..turns.len() {
        if wanted(evaluator, plan, turns, outer, index)?
            && let Made::Item(item) = &plan.made
        {
            items.push(evaluator.eval(item)?);
            evaluator.budget.charge(LIST + 1)?;
        }
    }
    Ok(Value::list(items))
}

fn gather_entries<'a>(
    evaluator: &mut Evaluator<'a, '_>,
    plan: &'a Gather,
    turns: &Turns<'a>,
    outer: usize,
) -> Evaluated<'a> {
    let mut entries = BTreeMap::new();
    let mut insert = |key: Key<'a>, value: Value<'a>| {
        let shown = show::key(&key);
        if entries.len() >= ITEMS_MAX {
            return Err(EvalError::failed("resulting map is too large"));
        }
        match entries.insert(key, value) {
            Some(_) => Err(EvalError::failed(format!("insert failed: key {shown} already exists"))),
            None => Ok(()),
        }
    };
    for index in 0..turns.len() {
        if !wanted(evaluator, plan, turns, outer, index)? {
            continue;
        }
        match &plan.made {
            Made::Item(_) => {}
            Made::Entry(key, value) => {
                let key = evaluator.eval(key)?;
                let value = evaluator.eval(value)?;
                insert(Key::of(&key).ok_or_else(EvalError::no_overload)?, value)?;
            }
            Made::Entries(more) => {
                let Value::Map(more) = evaluator.eval(more)? else { return Err(EvalError::no_overload()) };
                for key in more.keys() {
                    if let Some(value) = more.get(&key) {
                        insert(key, value?)?;
                    }
                }
            }
        }
        evaluator.budget.charge(1)?;
    }
    Ok(Value::Map(Map::Shared(Arc::new(entries))))
}
