//! Runs a node's pods.
