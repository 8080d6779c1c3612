//! RBAC, certificates, admission, API extension.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, NONE, UNSET, condition, human_duration, name, number, or_else, since};
use crate::fields::Fields;

pub(crate) const BINDINGS: &[Column] = &[
    Column::name(),
    Column::string("Role", "The role that is given."),
    Column::age(),
    Column::string("Users", "Users that get it.").wide(),
    Column::string("Groups", "Groups that get it.").wide(),
    Column::string("ServiceAccounts", "Service accounts that get it.").wide(),
];

pub(crate) fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = object.part("roleRef");
    let subjects = |kind: &str| {
        let own = object.list("subjects").iter().filter(|subject| subject.text("kind") == kind);
        let names = own.map(|subject| match subject.text("namespace") {
            "" => subject.text("name").to_owned(),
            namespace => format!("{namespace}/{}", subject.text("name")),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        name(object),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        since(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(crate) const SIGNING_REQUESTS: &[Column] = &[
    Column::name(),
    Column::age(),
    Column::string("SignerName", "Who is asked to sign."),
    Column::string("Requestor", "Who asks."),
    Column::string("RequestedDuration", "For how long."),
    Column::string("Condition", "What was decided."),
];

pub(crate) fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let duration = spec.int("expirationSeconds").map_or_else(|| NONE.to_owned(), human_duration);
    let decided = match (condition(object, "Approved"), condition(object, "Denied")) {
        (_, Some(_)) => "Denied",
        (Some(_), None) => "Approved",
        (None, None) => "Pending",
    };
    let mut state = decided.to_owned();
    if condition(object, "Failed").is_some() {
        state.push_str(",Failed");
    }
    if !object.part("status").text("certificate").is_empty() {
        state.push_str(",Issued");
    }
    vec![
        name(object),
        since(object, now),
        or_else(spec.text("signerName"), NONE),
        spec.text("username").into(),
        duration.into(),
        state.into(),
    ]
}

pub(crate) const WEBHOOKS: &[Column] =
    &[Column::name(), Column::integer("Webhooks", "How many webhooks are configured."), Column::age()];

pub(crate) fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), object.list("webhooks").len().into(), since(object, now)]
}

pub(crate) const VALIDATING_POLICIES: &[Column] = &[
    Column::name(),
    Column::integer("Validations", "How many rules it has."),
    Column::string("ParamKind", "The kind of its parameters."),
    Column::age(),
];

pub(crate) fn validating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, "validations", now)
}

pub(crate) const MUTATING_POLICIES: &[Column] = &[
    Column::name(),
    Column::integer("Mutations", "How many changes it makes."),
    Column::string("ParamKind", "The kind of its parameters."),
    Column::age(),
];

pub(crate) fn mutating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, "mutations", now)
}

fn policy(object: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let kind = spec.at("paramKind").map(|kind| format!("{}/{}", kind.text("apiVersion"), kind.text("kind")));
    vec![
        name(object),
        spec.list(rules).len().into(),
        kind.unwrap_or_else(|| UNSET.to_owned()).into(),
        since(object, now),
    ]
}

pub(crate) const POLICY_BINDINGS: &[Column] = &[
    Column::name(),
    Column::string("PolicyName", "The policy."),
    Column::string("ParamRef", "Its parameters."),
    Column::age(),
];

pub(crate) fn policy_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let parameters = spec.at("paramRef").map(|reference| match reference.text("namespace") {
        "" => format!("*/{}", reference.text("name")),
        namespace => format!("{namespace}/{}", reference.text("name")),
    });
    vec![
        name(object),
        spec.text("policyName").into(),
        parameters.unwrap_or_else(|| UNSET.to_owned()).into(),
        since(object, now),
    ]
}

pub(crate) const API_SERVICES: &[Column] = &[
    Column::name(),
    Column::string("Service", "The service that serves the version."),
    Column::string("Available", "Whether it can be reached."),
    Column::age(),
];

pub(crate) fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = object.part("spec").at("service");
    let service = service.map(|service| format!("{}/{}", service.text("namespace"), service.text("name")));
    let available = match condition(object, "Available") {
        None => "Unknown".to_owned(),
        Some(one) if one.text("status") == "True" => "True".to_owned(),
        Some(one) => format!("{} ({})", one.text("status"), one.text("reason")),
    };
    vec![name(object), service.unwrap_or_else(|| "Local".to_owned()).into(), available.into(), since(object, now)]
}

pub(crate) const FLOW_SCHEMAS: &[Column] = &[
    Column::name(),
    Column::string("PriorityLevel", "The level of matching requests."),
    Column::string("MatchingPrecedence", "Lower ones are tried first."),
    Column::string("DistinguisherMethod", "What tells flows apart."),
    Column::age(),
    Column::string("MissingPL", "Whether its level is missing."),
];

pub(crate) fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let dangling = condition(object, "Dangling").map_or("?", |one| one.text("status"));
    vec![
        name(object),
        spec.part("priorityLevelConfiguration").text("name").into(),
        number(spec, "matchingPrecedence"),
        or_else(spec.part("distinguisherMethod").text("type"), NONE),
        since(object, now),
        dangling.into(),
    ]
}

pub(crate) const PRIORITY_LEVELS: &[Column] = &[
    Column::name(),
    Column::string("Type", "Limited or exempt."),
    Column::string("NominalConcurrencyShares", "Its share of the server."),
    Column::string("Queues", "How many queues it has."),
    Column::string("HandSize", "Among how many a flow is spread."),
    Column::string("QueueLengthLimit", "How long each queue may be."),
    Column::age(),
];

pub(crate) fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.part("spec");
    let shown = |holder: &Value, name: &str| holder.int(name).map_or_else(|| NONE.into(), Value::from);
    let limited = spec.part("limited");
    let queuing = limited.part("limitResponse").part("queuing");
    vec![
        name(object),
        spec.text("type").into(),
        shown(if spec.has("limited") { limited } else { spec.part("exempt") }, "nominalConcurrencyShares"),
        shown(queuing, "queues"),
        shown(queuing, "handSize"),
        shown(queuing, "queueLengthLimit"),
        since(object, now),
    ]
}
