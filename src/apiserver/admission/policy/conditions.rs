//! `matchConditions`: expressions that all must hold.

use cel::{Budget, MATCH_CONDITIONS_COST_MAX, Value as Cel};

use super::compile::Named;
use super::input::{Input, Stopped};

/// Whether the conditions hold. One that does not settles it, whatever became of the others; else the first errors
/// count, in upstream's words.
pub fn hold(conditions: &[Named], input: &Input<'_>) -> Result<bool, String> {
    let mut budget = Budget::new(MATCH_CONDITIONS_COST_MAX);
    let mut errors: Vec<String> = Vec::new();
    for condition in conditions {
        match input.evaluate(&condition.compiled, &mut budget) {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => return Ok(false),
            Err(Stopped::Budget) => {
                errors.push(Stopped::Budget.text());
                break;
            }
            Err(Stopped::Failed(why)) => errors.push(why),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}
