//! Configurations of admission webhooks, and how any webhook is reached.
//!
//! Match conditions are checked here but for their expressions, which are compiled by the API server.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, labels};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const TIMEOUT_SECONDS_MAX: i64 = 30;
const MATCH_CONDITIONS_MAX: usize = 64;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const URL_FORM: &str = "; desired format: https://host[/path]";

/// A MutatingWebhookConfiguration or ValidatingWebhookConfiguration.
pub fn configuration(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let list = root.field("webhooks");
    let mut names = BTreeSet::new();
    for (index, hook) in object.list("webhooks").iter().enumerate() {
        let path = list.index(index);
        webhook(check, hook, &path);
        let name = hook.text("name");
        if !name.is_empty() && !names.insert(name) {
            check.duplicate(&path.field("name"), &name.into());
        }
    }
}

fn webhook(check: &mut Check<'_>, hook: &Value, path: &Path<'_>) {
    qualified_name(check, hook, path);
    let rules_path = path.field("rules");
    for (index, rule) in hook.list("rules").iter().enumerate() {
        rule_with_operations(check, rule, &rules_path.index(index));
    }
    check.one_of(hook, path, "failurePolicy", &["Ignore", "Fail"]);
    check.one_of(hook, path, "matchPolicy", &["Exact", "Equivalent"]);
    check.one_of(hook, path, "reinvocationPolicy", &["Never", "IfNeeded"]);
    if hook.has("sideEffects") {
        check.one_of(hook, path, "sideEffects", &SIDE_EFFECTS);
    } else {
        let text = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
        check.required(&path.field("sideEffects"), &text);
    }
    if let Some(seconds) = hook.int("timeoutSeconds").filter(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(seconds)) {
        let text = "the timeout value must be between 1 and 30 seconds";
        check.invalid(&path.field("timeoutSeconds"), &seconds.into(), text);
    }
    for name in ["namespaceSelector", "objectSelector"] {
        labels::selector(check, hook.part(name), &path.field(name));
    }
    client_config(check, hook.part("clientConfig"), &path.field("clientConfig"));
    match_conditions(check, hook.list("matchConditions"), &path.field("matchConditions"));
    review_versions(check, hook, &path.field("admissionReviewVersions"));
}

/// At least three segments.
fn qualified_name(check: &mut Check<'_>, hook: &Value, path: &Path<'_>) {
    let name = hook.text("name");
    if !check.text(hook, path, "name") {
        return;
    }
    let here = path.field("name");
    let findings = format::dns_subdomain(name);
    if !findings.is_empty() {
        check.invalid(&here, &name.into(), &findings.join(","));
    } else if name.split('.').count() < 3 {
        let text = "should be a domain with at least three segments separated by dots";
        check.invalid(&here, &name.into(), text);
    }
}

/// A `RuleWithOperations`, as webhooks and policies have it.
pub(crate) fn rule_with_operations(check: &mut Check<'_>, rule: &Value, path: &Path<'_>) {
    exclusive(check, rule, path, "operations", "operations");
    let operations = path.field("operations");
    for (index, operation) in rule.list("operations").iter().enumerate() {
        let supported = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !operation.as_str().is_some_and(|operation| supported.contains(&operation)) {
            check.not_supported(&operations.index(index), operation, &supported);
        }
    }
    exclusive(check, rule, path, "apiGroups", "API groups");
    exclusive(check, rule, path, "apiVersions", "API versions");
    let versions = path.field("apiVersions");
    for (index, version) in rule.list("apiVersions").iter().enumerate() {
        if version == "" {
            check.required(&versions.index(index), "");
        }
    }
    resources(check, rule.part("resources"), &path.field("resources"));
    check.one_of(rule, path, "scope", &["*", "Cluster", "Namespaced"]);
}

/// A list that must say something, and in which a star stands alone.
fn exclusive(check: &mut Check<'_>, rule: &Value, path: &Path<'_>, name: &str, what: &str) {
    let list = rule.list(name);
    if list.is_empty() {
        check.required(&path.field(name), "");
    }
    if list.len() > 1 && list.iter().any(|one| one == "*") {
        let text = format!("if '*' is present, must not specify other {what}");
        check.invalid(&path.field(name), rule.part(name), &text);
    }
}

