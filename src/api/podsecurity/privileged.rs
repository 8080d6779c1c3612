//! Containers that may do whatever the node may.

use super::{Subject, Violation, containers, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let bad = subject.containers_where(|container| container.part("securityContext").flag("privileged"));
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}
