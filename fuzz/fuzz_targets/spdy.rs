//! SPDY frames and the header blocks in them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| streaming::fuzz::spdy(input));
