//! Objects of all kinds: defaulted, prepared and validated.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(mut object) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    let text = |name: &str| object.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let Some(row) = api::Row::find_kind(text("apiVersion"), text("kind")) else { return };
    if let Some(ty) = schema::Types::builtin().api_version_kind(text("apiVersion"), text("kind"))
        && schema::validation::check_types(&object, ty).is_err()
    {
        return;
    }
    row.default(&mut object);
    row.prepare_create(&mut object);
    let _ = row.validate_create(&object);
    let old = object.clone();
    row.prepare_update(&mut object, &old, None);
    let _ = row.validate_update(&object, &old, None);
});
