//! The container runtime interface's wire types.
