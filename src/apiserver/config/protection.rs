//! How the server protects itself and what it holds. Defaults are upstream's.

use std::time::Duration;

use crate::{audit, encryption};

#[derive(Clone, Debug, Default)]
pub struct ProtectionOptions {
    pub audit: audit::Options,
    pub encryption: encryption::Options,
    /// How long the server goes on after it said that it is not ready any more.
    pub shutdown_delay: Duration,
}
