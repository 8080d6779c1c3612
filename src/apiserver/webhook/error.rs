//! How a call fails, in the words that Go's HTTP client uses: people search for them.

use std::error::Error;
use std::io::ErrorKind;
use std::net::SocketAddr;

use api::Failure;
use bytes::Bytes;
use http::Method;
use http_body_util::LengthLimitError;
use rustls::CertificateError;

use super::endpoint::Endpoint;

/// A call that did not succeed: which one, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// `Post "https://hook.shop.svc:443/path"`.
    call: String,
    pub cause: Cause,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The Service leads nowhere.
    #[error("{0}")]
    Service(Failure),
    #[error("dial tcp: lookup {host}: {why}")]
    Name { host: String, why: String },
    #[error("dial tcp {address}: {why}")]
    Dial { address: SocketAddr, why: String },
    #[error("{0}")]
    Tls(String),
    /// The credentials are not to be had.
    #[error("{0}")]
    Credentials(String),
    /// The request cannot be made from what the endpoint says.
    #[error("{0}")]
    Request(String),
    #[error("context deadline exceeded")]
    Timeout,
    #[error("{0}")]
    Http(String),
    #[error("the answer is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    /// It answered, but with no success.
    #[error("{}", refused(*code, body))]
    Status { code: u16, body: Bytes },
}

impl CallError {
    pub(super) fn new(method: &Method, endpoint: &Endpoint, path: &str, cause: Cause) -> CallError {
        let method = method.as_str();
        let (first, rest) = method.split_at(1.min(method.len()));
        CallError { call: format!("{first}{} \"{}{path}\"", rest.to_ascii_lowercase(), endpoint.base()), cause }
    }

    /// Asking again may help: nothing was answered, or the answer says so (upstream: `DefaultShouldRetry`).
    pub fn is_transient(&self) -> bool {
        match &self.cause {
            Cause::Status { code, .. } => matches!(code, 429 | 500 | 502 | 503 | 504),
            Cause::Dial { .. } | Cause::Http(_) | Cause::Timeout | Cause::Service(_) | Cause::Name { .. } => true,
            Cause::Tls(_) | Cause::Credentials(_) | Cause::Request(_) | Cause::TooLarge { .. } => false,
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.cause {
            cause @ Cause::Status { .. } => write!(f, "{cause}"),
            cause => write!(f, "{}: {cause}", self.call),
        }
    }
}

impl Error for CallError {}

/// The `Status` that was answered, or what client-go makes of a code without one.
fn refused(code: u16, body: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 2048;
    let status = serde_json::from_slice::<serde_json::Value>(body).ok();
    if status.is_some_and(|status| status["kind"] == "Status" && status["apiVersion"] == "v1") {
        return Failure::from_response(code, body).message;
    }
    let shown = String::from_utf8_lossy(body.get(..SHOWN_BYTES_MAX).unwrap_or(body));
    let shown = shown.trim();
    match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 if shown.is_empty() => "unknown".to_owned(),
        403 => shown.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        406 => "the server was unable to respond with a content type that the client supports".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        413 => format!("Request entity too large: {shown}"),
        415 => "the server responded with the status code 415 but did not return more details".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 if shown.is_empty() => "the server is currently unable to handle the request".to_owned(),
        503 => shown.to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the \
                request"
            .to_owned(),
        500.. => {
            let shown = if shown.is_empty() { "unknown" } else { shown };
            format!("an error on the server ({shown:?}) has prevented the request from succeeding")
        }
        _ => format!("the server responded with the status code {code} but did not return more details"),
    }
}

/// Connecting to an address failed.
pub(super) fn of_dial(address: SocketAddr, error: &std::io::Error) -> Cause {
    let why = match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        _ => format!("connect: {error}"),
    };
    Cause::Dial { address, why }
}

/// The handshake failed.
pub(super) fn of_handshake(error: &std::io::Error) -> Cause {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    Cause::Tls(match tls {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let why = match why {
                CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => {
                    "certificate has expired or is not yet valid".to_owned()
                }
                other => other.to_string(),
            };
            format!("tls: failed to verify certificate: x509: {why}")
        }
        Some(other) => format!("tls: {other}"),
        None if error.kind() == ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => format!("tls: {error}"),
    })
}

/// The pooled client failed: with what the connector said, or on the way.
pub(super) fn of_client(error: &hyper_util::client::legacy::Error) -> Cause {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(cause) = inner.downcast_ref::<Cause>() {
            return cause.clone();
        }
        source = inner.source();
    }
    Cause::Http(deepest(error))
}

/// Reading the answer failed.
pub(super) fn of_body(error: &(dyn Error + 'static), bytes_max: usize) -> Cause {
    if error.is::<LengthLimitError>() { Cause::TooLarge { bytes_max } } else { Cause::Http(deepest(error)) }
}

fn deepest(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(inner) = deepest.source() {
        deepest = inner;
    }
    deepest.to_string()
}
