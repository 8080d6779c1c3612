//! What is encrypted in the store.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| apiserver::fuzz::sealed(input));
