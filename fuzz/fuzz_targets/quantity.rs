//! Quantities.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(quantity) = text.parse::<api::Quantity>() {
        let written = quantity.to_string();
        assert_eq!(written.parse().ok(), Some(quantity), "{written}");
        let _ = (quantity.value(), quantity.milli_value(), quantity.as_f64(), quantity.round_up_to_milli());
        let _ = (quantity + quantity, quantity - quantity, -quantity);
    }
});
