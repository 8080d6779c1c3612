//! What can go wrong while an expression is evaluated.

use crate::value::{Value, show};

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression failed on these values; the text is upstream's.
    #[error("{0}")]
    Failed(String),
    /// This one evaluation went over the limit for each (upstream: `PerCallLimit`).
    #[error("operation cancelled: actual cost limit exceeded")]
    CallLimit,
    /// All evaluations together went over their budget (upstream: `RuntimeCELCostBudget`).
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
}

impl EvalError {
    pub fn failed(text: impl Into<String>) -> EvalError {
        EvalError::Failed(text.into())
    }

    pub fn no_overload() -> EvalError {
        EvalError::Failed("no such overload".to_owned())
    }

    pub fn no_key(key: &Value<'_>) -> EvalError {
        EvalError::Failed(format!("no such key: {}", show::plain(key)))
    }

    /// Neither `&&`, `||` nor a loop absorbs it.
    pub fn is_final(&self) -> bool {
        !matches!(self, EvalError::Failed(_))
    }
}
