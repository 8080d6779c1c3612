//! Evaluation: the checked tree becomes a plan, the plan a value.

mod eval;
mod fold;
mod plan;

pub use eval::evaluate;
pub use plan::{Node, plan};
