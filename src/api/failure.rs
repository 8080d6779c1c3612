//! How a request fails: upstream's `metav1.Status` with `status: Failure`, as an error type.
//!
//! Reasons, codes and the shape of messages are those of `k8s.io/apimachinery/pkg/api/errors`; clients decide by
//! reason and code, people read the message.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The HTTP status that goes with it.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::Unknown | Reason::StoreReadError | Reason::InternalError | Reason::ServerTimeout => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource's plural name, or the kind where upstream gives the kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// Where a list that cannot go on as it began can go on all the same (`metadata.continue`).
    pub continue_token: Option<String>,
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Failure {
        Failure { code: reason.code(), reason, message: message.into(), details: None, continue_token: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(Reason::BadRequest, message)
    }

    pub fn internal(error: impl std::fmt::Display) -> Failure {
        Failure::new(Reason::InternalError, format!("Internal error occurred: {error}"))
    }

    /// `resource` is the plural name, as everywhere below.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Failure {
        Failure::new(Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, resource)))
            .about(group, resource, name)
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Failure {
        Failure::new(Reason::AlreadyExists, format!("{} \"{name}\" already exists", qualified(group, resource)))
            .about(group, resource, name)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Failure {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Failure::new(Reason::Conflict, message).about(group, resource, name)
    }

    /// The optimistic lock: the object was changed since the caller read it.
    pub fn modified(group: &str, resource: &str, name: &str) -> Failure {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Failure::conflict(group, resource, name, why)
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Failure {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(group, resource))
        } else {
            format!("{} \"{name}\" is forbidden: {why}", qualified(group, resource))
        };
        Failure::new(Reason::Forbidden, message).about(group, resource, name)
    }

    /// What validation found; `kind` is the kind and not the resource, as upstream has it here.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Failure {
        // Each cause is listed; what reads the same is read once.
        let mut texts: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for error in &errors {
            let text = error.to_string();
            if seen.insert(text.clone()) {
                texts.push(text);
            }
        }
        let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let causes = errors
            .into_iter()
            .map(|error| Cause { reason: error.reason.to_owned(), message: error.body(), field: error.field })
            .collect();
        let mut failure =
            Failure::new(Reason::Invalid, format!("{} \"{name}\" is invalid: {list}", qualified(group, kind)))
                .about(group, kind, name);
        failure.details_mut().causes = causes;
        failure
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Failure {
        let mut failure = Failure::new(Reason::TooManyRequests, message);
        failure.details_mut().retry_after_seconds = retry_after_seconds;
        failure
    }

    /// A watch or list asks for a revision that is compacted.
    pub fn expired(message: impl Into<String>) -> Failure {
        Failure::new(Reason::Expired, message)
    }

    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Failure {
        let details = self.details_mut();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    pub fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// As `metav1.Status` on the wire.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if self.reason != Reason::Unknown {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = json!(details);
        }
        if let Some(token) = &self.continue_token {
            status["metadata"] = json!({"continue": token});
        }
        status
    }

    /// From the answer of a server: its `Status` if it is one, and otherwise what the code says.
    pub fn from_response(code: u16, body: &[u8]) -> Failure {
        #[derive(Deserialize)]
        struct Status {
            #[serde(default)]
            message: String,
            #[serde(default)]
            reason: Value,
            #[serde(default)]
            code: u16,
            #[serde(default)]
            details: Option<Box<Details>>,
            #[serde(default)]
            metadata: Value,
        }
        match serde_json::from_slice::<Status>(body) {
            Ok(status) if status.code != 0 || !status.message.is_empty() => Failure {
                code: if status.code == 0 { code } else { status.code },
                reason: serde_json::from_value(status.reason).unwrap_or(Reason::Unknown),
                message: status.message,
                details: status.details,
                continue_token: status.metadata["continue"].as_str().map(str::to_owned),
            },
            _ => {
                const SHOWN_BYTES_MAX: usize = 500;
                let text = String::from_utf8_lossy(body.get(..SHOWN_BYTES_MAX).unwrap_or(body)).trim().to_owned();
                let message = if text.is_empty() { format!("the server answered {code}") } else { text };
                Failure { code, reason: reason_of(code), message, details: None, continue_token: None }
            }
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// The revision that was asked for is gone: list again.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason, Reason::Expired | Reason::Gone) || self.code == 410
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn reason_of(code: u16) -> Reason {
    match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        500 => Reason::InternalError,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        _ => Reason::Unknown,
    }
}

/// One finding of validation (`field.Error`): where, of which type, and what a person reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `FieldValueRequired`, `FieldValueInvalid`, ... as in `metav1.CauseType`.
    pub reason: &'static str,
    /// `spec.containers[0].name`.
    pub field: String,
    message: String,
}

