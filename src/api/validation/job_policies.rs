//! What makes a Job fail or succeed before its pods are all done: pod failure policies and success policies.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, claims::at_most};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const FAILURE_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const POD_CONDITIONS_MAX: usize = 20;
const SUCCESS_RULES_MAX: usize = 20;
const INDEXES_BYTES_MAX: usize = 64 * 1024;

pub(crate) fn failure(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Some(policy) = spec.at("podFailurePolicy") else { return };
    let path = path.field("podFailurePolicy");
    let list = path.field("rules");
    let rules = policy.list("rules");
    at_most(check, rules.len(), FAILURE_RULES_MAX, &list);
    let pod = spec.part("template").part("spec");
    let containers = pod.list("containers").iter().chain(pod.list("initContainers"));
    let containers: BTreeSet<&str> = containers.map(|container| container.text("name")).collect();
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        match rule.text("action") {
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                let text = "requires the backoffLimitPerIndex to be set";
                check.invalid(&path.field("action"), rule.part("action"), text);
            }
            _ => one_of(check, rule, &path, "action", &["Count", "FailIndex", "FailJob", "Ignore"]),
        }
        let (codes, conditions) = (rule.at("onExitCodes"), rule.list("onPodConditions"));
        if let Some(codes) = codes {
            exit_codes(check, codes, &containers, &path.field("onExitCodes"));
        }
        pod_conditions(check, conditions, &path.field("onPodConditions"));
        let text = match (codes.is_some(), !conditions.is_empty()) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        check.errors.push(FieldError::invalid_as_a_whole(&path, text));
    }
}

/// One of `supported`; what is missing is told what there is.
fn one_of(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, name: &str, supported: &[&str]) {
    if holder.text(name).is_empty() {
        let quoted: Vec<String> = supported.iter().map(|one| format!("\"{one}\"")).collect();
        check.required(&path.field(name), &format!("valid values: [{}]", quoted.join(" ")));
    } else {
        check.one_of(holder, path, name, supported);
    }
}

fn exit_codes(check: &mut Check<'_>, codes: &Value, containers: &BTreeSet<&str>, path: &Path<'_>) {
    one_of(check, codes, path, "operator", &["In", "NotIn"]);
    if codes.has("containerName") && !containers.contains(codes.text("containerName")) {
        let text = "must be one of the container or initContainer names in the pod template";
        check.invalid(&path.field("containerName"), codes.part("containerName"), text);
    }
    let list = path.field("values");
    let values: Vec<i64> = codes.list("values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        check.invalid(&list, &Value::from(Vec::<i64>::new()), "at least one value is required");
    }
    at_most(check, values.len(), EXIT_CODES_MAX, &list);
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        if *value == 0 && codes.text("operator") == "In" {
            check.invalid(&list.index(index), &0.into(), "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            check.duplicate(&list.index(index), &(*value).into());
        }
    }
    if !values.is_sorted() {
        check.invalid(&list, codes.part("values"), "must be ordered");
    }
}

fn pod_conditions(check: &mut Check<'_>, conditions: &[Value], path: &Path<'_>) {
    at_most(check, conditions.len(), POD_CONDITIONS_MAX, path);
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let kind = condition.text("type");
        check.found(&path.field("type"), kind, format::label_key(kind));
        one_of(check, condition, &path, "status", &["False", "True", "Unknown"]);
    }
}

pub(crate) fn success(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Some(policy) = spec.at("successPolicy") else { return };
    let path = path.field("successPolicy");
    let list = path.field("rules");
    let rules = policy.list("rules");
    if rules.is_empty() {
        check.required(&list, "at least one rules must be specified when the successPolicy is specified");
    }
    at_most(check, rules.len(), SUCCESS_RULES_MAX, &list);
    let completions = spec.int("completions").unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        let indexes = rule.at("succeededIndexes").map(|_| rule.text("succeededIndexes"));
        if indexes.is_none() && !rule.has("succeededCount") {
            check.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut named = 0;
        if let Some(text) = indexes {
            let field = path.field("succeededIndexes");
            if text.len() > INDEXES_BYTES_MAX {
                check.errors.push(FieldError::too_long(&field, INDEXES_BYTES_MAX));
            }
            match count(text, completions) {
                Ok(count) => named = count,
                Err(error) => {
                    check.invalid(&field, &text.into(), &format!("error parsing succeededIndexes: {error}"));
                }
            }
        }
        let Some(wanted) = rule.int("succeededCount") else { continue };
        check.not_negative(rule, &path, "succeededCount");
        let field = path.field("succeededCount");
        let must = "must be less than or equal to";
        if wanted > completions {
            let text = format!("{must} {completions} (the number of specified completions)");
            check.invalid(&field, &wanted.into(), &text);
        }
        if indexes.is_some() && wanted > named {
            let text = format!("{must} {named} (the number of indexes in the specified succeededIndexes field)");
            check.invalid(&field, &wanted.into(), &text);
        }
    }
}

/// How many indexes a list of numbers and ranges names, such as `1,3-5,7`.
fn count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total): (Option<i64>, i64) = (None, 0);
    for interval in text.split(',') {
        let (from, to) = interval_of(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

fn interval_of(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |part: &str| -> Result<i64, String> {
        let index: i64 = part.parse().map_err(|_| format!("cannot convert string to integer for index: \"{part}\""))?;
        if index >= completions { Err(format!("too large index: \"{part}\"")) } else { Ok(index) }
    };
    match text.split('-').collect::<Vec<_>>().as_slice() {
        [one] => index(one).map(|one| (one, one)),
        [from, to] => {
            let (from, to) = (index(from)?, index(to)?);
            if from >= to {
                return Err(format!("non-increasing order, previous: {from}, current: {to}"));
            }
            Ok((from, to))
        }
        _ => Err(format!(
            "the fragment \"{text}\" violates the requirement that an index interval can have at most two parts \
             separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count("1,3-5,7", 10), Ok(5));
        assert_eq!(count("", 10), Ok(0));
        for (text, wrong) in [
            ("3,2", "non-increasing order, previous: 3, current: 2"),
            ("5-5", "non-increasing order, previous: 5, current: 5"),
            ("10", "too large index: \"10\""),
            ("a", "cannot convert string to integer for index: \"a\""),
            ("1-2-3", "the fragment \"1-2-3\" violates"),
        ] {
            assert!(count(text, 10).unwrap_err().starts_with(wrong), "{text}");
        }
    }
}
