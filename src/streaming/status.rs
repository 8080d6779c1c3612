//! How a session tells its client what came of it: a `metav1.Status` on the error stream.

use serde::Serialize;

use crate::TargetError;

#[derive(Debug, Serialize, Default)]
struct Status {
    metadata: Empty,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Serialize, Default)]
struct Empty {}

#[derive(Debug, Serialize)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize)]
struct Cause {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
}

/// What is written to the error stream. `json` is false for protocols before v4, which have plain text, and nothing
/// for success. `doing` is `executing command in` or `attaching to`.
pub(crate) fn report(result: &Result<i32, TargetError>, doing: &str, json: bool) -> Vec<u8> {
    let status = match result {
        Ok(0) if !json => return Vec::new(),
        Ok(0) => Status { status: "Success", ..Status::default() },
        Ok(code) => Status {
            status: "Failure",
            message: format!("command terminated with non-zero exit code: exit status {code}"),
            reason: Some("NonZeroExitCode"),
            details: Some(Details { causes: vec![Cause { reason: Some("ExitCode"), message: code.to_string() }] }),
            ..Status::default()
        },
        Err(error) => {
            let message = format!("error {doing} container: {}", text(error.as_ref()));
            Status {
                status: "Failure",
                message: format!("Internal error occurred: {message}"),
                reason: Some("InternalError"),
                details: Some(Details { causes: vec![Cause { reason: None, message }] }),
                code: Some(500),
                ..Status::default()
            }
        }
    };
    if json { serde_json::to_vec(&status).unwrap_or_default() } else { status.message.into_bytes() }
}

/// An error with its sources.
pub(crate) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_as_clients_read_them() {
        let json = |result| String::from_utf8(report(&result, "executing command in", true)).unwrap();
        assert_eq!(json(Ok(0)), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(
            json(Ok(3)),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        assert_eq!(
            json(Err("no such file".into())),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error executing command in container: no such file","reason":"InternalError","details":{"causes":[{"message":"error executing command in container: no such file"}]},"code":500}"#
        );
        assert!(report(&Ok(0), "", false).is_empty());
        let old = report(&Ok(1), "", false);
        assert_eq!(old, b"command terminated with non-zero exit code: exit status 1");
    }
}
