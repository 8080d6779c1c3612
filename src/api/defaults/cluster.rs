//! RBAC, scheduling, admission, priority and fairness, API extension, devices, reviews.

use serde_json::{Value, json};

use super::{empty_object, resource_list};
use crate::fields::Fields;

const RBAC: &str = "rbac.authorization.k8s.io";
const WEBHOOK_PORT: i64 = 443;
const WEBHOOK_SECONDS: i64 = 10;
const TOKEN_SECONDS: i64 = 3600;

pub fn binding(object: &mut Value) {
    if let Some(role) = object.object("roleRef") {
        role.fill_text("apiGroup", RBAC);
    }
    for subject in object.list_mut("subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            subject.fill_text("apiGroup", RBAC);
        }
    }
}

/// Go writes the rules even where there are none.
pub fn role(object: &mut Value) {
    if object.get("rules").is_none() {
        object.set("rules", Value::Null);
    }
}

pub fn priority_class(object: &mut Value) {
    object.fill("value", 0);
    object.fill("preemptionPolicy", "PreemptLowerPriority");
}

pub fn runtime_class(object: &mut Value) {
    if let Some(overhead) = object.at_mut("overhead") {
        resource_list(overhead, "podFixed");
    }
}

pub fn mutating_webhooks(object: &mut Value) {
    for webhook in object.list_mut("webhooks") {
        self::webhook(webhook);
        webhook.fill("reinvocationPolicy", "Never");
    }
}

pub fn validating_webhooks(object: &mut Value) {
    object.list_mut("webhooks").iter_mut().for_each(webhook);
}

fn webhook(webhook: &mut Value) {
    webhook.fill("failurePolicy", "Fail");
    webhook.fill("timeoutSeconds", WEBHOOK_SECONDS);
    match_resources(webhook);
    rules(webhook, "rules");
    if let Some(client) = webhook.at_mut("clientConfig") {
        service_port(client);
    }
}

fn service_port(holder: &mut Value) {
    if let Some(service) = holder.at_mut("service") {
        service.fill("port", WEBHOOK_PORT);
    }
}

fn match_resources(holder: &mut Value) {
    holder.fill("matchPolicy", "Equivalent");
    empty_object(holder, "namespaceSelector");
    empty_object(holder, "objectSelector");
}

fn rules(holder: &mut Value, name: &str) {
    for rule in holder.list_mut(name) {
        rule.fill("scope", "*");
    }
}

fn match_constraints(holder: &mut Value, name: &str) {
    if let Some(constraints) = holder.at_mut(name) {
        match_resources(constraints);
        rules(constraints, "resourceRules");
        rules(constraints, "excludeResourceRules");
    }
}

pub fn admission_policy(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill("failurePolicy", "Fail");
        match_constraints(spec, "matchConstraints");
    }
}

pub fn admission_policy_binding(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        match_constraints(spec, "matchResources");
    }
}

pub fn flow_schema(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill_number("matchingPrecedence", 1000);
    }
}

pub fn priority_level(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    if let Some(exempt) = spec.at_mut("exempt") {
        exempt.fill("nominalConcurrencyShares", 0);
        exempt.fill("lendablePercent", 0);
    }
    if let Some(limited) = spec.at_mut("limited") {
        limited.fill("nominalConcurrencyShares", 30);
        limited.fill("lendablePercent", 0);
        if let Some(queuing) = limited.at_mut("limitResponse").and_then(|response| response.at_mut("queuing")) {
            queuing.fill_number("handSize", 8);
            queuing.fill_number("queues", 64);
            queuing.fill_number("queueLengthLimit", 50);
        }
    }
}

pub fn api_service(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        service_port(spec);
    }
}

pub fn custom_resource_definition(object: &mut Value) {
    let Some(spec) = object.object("spec") else { return };
    if let Some(names) = spec.object("names") {
        let kind = names.text("kind").to_owned();
        if !kind.is_empty() {
            names.fill_text("singular", &kind.to_lowercase());
            names.fill_text("listKind", &format!("{kind}List"));
        }
    }
    if !spec.has("conversion") {
        spec.set("conversion", json!({"strategy": "None"}));
    }
    let client = spec
        .at_mut("conversion")
        .and_then(|conversion| conversion.at_mut("webhook"))
        .and_then(|webhook| webhook.at_mut("clientConfig"));
    if let Some(client) = client {
        service_port(client);
    }
    let stored =
        spec.list("versions").iter().find(|version| version.flag("storage")).map(|v| v.text("name").to_owned());
    if let Some(stored) = stored
        && let Some(status) = object.object("status")
        && status.list("storedVersions").is_empty()
    {
        status.set("storedVersions", json!([stored]));
    }
}

pub fn token_request(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill("expirationSeconds", TOKEN_SECONDS);
    }
}

pub fn resource_claim(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        device_requests(spec);
    }
}

pub fn resource_claim_template(object: &mut Value) {
    if let Some(spec) = object.object("spec").and_then(|spec| spec.object("spec")) {
        device_requests(spec);
    }
}

fn device_requests(spec: &mut Value) {
    let Some(devices) = spec.at_mut("devices") else { return };
    for request in devices.list_mut("requests") {
        if let Some(exactly) = request.at_mut("exactly") {
            device_count(exactly);
        }
        request.list_mut("firstAvailable").iter_mut().for_each(device_count);
    }
}

pub(super) fn device_count(request: &mut Value) {
    request.fill_text("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        request.fill_number("count", 1);
    }
    for toleration in request.list_mut("tolerations") {
        toleration.fill_text("operator", "Equal");
    }
}
