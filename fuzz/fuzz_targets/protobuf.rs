//! Protobuf into values and back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::Types;
use schema::protobuf::{Encoder, decode};

fuzz_target!(|input: &[u8]| {
    let types = Types::builtin();
    let Ok(value) = decode(input, types) else { return };
    let text = |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let Some(ty) = types.api_version_kind(text("apiVersion"), text("kind")) else { return };
    let _ = Encoder::default().value(&value, ty, &mut Vec::new());
});
