//! What the objects are: the table of served resources, defaulting, validation, selectors, printing and the
//! shapes of requests and failures. No I/O.

pub mod call;
pub mod failure;

pub use call::{Answer, Call, EventKind, Options, PatchKind, Resource, Verb, WatchEvent, WatchResult};
pub use failure::{Cause, Failure, FieldError, Reason};
