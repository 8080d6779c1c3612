//! The room against a real kernel, in network namespaces that the tests make. Needs root.
#![expect(clippy::unwrap_used, reason = "this is all tests")]

mod filter;
mod hosts;
mod node;
