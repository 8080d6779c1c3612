//! Field validation: what a request body has that its type has not, and what has the wrong JSON type.
//!
//! A body is read once with [`decode`], which also finds fields that occur twice; [`prune_unknown`] drops
//! fields that the type does not have; [`check_types`] refuses wrong JSON types with the message that Go's
//! decoder gives. Together they are `fieldValidation=Strict|Warn|Ignore`: `Strict` turns the lists into a
//! refusal ([`strict_error`]), `Warn` into `Warning` headers, `Ignore` drops them.
//!
//! Names are compared exactly, as upstream's decoder does.

mod decode;
mod types;
mod unknown;

pub use decode::{Decoded, decode, duplicate_fields};
pub use types::{DecodeError, check_types};
pub use unknown::{prune_unknown, unknown_fields};

/// How many findings one list holds at most; the rest is still pruned, but not named.
pub const FINDINGS_MAX: usize = 100;

/// How deep a value may be nested to be looked into; `serde_json` refuses more than 128 anyhow.
pub(crate) const DEPTH_MAX: usize = 256;

/// The message about a field that the type does not have.
pub fn unknown_field(path: &str) -> String {
    format!("unknown field {path:?}")
}

/// The message about a field that occurs twice.
pub fn duplicate_field(path: &str) -> String {
    format!("duplicate field {path:?}")
}

/// The message that refuses a body under `Strict`: `strict decoding error: unknown field "spec.x", ...`.
/// None if there is nothing to refuse.
pub fn strict_error(findings: &[String]) -> Option<String> {
    (!findings.is_empty()).then(|| format!("strict decoding error: {}", findings.join(", ")))
}

/// A path as it is built on the way down: `spec.containers[0].image`.
#[derive(Default)]
pub(crate) struct Path {
    pub(crate) text: String,
}

impl Path {
    /// Goes down into a field and returns what [`Path::leave`] needs to come back.
    pub(crate) fn field(&mut self, name: &str) -> usize {
        let mark = self.text.len();
        if mark > 0 {
            self.text.push('.');
        }
        self.text.push_str(name);
        mark
    }

    pub(crate) fn index(&mut self, index: usize) -> usize {
        use std::fmt::Write as _;
        let mark = self.text.len();
        // Writing to a string does not fail.
        let _ = write!(self.text, "[{index}]");
        mark
    }

    pub(crate) fn leave(&mut self, mark: usize) {
        self.text.truncate(mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_errors_read_as_upstream() {
        assert_eq!(strict_error(&[]), None);
        assert_eq!(
            strict_error(&[duplicate_field("spec.a"), unknown_field("c")]).unwrap(),
            r#"strict decoding error: duplicate field "spec.a", unknown field "c""#
        );
    }
}
