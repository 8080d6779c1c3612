//! Paths with their parameters: lists, watches, names, options.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| apiserver::fuzz::uri(text));
