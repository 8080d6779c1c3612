//! Volumes that are directories of the node.

use serde_json::Value;

use super::{Subject, Violation, plural, quoted, violation};
use crate::Fields;

pub(super) fn check(subject: Subject<'_>) -> Option<Violation> {
    let of_host = |volume: &&Value| volume.has("hostPath");
    let bad: Vec<&str> =
        subject.spec.list("volumes").iter().filter(of_host).map(|volume| volume.text("name")).collect();
    if bad.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", bad.len()), quoted(&bad)))
}
