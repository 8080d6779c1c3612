//! The real executable in network namespaces, driven by real clients. Each story makes the hosts that it needs, each a
//! network namespace, and removes them whether it ends well or not.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests end loudly")]

mod house;
mod stories;
mod support;
