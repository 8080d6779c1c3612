//! `matchConditions`: expressions that all must hold, of policies and of webhooks.

use api::{Failure, Fields, Row};
use cel::{Budget, Decl, MATCH_CONDITIONS_COST_MAX, Value as Cel};
use serde_json::Value;

use super::compile::{Compiled, Named, Purpose, compile};
use super::declared::{Extras, environment};
use super::input::{Input, Stopped};
use super::permissions::Permissions;
use crate::admission::Attributes;
use crate::server::ApiServer;

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

/// The conditions of a webhook, which sees neither parameters nor variables.
#[derive(Default)]
pub struct Conditions {
    conditions: Vec<Named>,
}

impl Conditions {
    pub fn compile(conditions: &[Value]) -> Conditions {
        if conditions.is_empty() {
            return Conditions::default();
        }
        let env = environment(Decl::dynamic(), Decl::dynamic(), Extras { authorizer: true, ..Extras::default() });
        let one = |condition: &Value| {
            let text = condition.text("expression").to_owned();
            let program = compile(&env, &text, Purpose::Condition);
            Named { name: condition.text("name").to_owned(), compiled: Compiled { text, program } }
        };
        Conditions { conditions: conditions.iter().map(one).collect() }
    }

    /// The expressions with what is wrong with them.
    pub fn errors(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.conditions.iter().enumerate().filter_map(|(index, condition)| {
            let why = condition.compiled.program.as_ref().err()?;
            Some((index, condition.compiled.text.as_str(), why.as_str()))
        })
    }

    /// Whether a request counts, in the version of `row`. Errors refuse it unless failures are ignored, which makes it
    /// not count.
    pub async fn hold(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        row: &Row,
        object: Option<&Value>,
        old: Option<&Value>,
        ignores_failures: bool,
    ) -> Result<bool, Failure> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let object = super::shown(server, attributes, row, object).await?;
        let old = super::shown(server, attributes, row, old).await?;
        let permissions = Permissions::new(attributes.user);
        let held = permissions.settle(server, || {
            let mut input = Input::new(attributes, row, &permissions, &[]);
            (input.object, input.old) = (object.as_deref(), old.as_deref());
            hold(&self.conditions, &input)
        });
        match held.await? {
            Ok(held) => Ok(held),
            Err(_) if ignores_failures => Ok(false),
            Err(why) => Err(attributes.refuse(why)),
        }
    }
}
