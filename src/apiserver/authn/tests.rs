//! Who is taken for whom, from the request's headers to the identity.

use std::sync::atomic::{AtomicUsize, Ordering};

use api::Verb;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::webhook::WebhookAuthenticator;
use super::*;
use crate::config::TokenWebhookOptions;
use crate::testing::Fixture;
use crate::webhook::testing::{Program, answer};

fn bearer(token: &str) -> HeaderMap {
    [(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
}

impl Fixture {
    async fn who(&self, headers: &HeaderMap) -> Result<Arc<Identity>, Failure> {
        let authenticator = self.server.authenticator();
        authenticator.identify(&Peer::default(), headers, "/api", Timestamp::now()).await
    }

    async fn in_namespace(&self, verb: Verb, namespace: &str, path: &str, body: Option<Value>) -> Value {
        let mut call = self.ask(verb, "", path, body);
        call.namespace = Some(namespace.to_owned());
        self.call(call).await.unwrap()
    }
}

#[tokio::test]
async fn who_shows_nothing_is_anonymous_and_who_shows_something_wrong_is_nobody() {
    let t = Fixture::start().await;
    let nobody = t.who(&HeaderMap::new()).await.unwrap();
    assert_eq!(
        (nobody.name.as_str(), nobody.groups.join(",")),
        ("system:anonymous", "system:unauthenticated".to_owned())
    );
    let basic = [(http::header::AUTHORIZATION, "Basic YTpi".parse().unwrap())].into_iter().collect();
    assert_eq!(t.who(&basic).await.unwrap().name, "system:anonymous", "passwords are not looked at");
    assert_eq!(t.who(&bearer("nobody-knows")).await.unwrap_err().code, 401);
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_while_secret_and_account_are_there() {
    let t = Fixture::start().await;
    let account = t.create("", "serviceaccounts", json!({"metadata": {"name": "robot"}})).await.unwrap();
    let uid = account["metadata"]["uid"].as_str().unwrap();
    let token = t.server.legacy_token("default", "robot", uid, "robot-token").unwrap();
    let secret = json!({"metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": STANDARD.encode(&token)}});
    t.create("", "secrets", secret).await.unwrap();
    t.catch_up().await;
    let robot = t.who(&bearer(&token)).await.unwrap();
    assert_eq!((robot.name.as_str(), robot.uid.as_str()), ("system:serviceaccount:default:robot", uid));
    assert!(robot.is_in("system:serviceaccounts:default"));
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let labelled = async {
        loop {
            let secret = t.get("", "secrets/robot-token").await.unwrap();
            let label =
                secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].as_str().map(str::to_owned);
            if let Some(label) = label {
                return label;
            }
            tokio::task::yield_now().await;
        }
    };
    let label = tokio::time::timeout(std::time::Duration::from_secs(20), labelled).await.unwrap();
    assert!(label <= today, "a day may have passed: {label}");
    t.catch_up().await;
    t.delete("", "secrets/robot-token", None).await.unwrap();
    t.catch_up().await;
    assert!(t.who(&bearer(&token)).await.is_err(), "at once, whatever is remembered");
}

#[tokio::test]
async fn a_bootstrap_token_is_a_secret_in_kube_system() {
    let t = Fixture::start().await;
    let data = [
        ("token-id", "abcdef"),
        ("token-secret", "0123456789abcdef"),
        ("usage-bootstrap-authentication", "true"),
        ("auth-extra-groups", "system:bootstrappers:workers"),
    ];
    let data: serde_json::Map<String, Value> =
        data.into_iter().map(|(key, text)| (key.to_owned(), STANDARD.encode(text).into())).collect();
    let secret =
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": data});
    t.in_namespace(Verb::Create, "kube-system", "secrets", Some(secret)).await;
    t.catch_up().await;
    let node = t.who(&bearer("abcdef.0123456789abcdef")).await.unwrap();
    assert_eq!(node.name, "system:bootstrap:abcdef");
    assert_eq!(node.groups, ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]);
    assert!(t.who(&bearer("abcdef.0123456789abcdeg")).await.is_err());
    t.in_namespace(Verb::Delete, "kube-system", "secrets/bootstrap-token-abcdef", None).await;
    t.catch_up().await;
    assert!(t.who(&bearer("abcdef.0123456789abcdef")).await.is_err());
}

#[tokio::test]
async fn a_token_review_says_for_whom_and_for_what_a_token_is() {
    let t = Fixture::start().await.with_account().await;
    let asked = json!({"spec": {"audiences": ["vault"], "expirationSeconds": 600}});
    let token = t.create("", "serviceaccounts/default/token", asked).await.unwrap();
    let token = token["status"]["token"].as_str().unwrap().to_owned();
    let review = async |audiences: Value| {
        let spec = json!({"spec": {"token": token, "audiences": audiences}});
        t.create("authentication.k8s.io", "tokenreviews", spec).await.unwrap()["status"].clone()
    };
    let status = review(json!(["other", "vault"])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    let status = review(json!(["other"])).await;
    assert_eq!(status["authenticated"], Value::Null);
    assert!(status["error"].as_str().unwrap().contains("is invalid for the target audiences"), "{status}");
    assert!(t.who(&bearer(&token)).await.is_err(), "it is not for this server");
}

#[tokio::test]
async fn a_webhook_knows_tokens_and_is_not_asked_again_too_soon() {
    let t = Fixture::start().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let program = Program::start("authn", move |request: Request<Bytes>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        let status = match review["spec"]["token"].as_str() {
            Some("good") => json!({"authenticated": true, "user": {"username": "alice", "uid": "1", "groups": ["dev"],
                "extra": {"scope": ["a"]}}}),
            Some("elsewhere") => json!({"authenticated": true, "user": {"username": "bob"}, "audiences": ["vault"]}),
            _ => json!({"authenticated": false, "error": "never heard of it"}),
        };
        let answered = json!({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status});
        std::future::ready(answer(200, answered.to_string()))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let text = format!(
        "clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority-data: {}}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: ''}}}}]\ncurrent-context: a\n",
        program.port,
        program.bundle()
    );
    std::fs::write(&path, text).unwrap();
    let caller = Arc::new(Caller::new(t.server.cache().clone(), "v1.36.2"));
    let options = TokenWebhookOptions { config_file: path, ..TokenWebhookOptions::default() };
    let webhook = WebhookAuthenticator::new(&options, &caller).unwrap();
    let us = ["us".to_owned()];
    for _ in 0..2 {
        let found = webhook.authenticate("good", &us, &us).await.unwrap().unwrap();
        assert_eq!((found.identity.name.as_str(), found.audiences.as_slice()), ("alice", us.as_slice()));
        assert_eq!(found.identity.groups, ["dev", "system:authenticated"]);
        assert_eq!(found.identity.extra["scope"], ["a"]);
        assert_eq!(webhook.authenticate("bad", &us, &us).await.unwrap_err(), "never heard of it");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(webhook.authenticate("elsewhere", &us, &us).await.unwrap().is_none(), "it is for another audience");
}
