//! The three kinds of patches that clients send, besides server-side apply.
//!
//! All work on a document in place; when one fails the document may be half patched and is to be thrown
//! away, as a request that fails stores nothing.

mod json;
mod merge;
mod strategic;

pub use json::{JsonPatch, JsonPatchError, OPERATIONS_MAX};
pub use merge::{diff, merge};
pub use strategic::{StrategicError, strategic_merge};
