//! DNS messages, and what is answered.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| dns::fuzz::message(input));
