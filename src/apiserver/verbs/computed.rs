//! Resources that are answered from what the request says and kept nowhere: reviews, bindings, component statuses.

use api::{Call, Failure, Fields, Row, Verb};
use serde_json::{Value, json};

use super::typed::{self, Strictness};
use super::{Outcome, Request, access_review, binding, ownership};
use crate::authn::INVALID_TOKEN;
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
            if let Some(metadata) = review.object("metadata").filter(|_| !row.namespaced) {
                metadata.unset("namespace");
            }
            api::meta::wipe(&mut review);
            // Reviews that are answered as they were asked say who asked for what.
            if !matches!(plural.as_str(), "selfsubjectreviews" | "selfsubjectrulesreviews") {
                ownership::update(&request, None, &mut review);
            }
            request.admit("", &mut review).await?;
            let status = match plural.as_str() {
                "tokenreviews" => token_review(&request, &review).await?,
                "selfsubjectreviews" => json!({"userInfo": user_info(request.user)}),
                "selfsubjectrulesreviews" => access_review::rules(&request, &review)?,
                "selfsubjectaccessreviews" => access_review::own(&request, &review).await?,
                "subjectaccessreviews" | "localsubjectaccessreviews" => {
                    access_review::others(&request, &review).await?
                }
                _ => return Err(failures::no_such_path()),
            };
            if plural == "selfsubjectreviews" {
                let made = api::meta::time(request.now);
                review.set("metadata", json!({"creationTimestamp": made}));
            }
            // What somebody may do does not depend on what was written beside the question.
            if plural == "selfsubjectrulesreviews" {
                review.set("metadata", json!({}));
                review.set("spec", json!({}));
            }
            review.set("status", status);
            let mut outcome = Outcome::value(201, review);
            outcome.warnings = warnings;
            Ok(outcome)
        }
        _ => Err(failures::no_such_verb()),
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

async fn token_review(request: &Request<'_>, review: &Value) -> Result<Value, Failure> {
    let spec = review.part("spec");
    let token = spec.text("token");
    if token.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = spec.list("audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let tokens = request.server.authenticator().tokens();
    Ok(match tokens.authenticate(token, &audiences, request.now).await {
        Ok(Some(found)) => {
            json!({"authenticated": true, "user": user_info(&found.identity), "audiences": found.audiences})
        }
        Ok(None) => json!({"error": INVALID_TOKEN, "user": {}}),
        Err(error) => json!({"error": error, "user": {}}),
    })
}
