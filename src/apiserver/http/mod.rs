//! HTTP: connections, bodies, forms of answers.

pub mod body;
pub mod negotiate;
pub mod protobuf;
pub mod respond;
pub mod serve;
pub mod shape;
