//! No two members lead in one term.

use std::collections::BTreeMap;

use crate::sim::history::Inner;

pub(in crate::sim) fn check(history: &Inner) -> Result<(), String> {
    let mut leaders = BTreeMap::new();
    for (term, id) in &history.leaders {
        let first = *leaders.entry(*term).or_insert(*id);
        if first != *id {
            return Err(format!("leaders: {first} and {id} both led in term {term}"));
        }
    }
    Ok(())
}
