//! EncryptionConfiguration.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| apiserver::fuzz::encryption_config(text));