fn resources(check: &mut Check<'_>, list: &Value, path: &Path<'_>) {
    let all: Vec<&str> = list.as_array().into_iter().flatten().map(|one| one.as_str().unwrap_or_default()).collect();
    if all.is_empty() {
        check.required(path, "");
    }
    let (mut every_subresource_of, mut on_every_resource) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (index, &text) in all.iter().enumerate() {
        let here = path.index(index);
        if text.is_empty() {
            check.required(&here, "");
            continue;
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if every_subresource_of.contains(resource) {
            check.invalid(&here, &text.into(), &format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if on_every_resource.contains(subresource) {
            check.invalid(&here, &text.into(), &format!("if '*/{subresource}' is present, must not specify {text}"));
        }
        if subresource == "*" {
            every_subresource_of.insert(resource);
        }
        if resource == "*" {
            on_every_resource.insert(subresource);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        check.invalid(path, list, "if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && plain {
        check.invalid(path, list, "if '*' is present, must not specify other resources without subresources");
    }
}

/// Names and presence; the expressions are for whoever compiles them.
pub(crate) fn match_conditions(check: &mut Check<'_>, conditions: &[Value], path: &Path<'_>) {
    if conditions.len() > MATCH_CONDITIONS_MAX {
        check.errors.push(FieldError::too_many(path, conditions.len(), MATCH_CONDITIONS_MAX));
    }
    let mut names = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let here = path.index(index);
        if condition.text("expression").trim().is_empty() {
            check.required(&here.field("expression"), "");
        }
        let name = condition.text("name");
        if check.text(condition, &here, "name") {
            check.found(&here.field("name"), name, format::label_key(name));
            if !names.insert(name) {
                check.duplicate(&here.field("name"), &name.into());
            }
        }
    }
}

fn review_versions(check: &mut Check<'_>, hook: &Value, path: &Path<'_>) {
    let versions = hook.list("admissionReviewVersions");
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        check.required(path, &format!("must specify one of {known}"));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let text = version.as_str().unwrap_or_default();
        if seen.insert(text) {
            check.found(&path.index(index), text, format::dns_1035_label(text));
        } else {
            check.invalid(&path.index(index), version, "duplicate version");
        }
    }
    if !REVIEW_VERSIONS.iter().any(|version| seen.contains(version)) {
        let value = hook.part("admissionReviewVersions");
        check.invalid(path, value, &format!("must include at least one of {known}"));
    }
}

/// A `WebhookClientConfig`, of admission and of conversion.
pub(crate) fn client_config(check: &mut Check<'_>, config: &Value, path: &Path<'_>) {
    match (config.at("url"), config.at("service")) {
        (Some(_), Some(_)) | (None, None) => check.required(path, "exactly one of url or service is required"),
        (Some(given), None) => url(check, given.as_str().unwrap_or_default(), &path.field("url")),
        (None, Some(given)) => service(check, given, &path.field("service")),
    }
}

fn url(check: &mut Check<'_>, text: &str, path: &Path<'_>) {
    if text.chars().any(|one| one.is_control() || one == ' ') {
        let why =
            format!("url must be a valid URL: parse {text:?}: net/url: invalid control character in URL{URL_FORM}");
        check.required(path, &why);
        return;
    }
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        check.invalid(path, &scheme.into(), &format!("'https' is the only allowed URL scheme{URL_FORM}"));
    }
    if host.is_empty() {
        check.invalid(path, &host.into(), &format!("host must be specified{URL_FORM}"));
    }
    for (part, text) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            check.invalid(path, &part.into(), text);
        }
    }
}

