//! OpenAPI documents, made from the table of types and a list of what is served.
//!
//! [`v3`] makes the document of one group-version (`/openapi/v3/apis/apps/v1`), [`v2`] the one of all
//! (`/openapi/v2`), which [`v2_binary`] writes in protobuf. Types come from the table, descriptions from the caller.
//!
//! Limitations: responses of delete are `Status` throughout; the deprecated watch paths are not listed; operations have no
//! descriptions.

mod binary;
mod connect;
mod document;
mod paths;
mod schemas;

pub use binary::v2_binary;
pub use document::{v2, v3};
pub use paths::{Endpoint, Verb};
pub use schemas::{CustomKind, Describe};

/// Which of the two dialects is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// What a reference to a definition begins with.
    fn reference_prefix(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }
}
