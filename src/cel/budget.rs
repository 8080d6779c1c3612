//! What evaluations may cost. One unit is roughly 50 ns.

use crate::error::EvalError;

/// What one evaluation may cost (upstream: `PerCallLimit`).
pub const CALL_COST_MAX: u64 = 1_000_000;
/// What all validation rules of one custom resource, or all policies of one request, may cost (upstream:
/// `RuntimeCELCostBudget`).
pub const REQUEST_COST_MAX: u64 = 10_000_000;
/// The same for match conditions and mutations (upstream: `RuntimeCELCostBudgetMatchConditions` is a quarter).
pub const MATCH_CONDITIONS_COST_MAX: u64 = 2_500_000;

/// How deep an evaluation may nest, evaluations within it included: variables of a policy may ask for each other.
const DEPTH_MAX: u32 = 400;

/// What is left for all evaluations that share it.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
    call_max: u64,
    /// Spent by the evaluation that runs.
    call: u64,
    depth: u32,
}

impl Budget {
    /// With upstream's limit for each evaluation.
    pub fn new(total: u64) -> Budget {
        Budget::with_call_limit(total, CALL_COST_MAX)
    }

    pub fn with_call_limit(total: u64, call_max: u64) -> Budget {
        Budget { left: total, call_max, call: 0, depth: 0 }
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes what something costs that is no expression.
    pub fn take(&mut self, cost: u64) -> Result<(), EvalError> {
        self.left = self.left.checked_sub(cost).ok_or_else(|| {
            self.left = 0;
            EvalError::Budget
        })?;
        Ok(())
    }

    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.call = self.call.saturating_add(cost);
        if self.call > self.call_max {
            return Err(EvalError::CallLimit);
        }
        self.take(cost)
    }

    /// A level deeper; refused where the thread's stack might not hold it.
    pub(crate) fn descend(&mut self) -> Result<(), EvalError> {
        if self.depth >= DEPTH_MAX {
            return Err(EvalError::failed("evaluation nests too deeply"));
        }
        self.depth += 1;
        Ok(())
    }

    pub(crate) fn ascend(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Starts an evaluation; what it returns is put back when it ends, for evaluations within evaluations.
    pub(crate) fn enter(&mut self) -> u64 {
        std::mem::take(&mut self.call)
    }

    /// Ends one; answers what it cost.
    pub(crate) fn leave(&mut self, outer: u64) -> u64 {
        std::mem::replace(&mut self.call, outer)
    }
}
