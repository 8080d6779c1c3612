//! Resources that are answered from what the request says and kept nowhere: reviews, bindings, component statuses.

use std::collections::BTreeMap;

use api::{Call, Failure, Fields, Row, Verb};
use serde_json::{Value, json};

use super::typed::{self, Strictness};
use super::{Outcome, Request, binding};
use crate::authz::{Action, Decision, Rule};
use crate::failures;
use crate::identity::Identity;

pub async fn answer(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let plural = request.plural().to_owned();
    match (request.call.verb, plural.as_str()) {
        (Verb::List, "componentstatuses") => Ok(Outcome::value(
            200,
            json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": COMPONENTS.map(item)}),
        )),
        (Verb::Get, "componentstatuses") => {
            let name = request.name()?;
            let known = COMPONENTS.into_iter().find(|component| *component == name);
            Ok(Outcome::value(200, component(known.ok_or_else(|| request.not_found(name))?)))
        }
        (Verb::Create, "bindings") => {
            let mut bound = binding::body(&mut request)?;
            let name = bound.part("metadata").text("name").to_owned();
            request.admit(&name, &mut bound).await?;
            let row = Row::find("", "v1", "pods").ok_or_else(failures::no_such_path)?.clone();
            let call = Call { resource: row.resource.clone(), name: Some(name), ..request.call };
            binding::admitted(Request { row, call, ..request }, &bound).await
        }
        (Verb::Create, _) => {
            let mut review = request.call.body.take().unwrap_or_else(|| json!({}));
            let row = request.row.clone();
            let gvk = [row.resource.group.as_ref(), row.resource.version.as_ref(), row.kind.as_ref()];
            let strictness = Strictness::parse(request.call.options.field_validation.as_deref())?;
            let warnings = typed::check(&mut review, gvk, &[], strictness)?;
            review.object("metadata");
            request.admit("", &mut review).await?;
            let status = match plural.as_str() {
                "tokenreviews" => token_review(&request, &review)?,
                "selfsubjectreviews" => json!({"userInfo": user_info(request.user)}),
                "selfsubjectrulesreviews" => rules_review(&request, &review)?,
                "selfsubjectaccessreviews" => decide(&request, request.user, review.part("spec"))?,
                "subjectaccessreviews" => decide(&request, &subject(&review)?, review.part("spec"))?,
                "localsubjectaccessreviews" => {
                    let asked = review.part("spec").part("resourceAttributes").text("namespace");
                    if Some(asked) != request.namespace() {
                        return Err(Failure::bad_request(
                            "spec.resourceAttributes.namespace must match metadata.namespace",
                        ));
                    }
                    decide(&request, &subject(&review)?, review.part("spec"))?
                }
                _ => return Err(failures::no_such_path()),
            };
            review.set("status", status);
            let mut outcome = Outcome::value(201, review);
            outcome.warnings = warnings;
            Ok(outcome)
        }
        _ => Err(failures::no_such_verb(request.group(), &plural)),
    }
}

const COMPONENTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

fn component(name: &str) -> Value {
    let mut component = item(name);
    api::meta::set_type(&mut component, "v1", "ComponentStatus");
    component
}

fn item(name: &str) -> Value {
    json!({"metadata": {"name": name}, "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]})
}

fn user_info(user: &Identity) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info.set("uid", user.uid.as_str());
    }
    if !user.extra.is_empty() {
        info.set("extra", json!(user.extra));
    }
    info
}

fn token_review(request: &Request<'_>, review: &Value) -> Result<Value, Failure> {
    let spec = review.part("spec");
    let token = spec.text("token");
    if token.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = spec.list("audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let authenticator = request.server.authenticator();
    Ok(match authenticator.by_token(token, &audiences, request.now.as_second()) {
        Ok(user) => {
            let audiences = if audiences.is_empty() { authenticator.tokens().audiences() } else { &audiences };
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Err(error) => json!({"error": error, "user": {}}),
    })
}

fn subject(review: &Value) -> Result<Identity, Failure> {
    let spec = review.part("spec");
    let groups: Vec<String> = spec.list("groups").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if spec.text("user").is_empty() && groups.is_empty() {
        let error =
            api::FieldError::invalid("spec.user", &"".into(), "at least one of user or group must be specified");
        return Err(Failure::invalid("authorization.k8s.io", "SubjectAccessReview", "", vec![error]));
    }
    let extra: BTreeMap<String, Vec<String>> =
        serde_json::from_value(spec.at("extra").cloned().unwrap_or_else(|| json!({}))).unwrap_or_default();
    Ok(Identity { name: spec.text("user").to_owned(), uid: spec.text("uid").to_owned(), groups, extra })
}

fn decide(request: &Request<'_>, user: &Identity, spec: &Value) -> Result<Value, Failure> {
    let authorizer = request.server.authorizer();
    let (resource, path) = (spec.at("resourceAttributes"), spec.at("nonResourceAttributes"));
    let decision = match (resource, path) {
        (Some(resource), None) => authorizer.decide(
            user,
            &Action::Resource {
                verb: resource.text("verb"),
                group: resource.text("group"),
                resource: resource.text("resource"),
                subresource: resource.text("subresource"),
                namespace: resource.text("namespace"),
                name: resource.text("name"),
            },
        ),
        (None, Some(path)) => {
            authorizer.decide(user, &Action::Path { verb: path.text("verb"), path: path.text("path") })
        }
        _ => {
            let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let error = api::FieldError::invalid("spec.resourceAttributes", &Value::Null, text);
            return Err(Failure::invalid("authorization.k8s.io", &request.row.kind, "", vec![error]));
        }
    };
    Ok(match decision {
        Decision::Allow { reason } if reason.is_empty() => json!({"allowed": true}),
        Decision::Allow { reason } => json!({"allowed": true, "reason": reason}),
        Decision::NoOpinion { reason } if reason.is_empty() => json!({"allowed": false}),
        Decision::NoOpinion { reason } => json!({"allowed": false, "reason": reason}),
    })
}

fn rules_review(request: &Request<'_>, review: &Value) -> Result<Value, Failure> {
    let namespace = review.part("spec").text("namespace");
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let mut rules = request.server.authorizer().rbac().rules(request.user, namespace);
    if request.user.is_in(Identity::MASTERS) {
        let all = || vec!["*".to_owned()];
        rules.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
        rules.push(Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
    }
    let (paths, resources): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}
