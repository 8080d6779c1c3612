//! How objects get from one version to another.

use std::collections::BTreeSet;

use schema::structural::Problem;
use serde_json::Value;

use super::{Found, Rules, label, spec::one_of};
use crate::{custom::conversion::REVIEW_VERSIONS, custom::status, fields::Fields, format};

pub(super) fn check(spec: &Value, rules: &Rules, found: &mut Found) {
    let Some(conversion) = spec.at("conversion") else { return };
    let path = "spec.conversion";
    let strategy = conversion.text("strategy");
    if strategy != "None" && spec.flag("preserveUnknownFields") {
        let text = "must be None if spec.preserveUnknownFields is true";
        found.push(Problem::invalid(format!("{path}.strategy"), strategy, text));
    }
    one_of(conversion, "strategy", &format!("{path}.strategy"), &["None", "Webhook"], found);
    let webhook = conversion.part("webhook");
    let client_path = format!("{path}.webhookClientConfig");
    let versions_path = format!("{path}.conversionReviewVersions");
    let versions = webhook.list("conversionReviewVersions");
    if strategy != "Webhook" {
        let text = "should not be set when strategy is not set to Webhook";
        if webhook.has("clientConfig") {
            found.push(Problem::forbidden(client_path, text));
        }
        if !versions.is_empty() {
            found.push(Problem::forbidden(versions_path, text));
        }
        return;
    }
    match webhook.at("clientConfig") {
        None => found.push(Problem::required(client_path, "required when strategy is set to Webhook")),
        Some(client) => check_client(client, &client_path, rules, found),
    }
    check_review_versions(versions, &versions_path, rules, found);
}

fn check_client(client: &Value, path: &str, rules: &Rules, found: &mut Found) {
    match (client.at("url"), client.at("service")) {
        (Some(_), Some(_)) | (None, None) => {
            found.push(Problem::required(path, "exactly one of url or service is required"));
        }
        (Some(url), None) => check_url(url.as_str().unwrap_or_default(), &format!("{path}.url"), found),
        (None, Some(service)) => check_service(service, &format!("{path}.service"), found),
    }
    let bundle = client.text("caBundle");
    if !bundle.is_empty() && !rules.invalid_ca_bundle && !status::is_ca_bundle(bundle) {
        let text = "unable to load root certificates: unable to parse bytes as PEM block";
        found.push(Problem::invalid(format!("{path}.caBundle"), bundle, text));
    }
}

fn check_url(url: &str, path: &str, found: &mut Found) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        found.push(Problem::invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() || scheme.is_empty() {
        found.push(Problem::invalid(path, "", format!("host must be specified{FORM}")));
    }
    for (part, text) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            found.push(Problem::invalid(path, part, text));
        }
    }
}

fn check_service(service: &Value, path: &str, found: &mut Found) {
    for field in ["name", "namespace"] {
        if service.text(field).is_empty() {
            found.push(Problem::required(format!("{path}.{field}"), format!("service {field} is required")));
        }
    }
    let port = service.int("port").unwrap_or_default();
    if service.has("port") && !(1..=65535).contains(&port) {
        let text = "port is not valid: must be between 1 and 65535, inclusive";
        found.push(Problem::invalid(format!("{path}.port"), port, text));
    }
    let url_path = service.text("path");
    let path = format!("{path}.path");
    if url_path.is_empty() {
        return;
    }
    let Some(steps) = url_path.strip_prefix('/') else {
        found.push(Problem::invalid(path, url_path, "must start with a '/'"));
        return;
    };
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    if steps.is_empty() && url_path.len() <= 1 {
        return;
    }
    for (index, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            found.push(Problem::invalid(path.as_str(), url_path, format!("segment[{index}] may not be empty")));
            continue;
        }
        for finding in format::dns_subdomain(step) {
            found.push(Problem::invalid(path.as_str(), url_path, format!("segment[{index}]: {finding}")));
        }
    }
}

fn check_review_versions(versions: &[Value], path: &str, rules: &Rules, found: &mut Found) {
    if versions.is_empty() {
        found.push(Problem::required(path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    let mut spoken = false;
    for (index, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or_default();
        let path = format!("{path}[{index}]");
        if !seen.insert(version) {
            found.push(Problem::invalid(path, version, "duplicate version"));
            continue;
        }
        for finding in label(version) {
            found.push(Problem::invalid(path.as_str(), version, finding));
        }
        spoken |= REVIEW_VERSIONS.contains(&version);
    }
    if rules.recognized_review_version && !spoken {
        let text = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        found.push(Problem::invalid(path, versions.to_vec(), text));
    }
}
