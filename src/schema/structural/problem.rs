//! What is wrong with a schema or with a value.

use serde_json::Value;

/// The kinds of findings (`field.ErrorType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Required,
    Invalid,
    TypeInvalid,
    NotSupported,
    TooLong,
    TooMany,
    Duplicate,
    Forbidden,
}

/// One finding (`field.Error`), with the path and the words that upstream has.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub kind: Kind,
    /// `spec.replicas`; `<nil>` where upstream names no field.
    pub path: String,
    /// The value that is shown, for the kinds that show one.
    pub value: Option<Value>,
    pub detail: String,
}

impl Problem {
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem { kind: Kind::Required, path: path.into(), value: None, detail: detail.into() }
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem { kind: Kind::Forbidden, path: path.into(), value: None, detail: detail.into() }
    }

    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Problem {
        Problem { kind: Kind::Invalid, path: path.into(), value: Some(value.into()), detail: detail.into() }
    }

    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Problem {
        Problem { kind: Kind::Duplicate, path: path.into(), value: Some(value.into()), detail: String::new() }
    }

    /// `supported` in the order in which they are named.
    pub fn not_supported<T: AsRef<str>>(path: impl Into<String>, value: impl Into<Value>, supported: &[T]) -> Problem {
        let quoted: Vec<String> = supported.iter().map(|one| format!("{:?}", one.as_ref())).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        Problem { kind: Kind::NotSupported, path: path.into(), value: Some(value.into()), detail }
    }

    pub fn too_long(path: impl Into<String>, max: i64) -> Problem {
        let detail = format!("may not be more than {max} bytes");
        Problem { kind: Kind::TooLong, path: path.into(), value: None, detail }
    }

    pub fn too_many(path: impl Into<String>, actual: usize, max: i64) -> Problem {
        let detail = format!("must have at most {max} items");
        Problem { kind: Kind::TooMany, path: path.into(), value: Some(actual.into()), detail }
    }
}
