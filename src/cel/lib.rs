//! The Common Expression Language as Kubernetes speaks it, on JSON values.
//!
//! [`Env`] declares variables with their types; [`Env::compile`] checks an expression against it; a [`Program`] is
//! evaluated on an [`Activation`] within a [`Budget`]. Nothing here does I/O or knows a resource: fields of objects
//! come from [`ObjectType`], permissions from [`Authorizer`].
//!
//! | module | what | upstream |
//! |---|---|---|
//! | [`syntax`] | tokens, grammar, macros | cel-go `parser` |
//! | [`check`] | types, which functions are called | cel-go `checker` |
//! | [`cost`] | costs, estimated and real | cel-go `checker/cost.go`, `apiserver/pkg/cel/library/cost.go` |
//! | [`run`] | evaluation | cel-go `interpreter` |
//! | [`library`] | functions | cel-go `ext`, `apiserver/pkg/cel/library` |
//! | [`value`] | values, over JSON without copying it | `apiserver/pkg/cel/common` |
//!
//! Depth of nesting, size of texts and lists, and work are bounded; see the constants where they are checked.
//!
//! Limitation: the time zone `Local` is not known, which is the server's own with upstream.

mod budget;
mod check;
mod cost;
mod env;
mod error;
mod library;
mod names;
mod run;
mod source;
mod syntax;
mod timing;
mod types;
mod value;

pub use budget::{Budget, CALL_COST_MAX, MATCH_CONDITIONS_COST_MAX, REQUEST_COST_MAX};
pub use cost::Range as CostRange;
pub use env::{Activation, Env, Objects, Program, Variables};
pub use error::EvalError;
pub use library::authz::{Authorizer, Check as AuthorizerCheck, Decided, Resource as AuthorizerResource, What};
pub use names::{escape, unescape};
pub use source::{CompileErrors, Issue};
pub use timing::{BOUNDS_NS, Timing, compilation, evaluation};
pub use types::{AUTHORIZER, Decl, ListKind, ObjectType, RESOURCE_CHECK, Type};
pub use value::{Fields, Key, Library, List, Map, Struct, Text, Value, compare, show};
