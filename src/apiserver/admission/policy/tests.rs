//! Policies in force on a server.

use api::{Failure, Reason};
use serde_json::{Value, json};

use crate::testing::Fixture;

const GROUP: &str = "admissionregistration.k8s.io";

async fn create(fixture: &Fixture, plural: &str, name: &str, spec: Value) -> Result<Value, Failure> {
    let created = fixture.create(GROUP, plural, json!({"metadata": {"name": name}, "spec": spec})).await;
    fixture.catch_up().await;
    created
}

/// A policy on ConfigMaps, with `spec` on top.
fn on_config_maps(spec: Value) -> Value {
    let mut policy = json!({
        "matchConstraints": {"resourceRules": [{
            "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
        }]},
    });
    for (name, value) in spec.as_object().unwrap() {
        policy[name] = value.clone();
    }
    policy
}

async fn validating(fixture: &Fixture, name: &str, spec: Value, actions: &[&str]) {
    create(fixture, "validatingadmissionpolicies", name, on_config_maps(spec)).await.unwrap();
    let binding = json!({"policyName": name, "validationActions": actions});
    create(fixture, "validatingadmissionpolicybindings", name, binding).await.unwrap();
}

async fn mutating(fixture: &Fixture, name: &str, spec: Value) {
    let mut spec = on_config_maps(spec);
    if spec.get("reinvocationPolicy").is_none() {
        spec["reinvocationPolicy"] = "Never".into();
    }
    create(fixture, "mutatingadmissionpolicies", name, spec).await.unwrap();
    create(fixture, "mutatingadmissionpolicybindings", name, json!({"policyName": name})).await.unwrap();
}

async fn config_map(fixture: &Fixture, name: &str, data: Value) -> Result<Value, Failure> {
    fixture.create("", "configmaps", json!({"metadata": {"name": name}, "data": data})).await
}

#[tokio::test]
async fn a_validation_that_does_not_hold_refuses_with_its_message() {
    let fixture = Fixture::start().await;
    let validations = json!({"validations": [
        {"expression": "!has(object.data.bad)", "message": " no bad things "},
        {"expression": "!has(object.data.worse)", "messageExpression": "object.metadata.name + ' is worse'",
            "reason": "Forbidden"},
        {"expression": "object.data.size() < 3"},
    ]});
    validating(&fixture, "p", validations, &["Deny"]).await;
    config_map(&fixture, "good", json!({"a": "b"})).await.unwrap();
    let refused = config_map(&fixture, "x", json!({"bad": "1"})).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (422, Reason::Invalid));
    assert_eq!(
        refused.message,
        "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no bad things"
    );
    let refused = config_map(&fixture, "x", json!({"worse": "1"})).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.ends_with("denied request: x is worse"), "{}", refused.message);
    let refused = config_map(&fixture, "x", json!({"a": "", "b": "", "c": ""})).await.unwrap_err();
    assert!(refused.message.ends_with("failed expression: object.data.size() < 3"), "{}", refused.message);
    fixture.delete(GROUP, "validatingadmissionpolicybindings/p", None).await.unwrap();
    fixture.catch_up().await;
    config_map(&fixture, "x", json!({"bad": "1"})).await.unwrap();
}

#[tokio::test]
async fn errors_count_as_the_failure_policy_says() {
    let fixture = Fixture::start().await;
    let spec = |policy: &str| json!({"failurePolicy": policy, "validations": [{"expression": "object.data.number.matches('^[0-9]+$')"}]});
    validating(&fixture, "ignoring", spec("Ignore"), &["Deny"]).await;
    config_map(&fixture, "a", json!({})).await.unwrap();
    assert!(config_map(&fixture, "b", json!({"number": "x"})).await.is_err());
    validating(&fixture, "failing", spec("Fail"), &["Deny"]).await;
    let refused = config_map(&fixture, "b", json!({})).await.unwrap_err();
    let expected = "expression 'object.data.number.matches('^[0-9]+$')' resulted in error: no such key: data";
    assert!(refused.message.ends_with(expected), "{}", refused.message);
}

