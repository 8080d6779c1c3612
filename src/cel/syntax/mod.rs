//! From text to tree: tokens, grammar, macros.

pub mod ast;
mod lexer;
mod literals;
mod macros;
mod parser;

pub use parser::{parse, qualified};
