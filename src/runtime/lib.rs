//! The embedded CRI runtime.
