//! Where a pod may run: tolerations, affinity, topology spread, scheduling gates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, labels};
use crate::{fields::Fields, format, path::Path};

const WEIGHT_MAX: i64 = 100;
pub(crate) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(crate) fn tolerations(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let path = path.field("tolerations");
    for (index, toleration) in spec.list("tolerations").iter().enumerate() {
        let path = path.index(index);
        let (key, value, operator) = (toleration.text("key"), toleration.text("value"), toleration.text("operator"));
        if !key.is_empty() {
            check.found(&path.field("key"), key, format::label_key(key));
        }
        if key.is_empty() && operator != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            check.invalid(&path.field("operator"), &operator.into(), text);
        }
        if toleration.has("tolerationSeconds") && toleration.text("effect") != "NoExecute" {
            let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            check.invalid(&path.field("effect"), &toleration.text("effect").into(), text);
        }
        match operator {
            "" | "Equal" => {
                let findings = format::label_value(value);
                if !findings.is_empty() {
                    check.invalid(&path.field("operator"), &value.into(), &findings.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let text = "value must be empty when `operator` is 'Exists'";
                    check.invalid(&path.field("operator"), &value.into(), text);
                }
            }
            _ => check.not_supported(&path.field("operator"), &operator.into(), &["Equal", "Exists"]),
        }
        if !toleration.text("effect").is_empty() {
            check.one_of(toleration, &path, "effect", TAINT_EFFECTS);
        }
    }
}

pub(crate) fn affinity(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Some(affinity) = spec.at("affinity") else { return };
    let path = path.field("affinity");
    if let Some(node) = affinity.at("nodeAffinity") {
        let path = path.field("nodeAffinity");
        if let Some(required) = node.at("requiredDuringSchedulingIgnoredDuringExecution") {
            node_selector(check, required, &path.field("requiredDuringSchedulingIgnoredDuringExecution"));
        }
        let list = path.field("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in node.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let path = list.index(index);
            weight(check, term, &path);
            node_selector_term(check, term.part("preference"), false, &path.field("preference"));
        }
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.at(name) else { continue };
        let path = path.field(name);
        let list = path.field("requiredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in pods.list("requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            pod_term(check, term, &list.index(index));
        }
        let list = path.field("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in pods.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let path = list.index(index);
            weight(check, term, &path);
            pod_term(check, term.part("podAffinityTerm"), &path.field("podAffinityTerm"));
        }
    }
}

fn weight(check: &mut Check<'_>, term: &Value, path: &Path<'_>) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=WEIGHT_MAX).contains(&weight) {
        check.invalid(&path.field("weight"), &weight.into(), "must be in the range 1-100");
    }
}

pub(crate) fn node_selector(check: &mut Check<'_>, selector: &Value, path: &Path<'_>) {
    let path = path.field("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        check.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term(check, term, true, &path.index(index));
    }
}

/// What is only preferred may ask for values that no label has.
fn node_selector_term(check: &mut Check<'_>, term: &Value, strict: bool, path: &Path<'_>) {
    let list = path.field("matchExpressions");
    for (index, requirement) in term.list("matchExpressions").iter().enumerate() {
        let path = list.index(index);
        let values = requirement.list("values");
        match requirement.text("operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    check.required(&path.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    check.forbidden(&path.field("values"), text);
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    let text = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    check.required(&path.field("values"), text);
                }
            }
            other => check.invalid(&path.field("operator"), &other.into(), "not a valid selector operator"),
        }
        let key = requirement.text("key");
        check.found(&path.field("key"), key, format::label_key(key));
        let list = path.field("values");
        for (index, value) in values.iter().enumerate().filter(|_| strict) {
            let value = value.as_str().unwrap_or_default();
            check.found(&list.index(index), value, format::label_value(value));
        }
    }
    let list = path.field("matchFields");
    for (index, requirement) in term.list("matchFields").iter().enumerate() {
        let path = list.index(index);
        let (operator, values) = (requirement.text("operator"), requirement.list("values"));
        if !matches!(operator, "In" | "NotIn") {
            check.invalid(&path.field("operator"), &operator.into(), "not a valid selector operator");
        } else if values.len() != 1 {
            let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            check.required(&path.field("values"), text);
        }
        let key = requirement.text("key");
        if key != "metadata.name" {
            check.invalid(&path.field("key"), &key.into(), "not a valid field selector key");
            continue;
        }
        let list = path.field("values");
        for (index, name) in values.iter().filter_map(Value::as_str).enumerate() {
            check.found(&list.index(index), name, format::dns_subdomain(name));
        }
    }
}

