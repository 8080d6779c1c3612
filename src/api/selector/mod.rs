//! Label and field selectors: compiled once, evaluated on many objects.

mod field;
mod label;

pub use field::{FieldSelector, FieldTerm, SelectableField};
pub use label::{LabelSelector, Operator, Requirement};

/// A selector that cannot be read, with upstream's text; it becomes a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
