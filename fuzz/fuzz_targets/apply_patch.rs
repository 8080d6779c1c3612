//! Applied configurations, field ownership included.

#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::managed::{Write, apply, update};

fuzz_target!(|input: &[u8]| {
    let Ok(config) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    let Some(ty) = schema::Types::builtin().kind("", "v1", "Pod") else { return };
    let now = "2026-01-01T00:00:00Z";
    let write = Write { ty, manager: "a", api_version: "v1", subresource: "", reset_fields: None, now };
    let mut live = fuzz::pod();
    update(None, &mut live, &write);
    let other = Write { manager: "b", ..write };
    if let Ok(applied) = apply(Some(&live), &config, true, &other) {
        let _ = apply(Some(&applied), &fuzz::pod(), false, &write);
    }
});
