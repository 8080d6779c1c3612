//! The room against a real kernel.
