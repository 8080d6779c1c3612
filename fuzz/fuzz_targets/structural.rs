//! Schemas of custom resources, and objects under them: the two are cut at a zero.

#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::structural::{Structural, default, prune, validate};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let mut next = || serde_json::from_slice::<serde_json::Value>(parts.next().unwrap_or_default()).ok();
    let Some(schema) = next().and_then(|schema| Structural::parse(&schema).ok()) else { return };
    let mut object = next().unwrap_or_else(fuzz::pod);
    default(&mut object, &schema);
    let _ = prune(&mut object, &schema, true);
    let _ = validate(&object, &schema, None, "");
});
