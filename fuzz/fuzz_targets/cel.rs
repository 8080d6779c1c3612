//! Expressions: parsed, checked, estimated and evaluated within a limit of costs.

#![no_main]

use cel::{Budget, Decl, Env, Value, Variables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let object = serde_json::json!({"s": "text", "l": [1, "two", {"three": 3.0}], "m": {"a": {"b": null}}, "n": -1});
    let Ok(program) = Env::new().variable("x", Decl::dynamic()).compile(text) else { return };
    program.estimate();
    let variables = Variables::new().with("x", Value::of_plain_json(&object));
    if let Ok(value) = program.eval(&variables, &mut Budget::with_call_limit(20_000, 20_000)) {
        let _ = value.to_json();
    }
});
