//! Label and field selectors.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(selector) = api::LabelSelector::parse(text) {
        // What is written can be read again, and says the same.
        let written = selector.to_string();
        let again = api::LabelSelector::parse(&written);
        assert!(again.is_ok_and(|again| again.to_string() == written), "{written}");
    }
    if let Some(row) = api::Row::find("", "v1", "pods") {
        let _ = api::FieldSelector::parse(text, row);
    }
});
