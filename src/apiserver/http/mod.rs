//! HTTP: connections, bodies, forms of answers.

pub mod body;
pub mod negotiate;
pub mod objects;
pub mod pretty;
pub mod respond;
pub mod serve;
pub mod shape;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;
