//! ResourceQuota: what an object uses, which quotas that concerns, and whether they have room for it. Admission charges
//! with it when an object comes, and the controller counts with it what is there.

mod amounts;
mod charge;
mod evaluator;
mod facts;
pub mod pod;
mod scope;

pub use amounts::{Amounts, amounts, to_map};
pub use charge::{Ask, check};
pub use evaluator::Evaluator;
pub use facts::Facts;
pub use scope::Scope;

use serde_json::Value;

use crate::Fields;

/// A ResourceQuota as it is worked with.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    pub name: String,
    /// What its status says of the limits: those that are in force.
    pub hard: Amounts,
    pub used: Amounts,
    pub scopes: Vec<Scope>,
}

impl Quota {
    pub fn read(quota: &Value) -> Quota {
        let status = quota.part("status");
        Quota {
            name: quota.part("metadata").text("name").to_owned(),
            hard: amounts(status.part("hard")),
            used: amounts(status.part("used")),
            scopes: Scope::all(quota.part("spec")),
        }
    }

    /// The quota counts objects of this kind, and this one is within its scopes.
    pub fn concerns(&self, evaluator: &Evaluator, facts: &Facts) -> bool {
        self.hard.keys().any(|name| evaluator.covers(name)) && self.scopes.iter().all(|scope| facts.is_in(scope))
    }
}
