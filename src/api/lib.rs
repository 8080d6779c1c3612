//! What the objects are: the table of served resources, defaulting, validation, selectors, printing and the
//! shapes of requests and failures. No I/O.

pub mod call;
pub mod canonical;
pub mod cron;
pub mod custom;
pub mod defaults;
pub mod encoded;
pub mod failure;
pub mod fields;
pub mod format;
pub mod int_or_string;
pub mod meta;
pub mod names;
pub mod path;
pub mod placement;
pub mod podsecurity;
pub mod print;
pub mod quantity;
pub mod quota;
pub mod selector;
pub mod strategy;
pub mod table;
pub mod validation;

pub use call::{Answer, Call, EventKind, Options, PatchKind, Resource, Verb, WatchEvent, WatchResult};
pub use encoded::{Encoded, Listed};
pub use failure::{Cause, Failure, FieldError, Reason};
pub use fields::Fields;
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use strategy::Strategy;
pub use table::{Row, rows};
