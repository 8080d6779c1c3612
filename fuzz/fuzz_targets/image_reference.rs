//! References to images, registries.yaml and challenges of registries.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    images::fuzz::reference(text);
    images::fuzz::registries(text);
    images::fuzz::challenge(text);
});
