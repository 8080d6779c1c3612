//! Processes of the node, on Windows.

use serde_json::Value;

use super::{Subject, Violation, setters, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let is_host = |security: &Value| security.part("windowsOptions").flag("hostProcess");
    let bad = subject.containers_where(|container| is_host(container.part("securityContext")));
    let setters = setters(is_host(subject.security()), &bad)?;
    violation("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}
