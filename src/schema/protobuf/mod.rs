//! Kubernetes' protobuf: objects by their types, both ways.
//!
//! [`Encoder`] writes what a JSON document says, straight from its bytes or from a [`serde_json::Value`]; [`decode`]
//! gives the value that the JSON form would give. Both are driven by the table of facts. What is written is what Go's
//! generated code writes, byte for byte: fields in the order of their numbers, zeros where Go has no pointers, maps
//! in the order of their keys.
//!
//! Around an object stands the [`envelope`] (`runtime.Unknown`), which names its `apiVersion` and `kind`.

mod decode;
mod encode;
mod scalar;
pub(crate) mod wire;

pub use decode::{DecodeError, decode, decode_message, opened};
pub use encode::Encoder;
pub use wire::{envelope, envelope_head, varint_bytes, write_bytes};

/// What every body begins with, before `runtime.Unknown`.
pub const MAGIC: &[u8] = b"k8s\0";
/// What ends an envelope: no content encoding, no content type.
pub const ENVELOPE_TAIL: &[u8] = b"\x1a\x00\x22\x00";

/// How deep messages may nest.
const DEPTH_MAX: usize = 100;
const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

use crate::{Scalar, Shape, TypeRef};

/// How a leaf stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Text,
    Bool,
    Int,
    Double,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// A message that has JSON as its field 1.
    Json,
    /// A message without fields.
    Empty,
    /// A message with one of two forms of a JSON schema.
    SchemaOr(Alternative),
}

/// What a JSON schema may stand beside in CustomResourceDefinitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alternative {
    Schemas,
    Bool,
    Texts,
}

/// The leaf that a type is; none for lists, maps and structs.
fn leaf(ty: TypeRef<'_>) -> Option<Leaf> {
    let name = || ty.definition_name().and_then(|name| name.rsplit('.').next()).unwrap_or_default();
    Some(match ty.shape() {
        Shape::Scalar(Scalar::String) => Leaf::Text,
        Shape::Scalar(Scalar::Boolean) => Leaf::Bool,
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Integer) => Leaf::Int,
        Shape::Scalar(Scalar::Double | Scalar::Number) => Leaf::Double,
        Shape::Scalar(Scalar::Byte) => Leaf::Bytes,
        Shape::Scalar(Scalar::DateTime) if name() == "MicroTime" => Leaf::MicroTime,
        Shape::Scalar(Scalar::DateTime) => Leaf::Time,
        Shape::Scalar(Scalar::Quantity) => Leaf::Quantity,
        Shape::Scalar(Scalar::IntOrString) => Leaf::IntOrString,
        Shape::Any => match name() {
            "JSONSchemaPropsOrArray" => Leaf::SchemaOr(Alternative::Schemas),
            "JSONSchemaPropsOrBool" => Leaf::SchemaOr(Alternative::Bool),
            "JSONSchemaPropsOrStringArray" => Leaf::SchemaOr(Alternative::Texts),
            _ => Leaf::Json,
        },
        Shape::Object => match ty.definition_name() {
            None => Leaf::Json,
            Some(_) if matches!(name(), "RawExtension" | "FieldsV1") => Leaf::Json,
            Some(_) => Leaf::Empty,
        },
        Shape::List(_) | Shape::Map(_) | Shape::Struct(_) => return None,
    })
}

#[cfg(test)]
mod tests;