#[tokio::test]
async fn conditions_variables_namespace_and_request_are_seen() {
    let fixture = Fixture::start().await;
    let spec = json!({
        "matchConditions": [
            {"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"},
            {"name": "by-admin", "expression": "request.userInfo.username == 'admin'"},
        ],
        "variables": [
            {"name": "keys", "expression": "has(object.data) ? object.data.map(k, k) : []"},
            {"name": "wanted", "expression": "namespaceObject.metadata.name == 'default' && size(variables.keys) > 0"},
        ],
        "validations": [{
            "expression": "variables.wanted && variables.keys.all(k, k != 'x')",
            "messageExpression": "request.operation + ' ' + variables.keys.join(',')",
        }],
    });
    validating(&fixture, "p", spec, &["Deny"]).await;
    config_map(&fixture, "a", json!({"k": "v"})).await.unwrap();
    config_map(&fixture, "exempt", json!({"x": "v"})).await.unwrap();
    let refused = config_map(&fixture, "b", json!({"x": "v", "y": "v"})).await.unwrap_err();
    assert!(refused.message.ends_with("denied request: CREATE x,y"), "{}", refused.message);
}

#[tokio::test]
async fn parameters_are_found_by_name_and_selector() {
    let fixture = Fixture::start().await;
    for (name, max) in [("low", "1"), ("high", "3")] {
        let body = json!({"metadata": {"name": name, "labels": {"use": "limits"}}, "data": {"max": max}});
        fixture.create("", "configmaps", body).await.unwrap();
    }
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "!has(object.data) || object.data.size() <= int(params.data.max)"}],
    });
    create(&fixture, "validatingadmissionpolicies", "p", on_config_maps(spec)).await.unwrap();
    let bind = async |name: &str, reference: Value| {
        let binding = json!({"policyName": "p", "validationActions": ["Deny"], "paramRef": reference});
        create(&fixture, "validatingadmissionpolicybindings", name, binding).await.unwrap();
    };
    bind("high", json!({"name": "high", "namespace": "default", "parameterNotFoundAction": "Deny"})).await;
    config_map(&fixture, "two", json!({"a": "", "b": ""})).await.unwrap();
    assert!(config_map(&fixture, "four", json!({"a": "", "b": "", "c": "", "d": ""})).await.is_err());
    bind("all", json!({"selector": {"matchLabels": {"use": "limits"}}, "parameterNotFoundAction": "Allow"})).await;
    assert!(config_map(&fixture, "three", json!({"a": "", "b": ""})).await.is_err());
    bind("none", json!({"name": "missing", "parameterNotFoundAction": "Deny"})).await;
    let refused = config_map(&fixture, "none", json!({})).await.unwrap_err();
    let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(refused.message.ends_with(why), "{}", refused.message);
}

#[tokio::test]
async fn expressions_ask_the_authorizer() {
    let fixture = Fixture::start().await;
    let check = |name: &str| {
        format!(
            "authorizer.serviceAccount('default', '{name}').group('').resource('pods').namespace('default')\
             .check('create').allowed()"
        )
    };
    let role =
        json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}]});
    fixture.create("rbac.authorization.k8s.io", "roles", role).await.unwrap();
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
        "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "may", "namespace": "default"}]});
    fixture.create("rbac.authorization.k8s.io", "rolebindings", binding).await.unwrap();
    let request = "authorizer.requestResource.check('delete').allowed()";
    let spec = json!({"validations": [
        {"expression": format!("{} && !{}", check("may"), check("not"))},
        {"expression": request},
        // Two checks are what an expression may cost.
        {"expression": format!("{request} && {request} && {request}")},
    ]});
    validating(&fixture, "p", spec, &["Deny"]).await;
    let refused = config_map(&fixture, "a", json!({})).await.unwrap_err();
    let expected = "resulted in error: operation cancelled: actual cost limit exceeded";
    assert!(refused.message.contains("binding 'p' denied request: expression 'authorizer.requestResource"));
    assert!(refused.message.ends_with(expected), "{}", refused.message);
}

