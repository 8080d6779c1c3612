//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: programs of the administrator's that change or refuse
//! objects.
//!
//! Configurations are compiled when they change ([`hooks`]); for a request [`matching`] says which hooks are asked,
//! [`review`] what they are asked and what their answers mean. Mutating hooks are called one after the other, since
//! each sees what the one before made; validating hooks at the same time. Hooks are never asked about their own
//! configurations, so that a broken one can be removed.

mod call;
mod figures;
pub(super) mod hooks;
pub(super) mod matching;
mod mutating;
mod review;
#[cfg(test)]
mod tests;
mod validating;

pub use figures::Figures;
pub use mutating::MutatingAdmissionWebhook;
pub use validating::ValidatingAdmissionWebhook;
