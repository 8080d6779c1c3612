//! Events: those of the core group, of which little is demanded, and those of their own group.

use serde_json::Value;

use super::{Check, IMMUTABLE, same};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const REASON_CHARS_MAX: usize = 128;
const MESSAGE_CHARS_MAX: usize = 1024;
const SERIES_COUNT_MIN: i64 = 2;
/// What does not change, by its name in `events.k8s.io` and in the core group, which findings use.
const FIXED: [(&str, &str); 12] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("type", "type"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// Events as the core group has them. Those without `eventTime` come from old clients, of which little is demanded.
pub fn event(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    about(check, object, "involvedObject");
    if object.has("eventTime") {
        reporter(check, object, "reportingComponent", "message");
    }
}

/// Events of their own group are checked in full.
pub fn new_event(object: &Value, errors: &mut Vec<FieldError>) {
    legacy(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    series(check, object);
    if !object.has("eventTime") {
        check.required(&root.field("eventTime"), "");
    }
    if !matches!(object.text("type"), "Normal" | "Warning") {
        let text = format!("has invalid value: {}", object.text("type"));
        check.invalid(&root.field("type"), &"".into(), &text);
    }
    let source = object.part("deprecatedSource");
    let set = [
        ("firstTimestamp", object.has("deprecatedFirstTimestamp")),
        ("lastTimestamp", object.has("deprecatedLastTimestamp")),
        ("count", object.int("deprecatedCount").unwrap_or_default() != 0),
        ("source", ["component", "host"].into_iter().any(|name| !source.text(name).is_empty())),
    ];
    for (name, _) in set.into_iter().filter(|(_, set)| *set) {
        check.invalid(&root.field(name), &"".into(), "needs to be unset");
    }
}

/// Of an event only its series goes on.
pub fn new_event_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    legacy(object, errors);
    let check = &mut Check { errors };
    let root = Path::Root;
    if !same(object.part("series"), old.part("series")) {
        series(check, object);
    }
    let changed = |name: &str| !same(object.part(name), old.part(name));
    for (name, said) in FIXED {
        let times = if name == "reason" { 2 } else { 1 };
        for _ in 0..times {
            if changed(name) {
                check.invalid(&root.field(said), object.part(name), IMMUTABLE);
            }
        }
    }
    if changed("eventTime") {
        check.invalid(&root.field("eventTime"), object.part("eventTime"), IMMUTABLE);
    }
}

fn legacy(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    about(check, object, "regarding");
    if object.has("eventTime") {
        reporter(check, object, "reportingController", "note");
    }
}

/// What happened more than once.
fn series(check: &mut Check<'_>, object: &Value) {
    let Some(series) = object.at("series") else { return };
    let root = Path::Root;
    if series.int("count").unwrap_or_default() < SERIES_COUNT_MIN {
        let text = format!("should be at least {SERIES_COUNT_MIN}");
        check.invalid(&root.field("series.count"), &"".into(), &text);
    }
    if !series.has("lastObservedTime") {
        check.required(&root.field("series.lastObservedTime"), "");
    }
}

/// What it is about lies in the event's namespace, or in none.
fn about(check: &mut Check<'_>, object: &Value, name: &str) {
    let namespace = object.part("metadata").text("namespace");
    let about = object.part(name).text("namespace");
    let fits = match (about, object.has("eventTime")) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (_, false) => about == namespace,
        (_, true) => true,
    };
    if !fits {
        let root = Path::Root;
        let path = root.field("involvedObject");
        check.invalid(&path.field("namespace"), &about.into(), "does not match event.namespace");
    }
}

fn reporter(check: &mut Check<'_>, object: &Value, controller: &str, message: &str) {
    let root = Path::Root;
    let name = object.text(controller);
    check.text(object, &root, controller);
    check.found(&root.field(controller), name, format::label_key(name));
    for name in ["reportingInstance", "action", "reason"] {
        if check.text(object, &root, name) && object.text(name).len() > REASON_CHARS_MAX {
            let text = format!("can have at most {REASON_CHARS_MAX} characters");
            check.invalid(&root.field(name), &"".into(), &text);
        }
    }
    if object.text(message).len() > MESSAGE_CHARS_MAX {
        let text = format!("can have at most {MESSAGE_CHARS_MAX} characters");
        check.invalid(&root.field("message"), &"".into(), &text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.field.as_str()).collect()
    }

    #[test]
    fn of_an_event_only_the_series_goes_on() {
        let old = json!({
            "metadata": {"namespace": "default"}, "eventTime": "2024-01-01T00:00:00.000000Z", "type": "Normal",
            "reportingController": "a.example/c", "reportingInstance": "i", "action": "a", "reason": "r",
        });
        let mut errors = Vec::new();
        new_event(&old, &mut errors);
        assert_eq!(fields(&errors), [""; 0]);
        let mut new = old.clone();
        new["series"] = json!({"count": 2, "lastObservedTime": "2024-01-01T00:00:01.000000Z"});
        new_event_update(&new, &old, None, &mut errors);
        assert_eq!(fields(&errors), [""; 0]);
        new["series"] = json!({"count": 1});
        new["reason"] = json!("s");
        new["note"] = json!("n");
        new_event_update(&new, &old, None, &mut errors);
        assert_eq!(fields(&errors), ["series.count", "series.lastObservedTime", "reason", "reason", "message"]);
    }

    #[test]
    fn old_fields_are_not_for_new_events() {
        let mut errors = Vec::new();
        let event = json!({
            "metadata": {"namespace": "default"}, "type": "Bad", "deprecatedCount": 1,
            "deprecatedSource": {"host": "h"}, "deprecatedFirstTimestamp": "2024-01-01T00:00:00Z",
        });
        new_event(&event, &mut errors);
        assert_eq!(fields(&errors), ["eventTime", "type", "firstTimestamp", "count", "source"]);
    }
}
