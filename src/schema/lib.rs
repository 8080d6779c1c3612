//! What fields the types have, and everything that follows from that alone.
//!
//! [`types`] is a table of facts about all types of Kubernetes v1.36: fields, their types, defaults, list
//! keys, merge keys. The rest is algorithms that walk a JSON value together with its type. Nothing here
//! knows a particular resource, and nothing does I/O.
//!
//! | module | what | upstream |
//! |---|---|---|
//! | [`validation`] | unknown fields, wrong JSON types, duplicate fields | field validation, `sigs.k8s.io/json` |
//! | [`patch`] | JSON patch, merge patch, strategic merge patch | `jsonpatch`, `jsonmergepatch`, `strategicpatch` |
//! | [`protobuf`] | objects in protobuf, both ways | gogo-protobuf, `runtime/serializer/protobuf` |
//! | [`managed`] | server-side apply and `managedFields` | structured-merge-diff, `managedfields` |
//! | [`openapi`] | OpenAPI documents | kube-openapi |
//! | [`structural`] | schemas that come at run time: pruning, defaults, values | `apiextensions-apiserver/pkg/apiserver/schema` |
//!
//! Values come from parsers that bound their nesting; the walks recurse as deep as the values are nested.

pub mod managed;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod structural;
pub mod types;
pub mod validation;

pub use types::{FieldRef, ListKind, ListType, MapType, Scalar, Shape, StructType, TypeRef, Types};
