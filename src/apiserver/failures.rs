//! The one place where errors of other rooms become failures that clients understand.

use api::{Failure, Reason};

/// Seconds after which a client may try again what the server could not do now.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A write or read that the store refused.
pub fn of_store(error: &store::Error) -> Failure {
    use store::Error;
    match error {
        Error::Compacted { .. } => Failure::expired("The resourceVersion for the provided list is too old."),
        Error::FutureRevision { requested, revision } => Failure::new(
            Reason::Timeout,
            format!("Timeout: Too large resource version: {requested}, current: {revision}"),
        ),
        Error::NoSpace(_) => retry(Failure::new(
            Reason::ServiceUnavailable,
            format!("{error}; nothing was written. Reads go on. Make room and writes are taken again by themselves"),
        )),
        Error::TooLarge { .. } | Error::TooManyOps { .. } => {
            Failure::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {error}"))
        }
        Error::Busy => Failure::too_many_requests("too many writes are waiting, please try again", RETRY_AFTER_SECONDS),
        Error::NotLeader | Error::NoQuorum | Error::Closed => {
            retry(Failure::new(Reason::ServiceUnavailable, error.to_string()))
        }
        Error::Unknown => Failure::new(Reason::Timeout, format!("Timeout: {error}")),
        // What the API server asks for has none of these faults.
        Error::EmptyKey
        | Error::DuplicateKey
        | Error::TooDeep { .. }
        | Error::ValueProvided
        | Error::LeaseProvided
        | Error::KeyNotFound
        | Error::LeaseNotFound { .. }
        | Error::LeaseExists { .. }
        | Error::LeaseTooLong { .. }
        | Error::TooManyLeases { .. }
        | Error::Unchangeable
        | Error::Witness => Failure::internal(error),
    }
}

/// What the window of changes no longer has.
pub fn too_old(asked: u64, complete_after: u64) -> Failure {
    Failure::expired(format!("too old resource version: {asked} ({complete_after})"))
}

/// The body is larger than the server takes.
pub fn body_too_large(bytes_max: usize) -> Failure {
    Failure::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {bytes_max}"))
}

/// The path names nothing that is served.
pub fn no_such_path() -> Failure {
    Failure::new(Reason::NotFound, "the server could not find the requested resource").about("", "", "")
}

/// The path has no such verb.
pub fn no_such_verb() -> Failure {
    Failure::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
        .about("", "", "")
}

/// Nothing that the client takes can be made.
pub fn not_acceptable(offered: &str) -> Failure {
    Failure::new(Reason::NotAcceptable, format!("only the following media types are accepted: {offered}"))
}

/// The client takes none of the media types that there are, whatever is asked for in them.
pub fn no_representation(offered: &str) -> Failure {
    let text = format!("406: Not Acceptable\n\nAvailable representations: {offered}");
    Failure::new(Reason::NotAcceptable, text).about("", "", "")
}

/// No patch is of this type.
pub fn no_such_patch() -> Failure {
    Failure::new(Reason::UnsupportedMediaType, "415: Unsupported Media Type").about("", "", "")
}

/// The body is of a kind that is not read.
pub fn unsupported_media_type(offered: &str) -> Failure {
    Failure::new(
        Reason::UnsupportedMediaType,
        format!("the body of the request was in an unknown format - accepted media types include: {offered}"),
    )
}

/// A handler panicked: the client learns no more than that.
pub fn panicked() -> Failure {
    Failure::internal("this request caused a panic")
}

fn retry(mut failure: Failure) -> Failure {
    failure.details_mut().retry_after_seconds = RETRY_AFTER_SECONDS;
    failure
}
