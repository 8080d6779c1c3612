//! Layers: compression and tar headers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| images::fuzz::layer(input));
