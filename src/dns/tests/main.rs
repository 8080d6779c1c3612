//! The name server on sockets, in network namespaces that the tests make. Needs root.
#![expect(clippy::unwrap_used, reason = "this is all tests")]

#[path = "../../proxy/tests/apiserver.rs"]
mod apiserver;
#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "../../network/tests/hosts.rs"]
mod hosts;
mod names;