impl FieldError {
    pub fn required(field: impl Into<String>, detail: &str) -> FieldError {
        FieldError::with("FieldValueRequired", field, "Required value", None, detail)
    }

    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> FieldError {
        FieldError::with("FieldValueInvalid", field, "Invalid value", Some(value), detail)
    }

    /// Wrong without one value that is to blame.
    pub fn invalid_as_a_whole(field: impl Into<String>, detail: &str) -> FieldError {
        FieldError::with("FieldValueInvalid", field, "Invalid value", None, detail)
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> FieldError {
        FieldError::with("FieldValueDuplicate", field, "Duplicate value", Some(value), "")
    }

    pub fn not_found(field: impl Into<String>, value: &Value) -> FieldError {
        FieldError::with("FieldValueNotFound", field, "Not found", Some(value), "")
    }

    pub fn not_found_because(field: impl Into<String>, value: &Value, detail: &str) -> FieldError {
        FieldError::with("FieldValueNotFound", field, "Not found", Some(value), detail)
    }

    pub fn forbidden(field: impl Into<String>, detail: &str) -> FieldError {
        FieldError::with("FieldValueForbidden", field, "Forbidden", None, detail)
    }

    /// `supported` in upstream's order: mostly that of the alphabet, sometimes that of a declaration.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> FieldError {
        let quoted: Vec<String> = supported.iter().map(|one| format!("\"{one}\"")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        FieldError::with("FieldValueNotSupported", field, "Unsupported value", Some(value), &detail)
    }

    pub fn too_long(field: impl Into<String>, bytes_max: usize) -> FieldError {
        let detail = format!("may not be more than {bytes_max} bytes");
        FieldError::with("FieldValueTooLong", field, "Too long", None, &detail)
    }

    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> FieldError {
        let detail = format!("must have at most {max} items");
        FieldError::with("FieldValueTooMany", field, "Too many", Some(&json!(actual)), &detail)
    }

    pub(crate) fn with(
        reason: &'static str,
        field: impl Into<String>,
        kind: &str,
        value: Option<&Value>,
        detail: &str,
    ) -> FieldError {
        let mut message = kind.to_owned();
        if let Some(value) = value {
            message.push_str(": ");
            message.push_str(&value.to_string());
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        FieldError { reason, field: field.into(), message }
    }

    /// The text without the field.
    pub fn body(&self) -> String {
        self.message.clone()
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_wire() {
        let failure = Failure::invalid(
            "apps",
            "Deployment",
            "web",
            vec![
                FieldError::required("spec.selector", ""),
                FieldError::invalid("spec.replicas", &json!(-1), "must be greater than or equal to 0"),
            ],
        );
        assert_eq!(
            failure.message,
            "Deployment.apps \"web\" is invalid: [spec.selector: Required value, \
             spec.replicas: Invalid value: -1: must be greater than or equal to 0]"
        );
        let bytes = serde_json::to_vec(&failure.to_status()).unwrap();
        assert_eq!(Failure::from_response(422, &bytes), failure);
    }

    #[test]
    fn an_answer_that_is_no_status_keeps_its_code() {
        let failure = Failure::from_response(503, b"upstream is gone");
        assert_eq!((failure.code, failure.reason), (503, Reason::ServiceUnavailable));
        assert_eq!(failure.message, "upstream is gone");
        assert!(Failure::from_response(409, b"{}").is_conflict());
    }
}
