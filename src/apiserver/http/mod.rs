//! HTTP: connections, bodies, forms of answers.

pub mod body;
pub mod negotiate;
pub mod respond;
pub mod serve;
pub mod shape;
