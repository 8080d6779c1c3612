//! The subcommands that are over in a moment.

pub mod image;
pub mod snapshot;
pub mod status;
pub mod token;
pub mod uninstall;
