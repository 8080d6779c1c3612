//! Headers of an authenticating proxy.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| apiserver::fuzz::front_proxy(text));
