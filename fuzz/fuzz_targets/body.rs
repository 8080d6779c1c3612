//! Request bodies in JSON, YAML and protobuf.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| apiserver::fuzz::body(input));
