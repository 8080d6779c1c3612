//! The pods of this node.
//!
//! [`source`] knows which pods there shall be and keeps one [`worker`] per pod. A worker observes, lets [`plan`] decide,
//! begins what was decided and tells [`statuses`] how the pod is. [`status`] and [`plan`] are pure.

pub mod backoff;
pub mod context;
mod events;
pub mod observed;
pub mod plan;
pub mod source;
mod start;
mod static_pods;
pub mod status;
pub mod statuses;
mod stop;
mod store;
mod worker;

pub use context::Context;
pub use source::Pods;
