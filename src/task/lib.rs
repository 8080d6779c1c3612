//! Supervised tasks and orderly shutdown.