#[tokio::test]
async fn a_policy_that_does_not_compile_is_refused() {
    let fixture = Fixture::start().await;
    let spec = on_config_maps(json!({
        "variables": [{"name": "v", "expression": "object."}],
        "validations": [{"expression": "nothing == 1"}, {"expression": "'text'"}, {"expression": "variables.w"}],
    }));
    let refused = create(&fixture, "validatingadmissionpolicies", "p", spec).await.unwrap_err();
    assert_eq!(refused.code, 422);
    for part in [
        "spec.variables[0].expression: Invalid value: \"object.\": compilation failed: ERROR: <input>:1:8: Syntax error",
        "spec.validations[0].expression: Invalid value: \"nothing == 1\": compilation failed: ERROR: <input>:1:1: \
         undeclared reference to 'nothing' (in container '')",
        "spec.validations[1].expression: Invalid value: \"'text'\": must evaluate to bool but got string",
        "undefined field 'w'",
    ] {
        assert!(refused.message.contains(part), "{part}\nin {}", refused.message);
    }
}

#[tokio::test]
async fn warnings_and_audit_annotations_do_not_refuse() {
    let fixture = Fixture::start().await;
    let spec = json!({
        "validations": [{"expression": "false", "message": "tut"}],
        "auditAnnotations": [{"key": "who", "valueExpression": "'by ' + request.userInfo.username"}],
    });
    validating(&fixture, "p", spec, &["Warn", "Audit"]).await;
    let body = json!({"metadata": {"name": "a"}});
    let call = fixture.ask(api::Verb::Create, "", "configmaps", Some(body));
    let answer = fixture.server.call(&fixture.admin, call).await.unwrap();
    assert_eq!(answer.warnings, ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': tut"]);
}

#[tokio::test]
async fn mutations_apply_and_patch_in_order() {
    let fixture = Fixture::start().await;
    let spec = json!({
        "variables": [{"name": "team", "expression": "'team-' + object.metadata.name"}],
        "matchConditions": [{"name": "new", "expression": "!has(object.metadata.labels) || !('done' in object.metadata.labels)"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'team': variables.team}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/data/a', value: 'b'}, \
                  JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: 'y'}, \
                  JSONPatch{op: 'add', path: '/data/team', value: object.metadata.labels['team']}]"}},
        ],
    });
    mutating(&fixture, "p", spec).await;
    let made = config_map(&fixture, "one", json!({"a": "b"})).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"team": "team-one", "example.com/x": "y"}));
    assert_eq!(made["data"], json!({"a": "b", "team": "team-one"}));
    // The patch's test fails: what was applied before stays.
    let made = config_map(&fixture, "two", json!({"a": "c"})).await.unwrap();
    assert_eq!((&made["metadata"]["labels"], &made["data"]), (&json!({"team": "team-two"}), &json!({"a": "c"})));
    let body = json!({"metadata": {"name": "three", "labels": {"done": ""}}});
    assert_eq!(fixture.create("", "configmaps", body).await.unwrap()["metadata"]["labels"], json!({"done": ""}));
}

#[tokio::test]
async fn a_mutation_that_fails_refuses() {
    let fixture = Fixture::start().await;
    let mutate = |expression: &str| json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    mutating(&fixture, "p", mutate("Object{metadata: Object.spec{name: 'x'}}")).await;
    let refused = config_map(&fixture, "a", json!({})).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Invalid);
    assert_eq!(
        refused.message,
        "policy 'p' with binding 'p' denied request: type mismatch: unexpected type name \"Object.spec\", expected \
         \"Object.metadata\", which matches field name path from root Object type"
    );
    fixture.delete(GROUP, "mutatingadmissionpolicies/p", None).await.unwrap();
    mutating(&fixture, "q", mutate("Object{metadata: Object.metadata{finalizers: ['a'], nothing: 1}}")).await;
    let refused = config_map(&fixture, "a", json!({})).await.unwrap_err();
    assert!(refused.message.contains("failed to convert patch object to typed object"), "{}", refused.message);
}

