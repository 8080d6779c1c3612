//! JSON patches on an object.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(patch) = schema::patch::JsonPatch::parse(input) else { return };
    let mut object = fuzz::pod();
    let _ = patch.apply(&mut object);
});
