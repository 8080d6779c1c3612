//! Merge and strategic merge patches on a Pod.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(patch) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    let mut object = fuzz::pod();
    schema::patch::merge(&mut object, patch.clone());
    let mut object = fuzz::pod();
    if let Some(ty) = schema::Types::builtin().kind("", "v1", "Pod") {
        let _ = schema::patch::strategic_merge(&mut object, patch, ty);
    }
});
