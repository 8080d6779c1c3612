//! A program that is asked whether somebody may (upstream: the webhook authorizer). Its answers are kept for a while.

use std::sync::Arc;
use std::time::Duration;

use api::Fields;
use serde_json::{Value, json};

use super::match_conditions::MatchConditions;
use super::{Action, Attributes, Decision};
use crate::answers::Answers;
use crate::identity::Identity;
use crate::reviewer::Reviewer;

/// What a requester can make long: such answers are not kept.
const KEPT_BYTES_MAX: usize = 10_000;

pub struct WebhookAuthorizer {
    pub name: String,
    pub reviewer: Reviewer,
    pub conditions: MatchConditions,
    /// A webhook that does not answer says no; else it has no opinion.
    pub fails_closed: bool,
    pub authorized_life: Duration,
    pub unauthorized_life: Duration,
    pub answers: Answers<Decision>,
}

impl WebhookAuthorizer {
    pub async fn decide(&self, user: &Identity, attributes: &Attributes<'_>) -> Decision {
        let spec = spec(user, attributes);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::no_opinion(),
            Err(reason) => return self.failed(&reason),
        }
        let key = self.answers.key(&spec.to_string(), &[]);
        if let Some(decision) = self.answers.get(&key) {
            return decision.as_ref().clone();
        }
        let decision = match self.reviewer.ask(&spec).await {
            Ok(status) => of_status(&status),
            Err(reason) => return self.failed(&reason),
        };
        if asked_bytes(&attributes.action) + attributes.version.len() < KEPT_BYTES_MAX {
            let life = if decision.is_allowed() { self.authorized_life } else { self.unauthorized_life };
            self.answers.put_for(key, Arc::new(decision.clone()), life);
        }
        decision
    }

    fn failed(&self, reason: &str) -> Decision {
        tracing::warn!(webhook = self.name, reason, "an authorization webhook failed");
        if self.fails_closed { Decision::Deny { reason: String::new() } } else { Decision::no_opinion() }
    }
}

fn of_status(status: &Value) -> Decision {
    let is = |field: &str| status.at(field).and_then(Value::as_bool).unwrap_or_default();
    let reason = status.text("reason").to_owned();
    match (is("allowed"), is("denied")) {
        (_, true) => Decision::Deny { reason },
        (true, false) => Decision::Allow { reason },
        (false, false) => Decision::NoOpinion { reason },
    }
}

/// `SubjectAccessReviewSpec`; what is empty is left out.
fn spec(user: &Identity, attributes: &Attributes<'_>) -> Value {
    let mut spec = json!({});
    let mut set = |field: &str, value: Value, given: bool| {
        if given {
            spec.set(field, value);
        }
    };
    match attributes.action {
        Action::Path { verb, path } => set("nonResourceAttributes", json!({"path": path, "verb": verb}), true),
        Action::Resource { verb, group, resource, subresource, namespace, name } => {
            let mut asked = json!({});
            let version = attributes.version;
            for (field, value) in [
                ("namespace", namespace),
                ("verb", verb),
                ("group", group),
                ("version", version),
                ("resource", resource),
                ("subresource", subresource),
                ("name", name),
            ] {
                if !value.is_empty() {
                    asked.set(field, value);
                }
            }
            let selectors = [
                ("fieldSelector", attributes.field_requirements()),
                ("labelSelector", attributes.label_requirements()),
            ];
            for (field, selector) in selectors {
                if !selector.known.is_empty() {
                    asked.set(field, json!({"requirements": selector.known}));
                }
            }
            set("resourceAttributes", asked, true);
        }
    }
    set("user", user.name.as_str().into(), !user.name.is_empty());
    set("groups", json!(user.groups), !user.groups.is_empty());
    set("extra", json!(user.extra), !user.extra.is_empty());
    set("uid", user.uid.as_str().into(), !user.uid.is_empty());
    spec
}

fn asked_bytes(action: &Action<'_>) -> usize {
    match *action {
        Action::Path { verb, path } => verb.len() + path.len(),
        Action::Resource { verb, group, resource, subresource, namespace, name } => {
            [verb, group, resource, subresource, namespace, name].iter().map(|part| part.len()).sum()
        }
    }
}