fn pod_term(check: &mut Check<'_>, term: &Value, path: &Path<'_>) {
    for name in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.at(name) {
            labels::selector(check, selector, &path.field(name));
        }
    }
    for namespace in term.list("namespaces").iter().filter_map(Value::as_str) {
        check.found(&path.field("namespace"), namespace, format::dns_label(namespace));
    }
    label_keys(check, term, path);
    let key = term.text("topologyKey");
    if key.is_empty() {
        check.required(&path.field("topologyKey"), "can not be empty");
    }
    check.found(&path.field("topologyKey"), key, format::label_key(key));
}

/// Labels whose values are the pod's own (KEP-3633). They have become part of the selector by now, so a key that is in
/// it twice was in it before.
fn label_keys(check: &mut Check<'_>, holder: &Value, path: &Path<'_>) {
    let selector = holder.at("labelSelector");
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (here, keys) = (path.field(name), holder.list(name));
        if selector.is_none() && !keys.is_empty() {
            check.forbidden(&here, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            check.found(&here.index(index), key, format::label_key(key));
        }
    }
    let (keys, others) = (holder.list("matchLabelKeys"), holder.list("mismatchLabelKeys"));
    if let Some(selector) = selector {
        let mut known: BTreeSet<&str> =
            selector.map("matchLabels").into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        for key in selector.list("matchExpressions").iter().map(|expression| expression.text("key")) {
            if !known.insert(key)
                && let Some(index) = keys.iter().rposition(|one| one == key)
            {
                let text = "exists in both matchLabelKeys and labelSelector";
                check.invalid(&path.index(index), &key.into(), text);
            }
        }
    }
    let here = path.field("matchLabelKeys");
    for (index, key) in keys.iter().enumerate().filter(|(_, key)| others.contains(key)) {
        check.invalid(&here.index(index), key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

pub(crate) fn topology_spread(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let list = path.field("topologySpreadConstraints");
    let constraints = spec.list("topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let path = list.index(index);
        let skew = constraint.int("maxSkew").unwrap_or_default();
        if skew <= 0 {
            check.invalid(&path.field("maxSkew"), &skew.into(), "must be greater than zero");
        }
        let key = constraint.text("topologyKey");
        if key.is_empty() {
            check.required(&path.field("topologyKey"), "can not be empty");
        }
        let when = constraint.text("whenUnsatisfiable");
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            let supported = &["DoNotSchedule", "ScheduleAnyway"];
            check.not_supported(&path.field("whenUnsatisfiable"), &when.into(), supported);
        }
        // Of two that are alike, the first is said to be there twice.
        let alike = |one: &Value| one.text("topologyKey") == key && one.text("whenUnsatisfiable") == when;
        if constraints.iter().skip(index + 1).any(alike) {
            let pair = format!("{{{key}, {when}}}");
            check.duplicate(&path.field("{topologyKey, whenUnsatisfiable}"), &pair.into());
        }
        if let Some(domains) = constraint.int("minDomains") {
            if domains <= 0 {
                check.invalid(&path.field("minDomains"), &domains.into(), "must be greater than zero");
            }
            if when != "DoNotSchedule" {
                let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                check.invalid(&path.field("minDomains"), &domains.into(), &text);
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            check.one_of(constraint, &path, name, &["Honor", "Ignore"]);
        }
        label_keys(check, constraint, &path);
        if let Some(selector) = constraint.at("labelSelector") {
            labels::selector(check, selector, &path.field("labelSelector"));
        }
    }
}

pub(crate) fn scheduling_gates(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let list = path.field("schedulingGates");
    let mut seen = BTreeSet::new();
    for (index, gate) in spec.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        check.found(&list.index(index), name, format::label_key(name));
        if !seen.insert(name) {
            check.duplicate(&list.index(index), &name.into());
        }
    }
}
