//! Who would lead, and with which version (`coordination.k8s.io` LeaseCandidate).

use std::cmp::Ordering;

use serde_json::Value;

use super::Check;
use super::devices::is_semantic_version;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const OLDEST: &str = "OldestEmulationVersion";

pub fn candidate(object: &Value, errors: &mut Vec<FieldError>) {
    spec(&mut Check { errors }, object.part("spec"));
}

pub fn candidate_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    candidate(object, errors);
    let path = Path::Root.field("spec");
    Check { errors }.unchanged(object.part("spec"), old.part("spec"), &path, "leaseName");
}

fn spec(check: &mut Check<'_>, spec: &Value) {
    let root = Path::Root;
    let path = root.field("spec");
    check.text(spec, &path, "leaseName");
    let mut version = |name: &str| {
        let text = spec.text(name);
        if !text.is_empty() && !is_semantic_version(text) {
            check.invalid(&path.field(name), &text.into(), "must be a valid semantic version");
        }
        text
    };
    let emulation = version("emulationVersion");
    let binary = version("binaryVersion");
    if binary.is_empty() {
        check.required(&path.field("binaryVersion"), "");
    } else if !emulation.is_empty() && precedence(binary, emulation) == Ordering::Less {
        let text = "must be greater than or equal to `emulationVersion`";
        check.invalid(&path.field("binaryVersion"), &binary.into(), text);
    }
    if !check.text(spec, &path, "strategy") {
        return;
    }
    let strategy = spec.text("strategy");
    if strategy == OLDEST && precedence(emulation, "0.0.0") == Ordering::Equal {
        let text = "must be specified when `strategy` is 'OldestEmulationVersion'";
        check.required(&path.field("emulationVersion"), text);
    }
    // Upstream has the field's name twice in the path.
    let path = path.field("strategy");
    let path = path.field("strategy");
    if strategy.contains('/') {
        check.found(&path, strategy, format::label_key(strategy));
    } else if strategy != OLDEST {
        check.not_supported(&path, &strategy.into(), &[OLDEST]);
    }
}

/// How versions are ordered (semver.org, 11). What is no version counts as 0.0.0.
fn precedence(left: &str, right: &str) -> Ordering {
    let parts = |text: &str| {
        let text = if is_semantic_version(text) { text } else { "0.0.0" };
        let text = text.split('+').next().unwrap_or_default().to_owned();
        let (core, before) = text.split_once('-').unwrap_or((&text, ""));
        let numbers: Vec<u64> = core.split('.').map(|number| number.parse().unwrap_or(u64::MAX)).collect();
        let before: Vec<String> = before.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        (numbers, before)
    };
    let ((left, before_left), (right, before_right)) = (parts(left), parts(right));
    left.cmp(&right).then_with(|| match (before_left.is_empty(), before_right.is_empty()) {
        // A version comes after what comes before it.
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ => {
            let each = before_left.iter().zip(&before_right).map(|(left, right)| identifiers(left, right));
            let differs = each.into_iter().find(|order| order.is_ne());
            differs.unwrap_or_else(|| before_left.len().cmp(&before_right.len()))
        }
    })
}

fn identifiers(left: &str, right: &str) -> Ordering {
    match (left.parse::<u64>(), right.parse::<u64>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => left.cmp(right),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_have_an_order() {
        let ordered = ["0.9.9", "1.0.0-1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta", "1.0.0", "1.10.0"];
        for pair in ordered.windows(2) {
            assert_eq!(precedence(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(precedence(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(precedence("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }

    #[test]
    fn a_candidate_emulates_no_later_version() {
        let found = |spec: Value| {
            let mut errors = Vec::new();
            candidate(&json!({"spec": spec}), &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        let good =
            json!({"leaseName": "l", "binaryVersion": "1.36.0", "emulationVersion": "1.35.0", "strategy": OLDEST});
        assert!(found(good).is_empty());
        let bad = json!({"leaseName": "", "binaryVersion": "1.34.0", "emulationVersion": "1.35.0", "strategy": "New"});
        assert_eq!(found(bad), ["spec.leaseName", "spec.binaryVersion", "spec.strategy.strategy"]);
        let none = json!({"leaseName": "l", "binaryVersion": "1.36.0", "strategy": OLDEST});
        assert_eq!(found(none), ["spec.emulationVersion"]);
    }
}
