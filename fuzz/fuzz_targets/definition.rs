//! CustomResourceDefinitions: validated and compiled.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(mut definition) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    let Some(row) = api::Row::find("apiextensions.k8s.io", "v1", "customresourcedefinitions") else { return };
    row.default(&mut definition);
    row.prepare_create(&mut definition);
    if row.validate_create(&definition).is_empty() {
        let _ = api::custom::Definition::compile(&definition);
    }
});
