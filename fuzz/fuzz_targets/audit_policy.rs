//! Audit policies.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| apiserver::fuzz::audit_policy(text));
