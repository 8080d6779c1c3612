//! WebSocket messages as channels.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| streaming::fuzz::channels(input));
