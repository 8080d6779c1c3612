//! What things cost: while they run, and at most, before they run.
//!
//! The model is upstream's (`k8s.io/apiserver/pkg/cel/library/cost.go` over cel-go's `checker/cost.go` and
//! `interpreter/runtimecost.go`): what is charged decides which rules a cluster takes, so the numbers are upstream's.

mod estimate;
mod run;
mod size;

pub use estimate::{estimate, is_bind as estimate_is_bind};
pub use run::call;
pub use size::Range;

/// The cost of a selection or an identifier.
pub const SELECT: u64 = 1;
pub const LIST: u64 = 10;
pub const MAP: u64 = 30;
pub const STRUCT: u64 = 40;
/// An authorization check: two fit into one expression.
pub const CHECK: u64 = 350_000;
/// Of the length of a text that is read once.
const TRAVERSAL: f64 = 0.1;
/// Of the length of a regular expression, per unit of text.
const REGEX: f64 = 0.25;

/// How a function is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    One,
    Conditional,
    Logical,
    Equal,
    Compare,
    Add,
    In,
    /// The first argument once; the result is not a text of that length.
    Text,
    /// The first argument once; the result is as long.
    TextAlike,
    TextTwice,
    /// The items of a list, or a text.
    Traverse,
    Replace,
    Split,
    Join,
    Contains,
    Affix,
    Matches,
    Find,
    FormatString,
    Quote,
    ToBytes,
    ToString,
    ContainsIp,
    ContainsCidr,
    Validate,
    Selector,
    Check,
    /// Each pair of items, so many times.
    Sets(u8),
    Slice,
    Flatten,
    Range,
    Reverse,
    Distinct,
    Sort,
    SortBy,
}

fn times(size: u64, factor: f64) -> u64 {
    let product = (size as f64 * factor).ceil();
    if product >= u64::MAX as f64 { u64::MAX } else { product as u64 }
}
