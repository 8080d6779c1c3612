//! The room against a real kernel, in network namespaces that the tests make. Needs root.
#![expect(clippy::unwrap_used, reason = "this is all tests")]

mod apiserver;
#[path = "../../network/tests/hosts.rs"]
mod hosts;
mod services;