fn service(check: &mut Check<'_>, service: &Value, path: &Path<'_>) {
    check.text(service, path, "name");
    check.text(service, path, "namespace");
    let port = service.int("port").unwrap_or_default();
    let findings = format::port_number(port);
    if !findings.is_empty() {
        check.invalid(&path.field("port"), &port.into(), &format!("port is not valid: {}", findings.join(", ")));
    }
    let text = service.text("path");
    let here = path.field("path");
    if matches!(text, "" | "/") {
        return;
    }
    let mut refuse = |why: &str| check.invalid(&here, &text.into(), why);
    if text == "//" {
        refuse("segment[0] may not be empty");
        return;
    }
    if !text.starts_with('/') {
        refuse("must start with a '/'");
    }
    // The first character goes whatever it is, as upstream has it.
    let mut characters = text.chars();
    characters.next();
    let segments = characters.as_str();
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    for (index, segment) in segments.split('/').enumerate() {
        if segment.is_empty() {
            refuse(&format!("segment[{index}] may not be empty"));
            continue;
        }
        for finding in format::dns_subdomain(segment) {
            refuse(&format!("segment[{index}]: {finding}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hook() -> Value {
        json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://example.com/check"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        })
    }

    fn found(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut hook = hook();
        change(&mut hook);
        let mut errors = Vec::new();
        configuration(&json!({"webhooks": [hook]}), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_complete_hook_passes() {
        assert!(found(|_| {}).is_empty());
    }

    #[test]
    fn names_and_choices_get_upstreams_texts() {
        for (field, value, expected) in [
            ("name", json!(""), "webhooks[0].name: Required value"),
            (
                "name",
                json!("a.b"),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated \
                 by dots",
            ),
            (
                "sideEffects",
                json!("Unknown"),
                "webhooks[0].sideEffects: Unsupported value: \"Unknown\": supported values: \"None\", \
                 \"NoneOnDryRun\"",
            ),
            (
                "sideEffects",
                Value::Null,
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "admissionReviewVersions",
                json!(["v9"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, \
                 v1beta1",
            ),
            (
                "admissionReviewVersions",
                json!(["v1", "v1"]),
                "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version",
            ),
            (
                "clientConfig",
                json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                "matchConditions",
                json!([{"name": "x", "expression": " "}]),
                "webhooks[0].matchConditions[0].expression: Required value",
            ),
        ] {
            assert_eq!(found(|hook| hook[field] = value), [expected]);
        }
    }

    #[test]
    fn resources_with_stars_leave_no_doubt() {
        for (resources, expected) in [
            (json!(["pods/*", "pods/exec"]), Some("if 'pods/*' is present, must not specify pods/exec")),
            (json!(["*/exec", "pods/exec"]), Some("if '*/exec' is present, must not specify pods/exec")),
            (json!(["*/*", "a/b"]), Some("if '*/*' is present, must not specify other resources")),
            (json!(["*", "pods"]), Some("if '*' is present, must not specify other resources without subresources")),
            (json!(["*", "pods/exec"]), None),
            (json!(["pods", "pods/exec"]), None),
        ] {
            let errors = found(|hook| hook["rules"][0]["resources"] = resources.clone());
            assert_eq!(
                errors.iter().any(|error| expected.is_some_and(|text| error.ends_with(text))),
                expected.is_some()
            );
            assert_eq!(errors.is_empty(), expected.is_none(), "{resources} {errors:?}");
        }
        let errors = found(|hook| hook["rules"][0]["operations"] = json!(["*", "CREATE"]));
        assert_eq!(
            errors,
            [
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify \
              other operations"
            ]
        );
    }

    #[test]
    fn a_url_names_a_host_and_nothing_but_a_path() {
        let url = |text: &str| found(|hook| hook["clientConfig"]["url"] = text.into()).len();
        for (text, problems) in [
            ("https://a.example:8443/x/y", 0),
            ("https://[::1]:8443", 0),
            ("http://a", 1),
            ("https:///x", 1),
            ("https://me@a/", 1),
            ("https://a/?x=1", 1),
            ("https://a/#x", 1),
            ("a/b", 2),
            ("https://a b", 1),
        ] {
            assert_eq!(url(text), problems, "{text}");
        }
    }

    #[test]
    fn a_service_has_a_path_of_plain_segments() {
        let path = |text: &str| {
            let service = json!({"service": {"namespace": "n", "name": "s", "port": 443, "path": text}});
            found(|hook| hook["clientConfig"] = service)
        };
        for good in ["/", "/foo", "/foo/bar.baz/", ""] {
            assert!(path(good).is_empty(), "{good}");
        }
        for (bad, why) in [
            ("//", "segment[0] may not be empty"),
            ("foo", "must start with a '/'"),
            ("/foo//bar", "segment[1] may not be empty"),
        ] {
            let expected = format!("webhooks[0].clientConfig.service.path: Invalid value: {bad:?}: {why}");
            assert_eq!(path(bad), [expected]);
        }
        assert!(path("/Foo")[0].contains("segment[0]: a lowercase RFC 1123 subdomain"));
        let port = json!({"service": {"namespace": "n", "name": "s", "port": 0}});
        assert_eq!(
            found(|hook| hook["clientConfig"] = port),
            [
                "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, \
              inclusive"
            ]
        );
    }
}
