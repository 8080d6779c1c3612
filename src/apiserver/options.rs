//! What a query may ask for with a verb: upstream's validation of `ListOptions`, `CreateOptions` and their like, which
//! comes before the body is read.

use std::borrow::Cow;

use api::{Call, Failure, FieldError, PatchKind, Verb};
use serde_json::Value;

/// Bytes of a field manager's name.
const MANAGER_BYTES_MAX: usize = 128;

type Parameters<'a> = [(Cow<'a, str>, Cow<'a, str>)];

/// Refuses options that do not go together or mean nothing (422, about a kind of `meta.k8s.io`).
pub fn check(call: &Call, parameters: &Parameters<'_>) -> Result<(), Failure> {
    let mut errors = Vec::new();
    let kind = match call.verb {
        Verb::List | Verb::Watch => {
            list(call, &mut errors);
            "ListOptions"
        }
        Verb::Create => {
            write(call, parameters, &mut errors);
            "CreateOptions"
        }
        Verb::Update => {
            write(call, parameters, &mut errors);
            "UpdateOptions"
        }
        Verb::Patch => {
            patch(call, parameters, &mut errors);
            write(call, parameters, &mut errors);
            "PatchOptions"
        }
        Verb::Delete | Verb::DeleteCollection => {
            dry_run(parameters, &mut errors);
            "DeleteOptions"
        }
        _ => return Ok(()),
    };
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid("meta.k8s.io", kind, "", errors)) }
}

fn list(call: &Call, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "resourceVersionMatch";
    let options = &call.options;
    let rule = options.resource_version_match.as_deref().filter(|rule| !rule.is_empty());
    let version = options.resource_version.as_deref().unwrap_or_default();
    let resuming = options.continue_token.is_some();
    let forbidden = |text: &str| FieldError::forbidden(FIELD, text);
    if call.verb == Verb::Watch {
        if options.send_initial_events.is_some() && rule != Some("NotOlderThan") {
            errors.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        let Some(rule) = rule else { return };
        if options.send_initial_events.is_none() {
            errors.push(forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
        }
        if rule != "NotOlderThan" {
            errors.push(FieldError::not_supported(FIELD, &rule.into(), &["NotOlderThan"]));
        }
        if resuming {
            errors.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
        return;
    }
    if let Some(rule) = rule {
        if version.is_empty() {
            errors.push(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if resuming {
            errors.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(rule, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(FIELD, &rule.into(), &["Exact", "NotOlderThan", ""]));
        }
        if rule == "Exact" && version == "0" {
            errors.push(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
    }
    if options.send_initial_events.is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
}

fn patch(call: &Call, parameters: &Parameters<'_>, errors: &mut Vec<FieldError>) {
    if call.options.patch == Some(PatchKind::Apply) {
        if call.options.field_manager.as_deref().unwrap_or_default().is_empty() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
    } else if parameters.iter().any(|(key, _)| key == "force") {
        errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
    }
}

fn write(call: &Call, parameters: &Parameters<'_>, errors: &mut Vec<FieldError>) {
    let given = parameters.iter().find(|(key, _)| key == "fieldManager").map_or("", |(_, value)| value.as_ref());
    if given.len() > MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long("fieldManager", MANAGER_BYTES_MAX));
    }
    for (at, character) in given.char_indices().filter(|(_, character)| character.is_control()) {
        let text = format!("invalid character U+{:04X} (at position {at})", u32::from(character));
        errors.push(FieldError::invalid("fieldManager", &given.into(), &text));
    }
    dry_run(parameters, errors);
    let validation = call.options.field_validation.as_deref().unwrap_or_default();
    if !matches!(validation, "" | "Ignore" | "Strict" | "Warn") {
        let supported = ["", "Ignore", "Strict", "Warn"];
        errors.push(FieldError::not_supported("fieldValidation", &validation.into(), &supported));
    }
}

fn dry_run(parameters: &Parameters<'_>, errors: &mut Vec<FieldError>) {
    let given: Vec<&str> =
        parameters.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_ref()).collect();
    if given.iter().any(|one| *one != "All") {
        errors.push(FieldError::not_supported("dryRun", &Value::from(given), &["All"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request;

    fn checked(verb: Verb, query: &str, patch: Option<PatchKind>) -> String {
        let parameters = request::query(query);
        let (mut options, _) = request::options(&parameters).unwrap();
        options.patch = patch;
        let resource = api::Resource { group: "".into(), version: "v1".into(), plural: "pods".into() };
        let call = Call {
            verb,
            resource,
            subresource: None,
            namespace: None,
            name: None,
            repeated: Vec::new(),
            body: None,
            options,
        };
        check(&call, &parameters)
            .map_or_else(|failure| format!("{} {}", failure.code, failure.message), |()| String::new())
    }

    #[test]
    fn options_that_do_not_go_together_are_refused_as_upstream_refuses_them() {
        let json = Some(PatchKind::Json);
        for (verb, query, patch, text) in [
            (Verb::List, "resourceVersionMatch=Exact&resourceVersion=7", None, ""),
            (
                Verb::List,
                "resourceVersionMatch=Exact",
                None,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                Verb::List,
                "resourceVersionMatch=Foo&resourceVersion=1",
                None,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                Verb::List,
                "sendInitialEvents=true",
                None,
                "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                Verb::Watch,
                "sendInitialEvents=true",
                None,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                Verb::Watch,
                "resourceVersionMatch=NotOlderThan",
                None,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (
                Verb::Create,
                "dryRun=None",
                None,
                "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"None\"]: supported values: \"All\"",
            ),
            (
                Verb::Update,
                "fieldValidation=Foo",
                None,
                "UpdateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (
                Verb::Patch,
                "force=true",
                json,
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ),
            (
                Verb::Patch,
                "",
                Some(PatchKind::Apply),
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ),
            (
                Verb::Delete,
                "dryRun=all",
                None,
                "DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"all\"]: supported values: \"All\"",
            ),
        ] {
            let expected = if text.is_empty() { String::new() } else { format!("422 {text}") };
            assert_eq!(checked(verb, query, patch), expected, "{query}");
        }
        assert!(
            checked(Verb::Create, &format!("fieldManager={}", "x".repeat(129)), None)
                .ends_with("fieldManager: Too long: may not be more than 128 bytes")
        );
    }
}