/// `matchPolicy: Equivalent` and names: a rule about one name is about no other.
#[tokio::test]
async fn rules_name_objects_and_exclude_others() {
    let fixture = Fixture::start().await;
    let rule = |name: &str| {
        json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
            "resourceNames": [name]}])
    };
    let spec = json!({
        "matchConstraints": {"resourceRules": rule("a"), "excludeResourceRules": rule("b")},
        "validations": [{"expression": "false"}],
    });
    validating(&fixture, "p", spec, &["Deny"]).await;
    assert!(config_map(&fixture, "a", json!({})).await.is_err());
    config_map(&fixture, "b", json!({})).await.unwrap();
    config_map(&fixture, "c", json!({})).await.unwrap();
}

#[tokio::test]
async fn the_status_tells_of_types() {
    let fixture = Fixture::start().await;
    let spec = json!({"validations": [{"expression": "object.data.size() > object.metadata.name"}]});
    validating(&fixture, "p", spec, &["Deny"]).await;
    for _ in 0..200 {
        let policy = fixture.get(GROUP, "validatingadmissionpolicies/p").await.unwrap();
        if policy["status"]["observedGeneration"] == 1 {
            let warning = &policy["status"]["typeChecking"]["expressionWarnings"][0];
            assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
            let text = warning["warning"].as_str().unwrap();
            assert!(text.starts_with("/v1, Kind=ConfigMap: compilation failed: "), "{text}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no status appears");
}

/// A webhook that would fail is not called where its conditions do not hold.
#[tokio::test]
async fn webhooks_have_conditions_too() {
    let fixture = Fixture::start().await;
    let hook = |expression: &str, policy: &str| {
        json!({"metadata": {"name": "h"}, "webhooks": [{
            "name": "h.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": policy,
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "matchConditions": [{"name": "c", "expression": expression}],
        }]})
    };
    let configurations = "validatingwebhookconfigurations";
    let refused = fixture.create(GROUP, configurations, hook("objekt.x", "Fail")).await.unwrap_err();
    let expected = "webhooks[0].matchConditions[0].expression: Invalid value: \"objekt.x\": compilation failed: ERROR: \
                    <input>:1:1: undeclared reference to 'objekt'";
    assert!(refused.message.contains(expected), "{}", refused.message);
    let only_x = "request.userInfo.username == 'admin' && object.metadata.name == 'x'";
    fixture.create(GROUP, configurations, hook(only_x, "Fail")).await.unwrap();
    fixture.catch_up().await;
    config_map(&fixture, "a", json!({})).await.unwrap();
    assert!(config_map(&fixture, "x", json!({})).await.unwrap_err().message.contains("failed calling webhook"));
    let replace = async |hook: Value| {
        let path = format!("{configurations}/h");
        let mut configuration = fixture.get(GROUP, &path).await.unwrap();
        configuration["webhooks"] = hook["webhooks"].clone();
        fixture.update(GROUP, &path, configuration).await.unwrap();
        fixture.catch_up().await;
    };
    replace(hook("object.nothing == 'x'", "Fail")).await;
    let refused = config_map(&fixture, "b", json!({})).await.unwrap_err();
    let expected =
        "configmaps \"b\" is forbidden: expression 'object.nothing == 'x'' resulted in error: no such key: nothing";
    assert_eq!(refused.message, expected);
    replace(hook("object.nothing == 'x'", "Ignore")).await;
    config_map(&fixture, "b", json!({})).await.unwrap();
}

#[tokio::test]
async fn parameters_of_an_unknown_kind_are_an_error_of_the_policy() {
    let fixture = Fixture::start().await;
    let spec = json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"},
        "validations": [{"expression": "params == null || true"}]});
    validating(&fixture, "p", spec, &["Deny"]).await;
    let refused = config_map(&fixture, "a", json!({})).await.unwrap_err();
    let expected = "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource \
                    referenced by paramKind: 'example.com/v1, Kind=Limit'";
    assert!(refused.message.ends_with(expected), "{}", refused.message);
}
