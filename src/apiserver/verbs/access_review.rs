//! The SubjectAccessReview family: what the authorizers say of a question that somebody asks.

use std::collections::BTreeMap;

use api::validation::access_review::attributes as attributes_of;
use api::{Failure, FieldError, Fields};
use serde_json::{Value, json};

use super::Request;
use crate::authz::{Action, Attributes, Decision, Requirement, Selector};
use crate::identity::Identity;

const GROUP: &str = "authorization.k8s.io";

/// The status of a SelfSubjectAccessReview.
pub async fn own(request: &Request<'_>, review: &Value) -> Result<Value, Failure> {
    let mut errors = Vec::new();
    attributes_of(review, &mut errors);
    check_metadata(review, None, &mut errors);
    refuse(request, errors)?;
    Ok(answer(request, request.user, review.part("spec")).await)
}

/// The status of a SubjectAccessReview or LocalSubjectAccessReview.
pub async fn others(request: &Request<'_>, review: &Value) -> Result<Value, Failure> {
    let spec = review.part("spec");
    let groups: Vec<String> = spec.list("groups").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mut errors = Vec::new();
    attributes_of(review, &mut errors);
    if spec.text("user").is_empty() && groups.is_empty() {
        let text = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &"".into(), text));
    }
    check_metadata(review, request.namespace(), &mut errors);
    if let Some(namespace) = request.namespace() {
        if let Some(resource) = spec.at("resourceAttributes")
            && resource.text("namespace") != namespace
        {
            let value = resource.text("namespace").into();
            let field = "spec.resourceAttributes.namespace";
            errors.push(FieldError::invalid(field, &value, "must match metadata.namespace"));
        }
        if let Some(path) = spec.at("nonResourceAttributes") {
            errors.push(FieldError::invalid("spec.nonResourceAttributes", path, "disallowed on this kind of request"));
        }
    }
    refuse(request, errors)?;
    let extra: BTreeMap<String, Vec<String>> =
        spec.at("extra").and_then(|extra| serde_json::from_value(extra.clone()).ok()).unwrap_or_default();
    let user = Identity { name: spec.text("user").to_owned(), uid: spec.text("uid").to_owned(), groups, extra };
    Ok(answer(request, &user, spec).await)
}

/// The status of a SelfSubjectRulesReview.
pub fn rules(request: &Request<'_>, review: &Value) -> Result<Value, Failure> {
    let namespace = review.part("spec").text("namespace");
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let found = request.server.authorizer().rules(request.user, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in &found.rules {
        if !rule.resources.is_empty() {
            let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                shown.set("resourceNames", rule.resource_names.clone());
            }
            resources.push(shown);
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": !found.incomplete.is_empty()});
    match found.incomplete.as_slice() {
        [] => {}
        [one] => status.set("evaluationError", *one),
        all => status.set("evaluationError", format!("[{}]", all.join(", "))),
    }
    Ok(status)
}

fn refuse(request: &Request<'_>, errors: Vec<FieldError>) -> Result<(), Failure> {
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid(GROUP, &request.row.kind, "", errors)) }
}

/// A review is no object: it has no metadata but, if it is local, its namespace.
fn check_metadata(review: &Value, namespace: Option<&str>, errors: &mut Vec<FieldError>) {
    let metadata = review.part("metadata");
    let given = metadata.as_object().into_iter().flatten();
    let extra = given.filter(|(field, value)| {
        let local = *field == "namespace" && namespace.is_some();
        !local && *field != "managedFields" && !value.is_null()
    });
    if extra.count() > 0 {
        let text = if namespace.is_some() { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid("metadata", metadata, text));
    }
}

async fn answer(request: &Request<'_>, user: &Identity, spec: &Value) -> Value {
    let attributes = attributes(spec);
    let decision = request.server.authorizer().decide(user, &attributes).await;
    let mut status = json!({"allowed": decision.is_allowed()});
    if matches!(decision, Decision::Deny { .. }) {
        status.set("denied", true);
    }
    if !decision.reason().is_empty() {
        status.set("reason", decision.reason());
    }
    let selectors =
        [("fieldSelector", attributes.field_requirements()), ("labelSelector", attributes.label_requirements())];
    let partly = selectors.iter().filter(|(_, selector)| selector.partial).map(|(field, selector)| {
        let how = if selector.known.is_empty() { "ignored" } else { "partially ignored" };
        format!("spec.resourceAttributes.{field} {how} due to parse error")
    });
    let partly: Vec<String> = partly.collect();
    if !partly.is_empty() {
        status.set("evaluationError", partly.join("; "));
    }
    status
}

fn attributes(spec: &Value) -> Attributes<'_> {
    let Some(resource) = spec.at("resourceAttributes") else {
        let path = spec.part("nonResourceAttributes");
        return Action::Path { verb: path.text("verb"), path: path.text("path") }.into();
    };
    let action = Action::Resource {
        verb: resource.text("verb"),
        group: resource.text("group"),
        resource: resource.text("resource"),
        subresource: resource.text("subresource"),
        namespace: resource.text("namespace"),
        name: resource.text("name"),
    };
    let version = Some(resource.text("version")).filter(|version| !version.is_empty()).unwrap_or("*");
    let selector = |field: &str| match resource.at(field) {
        None => Selector::None,
        Some(selector) => match selector.text("rawSelector") {
            "" => Selector::Requirements(
                selector
                    .list("requirements")
                    .iter()
                    .filter_map(|one| serde_json::from_value::<Requirement>(one.clone()).ok())
                    .collect(),
            ),
            raw => Selector::Raw(raw),
        },
    };
    Attributes { action, version, fields: selector("fieldSelector"), labels: selector("labelSelector") }
}
