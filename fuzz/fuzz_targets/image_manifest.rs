//! Manifests, indexes and configurations of images.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| images::fuzz::manifest(input));
