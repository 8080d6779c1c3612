//! Real containers: the runtime in a process of its own, driven over the CRI. Needs root. Pods have network
//! namespaces of their own and are connected to nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod basics;
mod confinement;
mod lifecycle;
mod node;
mod streams;
