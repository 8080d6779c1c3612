//! JWTs, whole and as payloads.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| apiserver::fuzz::token(input));
