//! The chain of authorizers, with a webhook that answers on loopback.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::testing::Fixture;
use crate::webhook::testing::{Program, answer};

/// Says what the name of the asked object says, and keeps the last review.
async fn webhook() -> (Program, Arc<AtomicUsize>, Arc<parking_lot::Mutex<Value>>) {
    let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(parking_lot::Mutex::new(Value::Null)));
    let (counted, kept) = (asked.clone(), last.clone());
    let program = Program::start("authz", move |request: Request<Bytes>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        let status = match review.pointer("/spec/resourceAttributes/name").and_then(Value::as_str) {
            Some("yes") => json!({"allowed": true, "reason": "it is so"}),
            Some("no") => json!({"allowed": false, "denied": true, "reason": "never"}),
            _ => json!({"allowed": false}),
        };
        let answered = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "status": status});
        *kept.lock() = review;
        std::future::ready(answer(200, answered.to_string()))
    })
    .await;
    (program, asked, last)
}

fn kubeconfig(directory: &std::path::Path, port: u16, bundle: &str) -> PathBuf {
    let path = directory.join("kubeconfig");
    let text = format!(
        "clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{port}/authorize', certificate-authority-data: {bundle}}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: ''}}}}]\ncurrent-context: a\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn config(kubeconfig: &std::path::Path, policy: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n\
         - type: Webhook\n  name: first\n  webhook:\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n    \
         matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: {policy}\n    connectionInfo:\n      \
         type: KubeConfigFile\n      kubeConfigFile: {}\n- type: RBAC\n  name: rbac\n",
        kubeconfig.display()
    )
}

fn get<'a>(name: &'a str) -> Action<'a> {
    Action::Resource { verb: "get", group: "", resource: "pods", subresource: "log", namespace: "shop", name }
}

#[tokio::test]
async fn a_webhook_decides_before_rbac_and_its_answers_are_kept() {
    let t = Fixture::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (program, asked, last) = webhook().await;
    let kubeconfig = kubeconfig(directory.path(), program.port, &program.bundle());
    let path = directory.path().join("authorization.yaml");
    std::fs::write(&path, config(&kubeconfig, "Deny")).unwrap();
    let caller = Arc::new(Caller::new(t.server.cache().clone(), "v1.36.2"));
    let options = AuthorizationOptions { config_file: Some(path), ..AuthorizationOptions::default() };
    let authorizer = Authorizer::new(t.server.cache().clone(), &options, caller, &Shutdown::new()).unwrap();
    let mut user = Identity::user("alice", ["dev"]);
    user.extra.insert("scope".into(), vec!["a".into()]);

    let mut yes = Attributes::from(get("yes"));
    (yes.version, yes.fields) = ("v1", Selector::Raw("spec.nodeName=n"));
    assert_eq!(authorizer.decide(&user, &yes).await, Decision::Allow { reason: "it is so".into() });
    assert_eq!(authorizer.decide(&user, &yes).await, Decision::Allow { reason: "it is so".into() });
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the answer is kept");
    let expected = json!({"resourceAttributes": {"verb": "get", "version": "v1", "resource": "pods", "subresource": "log",
        "namespace": "shop", "name": "yes",
        "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]}},
        "user": "alice", "groups": ["dev", "system:authenticated"], "extra": {"scope": ["a"]}});
    assert_eq!(last.lock()["spec"], expected);
    assert_eq!(last.lock()["apiVersion"], "authorization.k8s.io/v1");

    assert_eq!(authorizer.decide(&user, &get("no").into()).await, Decision::Deny { reason: "never".into() });
    assert_eq!(authorizer.decide(&user, &get("other").into()).await, Decision::no_opinion());
    let discovery = Action::Path { verb: "get", path: "/api" };
    let decision = authorizer.decide(&user, &discovery.into()).await;
    assert!(decision.reason().starts_with("RBAC: allowed by ClusterRoleBinding \"system:discovery\""), "{decision:?}");
    let refused = authorizer.require(&user, &get("no").into()).await.unwrap_err().to_string();
    let expected = "pods \"no\" is forbidden: User \"alice\" cannot get resource \"pods/log\" in API group \"\" in the \
                    namespace \"shop\": never";
    assert_eq!(refused, expected);
    let master = Identity::master("admin");
    assert!(authorizer.decide(&master, &get("no").into()).await.is_allowed());
    assert_eq!(authorizer.rules(&user, "shop").incomplete.len(), 1);
}

#[tokio::test]
async fn a_webhook_that_fails_does_what_its_policy_says() {
    let t = Fixture::start().await;
    let directory = tempfile::tempdir().unwrap();
    let program = Program::start("authz", |_| std::future::ready(answer(403, "no"))).await;
    let kubeconfig = kubeconfig(directory.path(), program.port, &program.bundle());
    let caller = Arc::new(Caller::new(t.server.cache().clone(), "v1.36.2"));
    for (policy, expected) in
        [("Deny", Decision::Deny { reason: String::new() }), ("NoOpinion", Decision::no_opinion())]
    {
        let steps = chain::of_text(&config(&kubeconfig, policy), &caller).unwrap();
        let Some(Step::Webhook(webhook)) = steps.first() else { panic!("a webhook comes first") };
        assert_eq!(webhook.decide(&Identity::user("alice", [""; 0]), &get("yes").into()).await, expected);
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_field() {
    let t = Fixture::start().await;
    let caller = Arc::new(Caller::new(t.server.cache().clone(), "v1.36.2"));
    let refused = |text: &str| chain::of_text(text, &caller).err().unwrap_or_default();
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
    for (rest, expected) in [
        ("authorizers: []", "authorizers: Required value: at least one authorization mode must be defined"),
        ("authorizers: [{type: RBAC}]", "authorizers[0].name: Required value"),
        ("authorizers: [{type: ABAC, name: a}]", "authorizers[0].type: Unsupported value: \"ABAC\""),
        (
            "authorizers: [{type: RBAC, name: a}, {type: RBAC, name: b}]",
            "authorizers[1].type: Duplicate value: \"RBAC\"",
        ),
        ("authorizers: [{type: RBAC, name: a}, {type: Node, name: a}]", "authorizers[1].name: Duplicate value: \"a\""),
        (
            "authorizers: [{type: Webhook, name: a}]",
            "authorizers[0].webhook: Required value: required when type=Webhook",
        ),
        (
            "authorizers: [{type: Webhook, name: a, webhook: {timeout: 31s}}]",
            "authorizers[0].webhook.timeout: Invalid value: \"31s\": must be > 0s and <= 30s",
        ),
    ] {
        assert_eq!(refused(&format!("{head}{rest}")), expected, "{rest}");
    }
    assert!(refused("apiVersion: v1\nkind: AuthorizationConfiguration\n").starts_with("no AuthorizationConfiguration"));
    assert!(refused(&format!("{head}authorisers: []")).contains("authorisers"));
}

#[tokio::test]
async fn roles_that_are_not_there_are_named() {
    let t = Fixture::start().await;
    let binding = json!({"metadata": {"name": "dangling"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "nowhere"}});
    t.create("rbac.authorization.k8s.io", "clusterrolebindings", binding).await.unwrap();
    t.catch_up().await;
    let decision = t.server.authorizer().decide(&Identity::user("eve", [""; 0]), &get("a").into()).await;
    assert_eq!(decision.reason(), "RBAC: clusterrole.rbac.authorization.k8s.io \"nowhere\" not found");
}
