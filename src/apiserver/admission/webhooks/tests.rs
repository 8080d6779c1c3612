//! Hooks that are real programs on loopback.

use std::sync::Arc;
use std::time::Duration;

use api::{Call, PatchKind, Resource, Verb};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::connect;
use crate::notes::Notes;
use crate::request::{Target, query};
use crate::testing::Fixture;
use crate::webhook::testing::{Program, answer};

/// A program that answers reviews, and remembers what it was asked, by path.
struct Hooks {
    program: Program,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Hooks {
    /// `reply` makes the `response` of a path and a `request`, without its uid.
    async fn start(reply: impl Fn(&str, &Value) -> Value + Clone + Send + Sync + 'static) -> Hooks {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let program = Program::start("hook.default.svc", move |request| {
            let (noted, reply) = (noted.clone(), reply.clone());
            async move {
                let review: Value = serde_json::from_slice(request.body()).unwrap();
                let path = request.uri().path().to_owned();
                noted.lock().push((path.clone(), review["request"].clone()));
                let mut response = reply(&path, &review["request"]);
                if response == "hang" {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                response["uid"] = review["request"]["uid"].clone();
                let body = json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response});
                answer(200, body.to_string())
            }
        })
        .await;
        Hooks { program, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().iter().map(|(path, _)| path.clone()).collect()
    }

    fn last(&self) -> Value {
        self.asked.lock().last().unwrap().1.clone()
    }

    /// A webhook for `resources` of the core group, under the path `/name`.
    fn hook(&self, name: &str, operations: &[&str], resources: &[&str]) -> Value {
        json!({
            "name": format!("{name}.example.com"), "clientConfig": self.program.client_config(&format!("/{name}")),
            "rules": [{"operations": operations, "apiGroups": [""], "apiVersions": ["v1"], "resources": resources}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        })
    }
}

const GROUP: &str = "admissionregistration.k8s.io";

async fn configure(fixture: &Fixture, kind: &str, name: &str, hooks: Vec<Value>) {
    let body = json!({"metadata": {"name": name}, "webhooks": hooks});
    fixture.create(GROUP, &format!("{kind}webhookconfigurations"), body).await.unwrap();
    fixture.catch_up().await;
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {}}, "data": {"seen": ""}})
}

/// Appends the path to `data.seen`.
fn mark(path: &str, request: &Value) -> Value {
    let seen = format!("{}{path}", request["object"]["data"]["seen"].as_str().unwrap());
    patch(json!([{"op": "replace", "path": "/data/seen", "value": seen}]))
}

#[tokio::test]
async fn mutating_hooks_see_each_others_work_and_are_called_again_if_they_ask_for_it() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(mark).await;
    let mut first = hooks.hook("first", &["CREATE"], &["configmaps"]);
    first["reinvocationPolicy"] = "IfNeeded".into();
    let second = hooks.hook("second", &["*"], &["*/*"]);
    configure(&fixture, "mutating", "b", vec![second]).await;
    configure(&fixture, "mutating", "a", vec![first]).await;
    let made = fixture.create("", "configmaps", map("m")).await.unwrap();
    // The configuration `a` comes before `b`; what the second did, the first is shown.
    assert_eq!(made["data"]["seen"], "/first/second/first");
    assert_eq!(hooks.asked(), ["/first", "/second", "/first"]);
    let asked = hooks.last();
    assert_eq!(asked["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(asked["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&asked["name"], &asked["namespace"]), (&json!("m"), &json!("default")));
    assert_eq!((&asked["operation"], &asked["dryRun"]), (&json!("CREATE"), &json!(false)));
    assert_eq!(asked["userInfo"]["username"], "admin");
    assert_eq!((&asked["options"]["kind"], &asked["oldObject"]), (&json!("CreateOptions"), &Value::Null));
    assert_eq!(asked["object"]["kind"], "ConfigMap");
}

#[tokio::test]
async fn a_validating_hook_refuses_with_its_own_words_and_warns() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(|_, request| match request["operation"].as_str().unwrap() {
        "DELETE" => json!({"allowed": false, "status": {"code": 409, "reason": "Conflict", "message": "keep it"}}),
        "UPDATE" => json!({"allowed": false}),
        _ => json!({"allowed": true, "warnings": ["mind the step"], "auditAnnotations": {"key": "value"}}),
    })
    .await;
    configure(&fixture, "validating", "v", vec![hooks.hook("v", &["*"], &["configmaps"])]).await;
    let call = fixture.ask(Verb::Create, "", "configmaps", Some(map("m")));
    let answered = fixture.server.call(&fixture.admin, call).await.unwrap();
    assert_eq!(answered.warnings, ["mind the step"]);
    let update = fixture.patch(PatchKind::Merge, "", "configmaps/m", json!({"data": {"a": "b"}})).await.unwrap_err();
    assert_eq!(update.message, "admission webhook \"v.example.com\" denied the request without explanation");
    assert_eq!(update.code, 400);
    let asked = hooks.last();
    assert_eq!((&asked["oldObject"]["data"]["a"], &asked["object"]["data"]["a"]), (&Value::Null, &json!("b")));
    assert_eq!(asked["options"]["kind"], "UpdateOptions");
    let options = json!({"propagationPolicy": "Foreground"});
    let delete = fixture.delete("", "configmaps/m", Some(options)).await.unwrap_err();
    assert_eq!((delete.code, delete.reason), (409, api::Reason::Conflict));
    assert_eq!(delete.message, "admission webhook \"v.example.com\" denied the request: keep it");
    let asked = hooks.last();
    assert_eq!((&asked["object"], &asked["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("m")));
    let options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "propagationPolicy": "Foreground"});
    assert_eq!(asked["options"], options);
    assert!(fixture.get("", "configmaps/m").await.is_ok());
}

#[tokio::test]
async fn a_failure_policy_says_what_becomes_of_requests_that_nobody_answers() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(|_, _| json!("hang")).await;
    let mut slow = hooks.hook("slow", &["CREATE"], &["configmaps"]);
    slow["timeoutSeconds"] = 1.into();
    slow["failurePolicy"] = "Ignore".into();
    configure(&fixture, "validating", "slow", vec![slow]).await;
    let mut gone = hooks.hook("gone", &["CREATE"], &["secrets"]);
    gone["clientConfig"] = json!({"service": {"namespace": "default", "name": "gone"}});
    configure(&fixture, "mutating", "gone", vec![gone]).await;
    fixture.create("", "configmaps", map("m")).await.unwrap();
    let refused = fixture.create("", "secrets", json!({"metadata": {"name": "s"}})).await.unwrap_err();
    assert_eq!(refused.code, 500);
    assert_eq!(
        refused.message,
        "Internal error occurred: failed calling webhook \"gone.example.com\": failed to call webhook: \
         Post \"https://gone.default.svc:443/?timeout=10s\": services \"gone\" not found"
    );
}

#[tokio::test]
async fn selectors_say_whose_objects_a_hook_is_asked_about() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(|path, _| json!({"allowed": path == "/never"})).await;
    let mut labelled = hooks.hook("labelled", &["*"], &["configmaps"]);
    labelled["objectSelector"] = json!({"matchLabels": {"strict": "yes"}});
    let mut elsewhere = hooks.hook("elsewhere", &["*"], &["configmaps", "namespaces"]);
    elsewhere["namespaceSelector"] = json!({"matchLabels": {"place": "elsewhere"}});
    configure(&fixture, "validating", "v", vec![labelled, elsewhere]).await;
    fixture.create("", "configmaps", map("m")).await.unwrap();
    // Either of old and new counts.
    let labels = json!({"metadata": {"labels": {"strict": "yes"}}});
    let refused = fixture.patch(PatchKind::Merge, "", "configmaps/m", labels).await.unwrap_err();
    assert!(refused.message.contains("labelled.example.com"), "{refused}");
    let namespace = |labels: Value| json!({"metadata": {"name": "other", "labels": labels}});
    let refused = fixture.create("", "namespaces", namespace(json!({"place": "elsewhere"}))).await.unwrap_err();
    assert!(refused.message.contains("elsewhere.example.com"), "{refused}");
    fixture.create("", "namespaces", namespace(json!({}))).await.unwrap();
    assert_eq!(hooks.asked(), ["/labelled", "/elsewhere"]);
}

#[tokio::test]
async fn what_is_only_tried_is_put_to_hooks_without_side_effects() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": true})).await;
    let mut careless = hooks.hook("careless", &["*"], &["secrets"]);
    careless["sideEffects"] = "NoneOnDryRun".into();
    configure(&fixture, "validating", "v", vec![careless]).await;
    let mut call = fixture.ask(Verb::Create, "", "secrets", Some(json!({"metadata": {"name": "s"}})));
    call.options.dry_run = true;
    fixture.call(call).await.unwrap();
    let asked = hooks.last();
    assert_eq!((&asked["dryRun"], &asked["options"]["dryRun"]), (&json!(true), &json!(["All"])));
}

#[tokio::test]
async fn a_hook_for_another_version_is_shown_that_version() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(|_, _| patch(json!([{"op": "replace", "path": "/message", "value": "changed"}]))).await;
    let mut exact = hooks.hook("exact", &["*"], &["events"]);
    exact["matchPolicy"] = "Exact".into();
    configure(&fixture, "mutating", "m", vec![hooks.hook("any", &["*"], &["events"]), exact]).await;
    let event = json!({
        "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "said", "reason": "Because", "action": "Do", "type": "Normal", "reportingController": "example.com/test",
        "reportingInstance": "one", "eventTime": "2026-11-30T12:00:00.000000Z",
    });
    let made = fixture.create("events.k8s.io", "events", event).await.unwrap();
    assert_eq!((&made["note"], &made["apiVersion"]), (&json!("changed"), &json!("events.k8s.io/v1")));
    assert_eq!(hooks.asked(), ["/any"]);
    let asked = hooks.last();
    assert_eq!(asked["kind"], json!({"group": "", "version": "v1", "kind": "Event"}));
    assert_eq!(asked["requestKind"], json!({"group": "events.k8s.io", "version": "v1", "kind": "Event"}));
    assert_eq!(asked["object"]["message"], "said");
}

#[tokio::test]
async fn subresources_and_streams_are_admitted_as_what_they_are() {
    let fixture = Fixture::start().await.with_account().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    fixture.create("", "pods", pod).await.unwrap();
    let hooks = Hooks::start(|_, _| json!({"allowed": false})).await;
    let resources =
        ["pods/exec", "pods/eviction", "pods/binding", "serviceaccounts/token", "replicationcontrollers/scale"];
    configure(&fixture, "validating", "v", vec![hooks.hook("v", &["*"], &resources)]).await;

    let mut call = Call::new(Verb::Create, Resource::new("", "v1", "pods"));
    (call.namespace, call.name, call.subresource) = (Some("default".into()), Some("p".into()), Some("exec".into()));
    let parameters = query("command=ls&stdout=true");
    let notes = Notes::default();
    let refused = connect::admit(&fixture.server, &fixture.admin, &Target::default(), &call, &parameters, &notes).await;
    assert!(refused.unwrap_err().message.starts_with("admission webhook \"v.example.com\" denied"));
    let asked = hooks.last();
    assert_eq!((&asked["operation"], &asked["subResource"]), (&json!("CONNECT"), &json!("exec")));
    let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "command": ["ls"]});
    assert_eq!((&asked["object"], &asked["options"]), (&options, &Value::Null));

    let eviction = json!({"metadata": {"name": "p"}});
    assert!(fixture.create("", "pods/p/eviction", eviction).await.is_err());
    assert_eq!(hooks.last()["kind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert!(fixture.create("", "pods/p/binding", binding).await.is_err());
    assert_eq!(hooks.last()["object"]["target"]["name"], "n");
    assert!(fixture.create("", "serviceaccounts/default/token", json!({"spec": {}})).await.is_err());
    assert_eq!(hooks.last()["kind"]["kind"], "TokenRequest");

    let controller = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 1, "selector": {"a": "b"}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    fixture.create("", "replicationcontrollers", controller).await.unwrap();
    let scale = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 3}});
    assert!(fixture.update("", "replicationcontrollers/rc/scale", scale).await.is_err());
    let asked = hooks.last();
    assert_eq!(asked["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!((&asked["oldObject"]["spec"]["replicas"], &asked["object"]["spec"]["replicas"]), (&json!(1), &json!(3)));
    assert_eq!(fixture.get("", "replicationcontrollers/rc").await.unwrap()["spec"]["replicas"], 1);
}

#[tokio::test]
async fn a_hook_has_no_say_in_hooks() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": false})).await;
    let mut all = hooks.hook("all", &["*"], &["*/*"]);
    all["rules"] = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    configure(&fixture, "validating", "v", vec![all.clone()]).await;
    configure(&fixture, "mutating", "m", vec![all]).await;
    assert!(fixture.create("", "configmaps", map("m")).await.is_err());
    for kind in ["validating/v", "mutating/m"] {
        let (kind, name) = kind.split_once('/').unwrap();
        fixture.delete(GROUP, &format!("{kind}webhookconfigurations/{name}"), None).await.unwrap();
    }
    fixture.catch_up().await;
    fixture.create("", "configmaps", map("m")).await.unwrap();
}

#[tokio::test]
async fn a_patch_that_fits_nowhere_is_an_error_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let hooks = Hooks::start(|_, request| match request["operation"].as_str().unwrap() {
        "DELETE" => patch(json!([{"op": "add", "path": "/x", "value": 1}])),
        _ => patch(json!([{"op": "remove", "path": "/nowhere"}])),
    })
    .await;
    fixture.create("", "configmaps", map("m")).await.unwrap();
    configure(&fixture, "mutating", "m", vec![hooks.hook("m", &["*"], &["configmaps"])]).await;
    let refused = fixture.create("", "configmaps", map("n")).await.unwrap_err();
    assert_eq!(refused.code, 500);
    assert!(refused.message.starts_with("Internal error occurred: "), "{refused}");
    let refused = fixture.delete("", "configmaps/m", None).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Internal error occurred: admission webhook \"m.example.com\" attempted to modify the object, which is not \
         supported for this operation"
    );
    assert!(fixture.get("", "configmaps/n").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn custom_resources_are_shown_in_the_hooks_version_and_pruned_afterwards() {
    let fixture = Fixture::start().await;
    let schema = json!({"type": "object", "properties": {"data": {"type": "object",
        "additionalProperties": {"type": "string"}}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "versions": [version("v1", true), version("v2", false)],
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
    }});
    fixture.create("apiextensions.k8s.io", "customresourcedefinitions", definition).await.unwrap();
    while fixture.server.find_row("example.com", "v2", "widgets").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let hooks = Hooks::start(|_, _| {
        patch(json!([
            {"op": "add", "path": "/data/mutated", "value": "yes"}, {"op": "add", "path": "/junk", "value": 1},
        ]))
    })
    .await;
    let mut hook = hooks.hook("m", &["*"], &["widgets"]);
    hook["rules"][0]["apiGroups"] = json!(["example.com"]);
    configure(&fixture, "mutating", "m", vec![hook]).await;
    let mut call = Call::new(Verb::Create, Resource::new("example.com", "v2", "widgets"));
    call.namespace = Some("default".to_owned());
    call.body = Some(json!({"metadata": {"name": "w"}, "data": {"a": "b"}}));
    let made = fixture.call(call).await.unwrap();
    assert_eq!(made["data"], json!({"a": "b", "mutated": "yes"}));
    assert_eq!((&made["apiVersion"], made.get("junk")), (&json!("example.com/v2"), None));
    let asked = hooks.last();
    assert_eq!((&asked["kind"]["version"], &asked["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(asked["object"]["apiVersion"], "example.com/v1");
}

#[tokio::test]
async fn a_hook_that_nobody_serves_does_not_keep_a_server_from_starting() {
    let fixture = Fixture::start().await;
    let hook = json!({
        "name": "all.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "sideEffects": "None",
        "rules": [{"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}],
        "admissionReviewVersions": ["v1"],
    });
    configure(&fixture, "validating", "all", vec![hook]).await;
    assert!(fixture.create("", "configmaps", map("m")).await.is_err());
    let role = "clusterroles/system:node-proxier";
    fixture.delete("rbac.authorization.k8s.io", role, None).await.unwrap();
    let fixture = fixture.restart().await;
    fixture.get("rbac.authorization.k8s.io", role).await.unwrap();
    assert!(fixture.create("", "configmaps", map("m")).await.is_err());
}

#[tokio::test]
async fn what_is_said_of_a_stream_is_heard() {
    let fixture = Fixture::start().await.with_account().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    fixture.create("", "pods", pod).await.unwrap();
    let hooks = Hooks::start(|path, _| {
        json!({"allowed": path == "/open", "warnings": [format!("{path} is watched")], "auditAnnotations": {"seen": "yes"}})
    })
    .await;
    let all = ["pods/exec", "pods/attach", "pods/portforward"];
    configure(&fixture, "validating", "v", vec![hooks.hook("open", &["CONNECT"], &all)]).await;
    let mut http = fixture.http().await;
    for stream in ["exec?command=ls", "attach", "portforward?ports=80"] {
        let path = format!("/api/v1/namespaces/default/pods/p/{stream}");
        let answer = http.send("POST", &path, &[], bytes::Bytes::new()).await;
        // The Pod is on no node; admission was before that.
        assert_eq!(answer.code, 400, "{stream}");
        assert_eq!(answer.headers["warning"], "299 - \"/open is watched\"", "{stream}");
    }
    configure(&fixture, "validating", "w", vec![hooks.hook("shut", &["CONNECT"], &all)]).await;
    let answer = http.send("POST", "/api/v1/namespaces/default/pods/p/exec", &[], bytes::Bytes::new()).await;
    let said: Vec<_> = answer.headers.get_all("warning").iter().map(|one| one.to_str().unwrap().to_owned()).collect();
    assert!(answer.json()["message"].as_str().unwrap().contains("denied the request"));
    assert!(said.contains(&"299 - \"/shut is watched\"".to_owned()), "{said:?}");

    let mut call = Call::new(Verb::Create, Resource::new("", "v1", "pods"));
    (call.namespace, call.name, call.subresource) = (Some("default".into()), Some("p".into()), Some("exec".into()));
    let notes = Notes::default();
    let asked = connect::admit(&fixture.server, &fixture.admin, &Target::default(), &call, &[], &notes).await;
    assert!(asked.is_err());
    let keys: Vec<String> = notes.take_annotations().into_iter().map(|one| one.key).collect();
    assert!(keys.contains(&"open.example.com/seen".to_owned()), "{keys:?}");
}

#[tokio::test]
async fn hooks_are_shown_what_the_configuration_has_for_them() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let noted = shown.clone();
    let program = Program::start("hook.default.svc", move |request| {
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        noted.lock().push(authorization);
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        let response = json!({"uid": review["request"]["uid"], "allowed": true});
        let body = json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response});
        std::future::ready(answer(200, body.to_string()))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let text = format!("users:\n- {{name: '127.0.0.1:{}', user: {{token: particular}}}}\n", program.port);
    std::fs::write(&path, text).unwrap();
    let fixture = Fixture::with(|config| config.admission.webhook_credentials[1] = Some(path)).await;
    let hook = json!({
        "name": "a.example.com", "clientConfig": program.client_config("/a"),
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
    });
    configure(&fixture, "mutating", "m", vec![hook.clone()]).await;
    configure(&fixture, "validating", "v", vec![hook]).await;
    fixture.create("", "configmaps", map("m")).await.unwrap();
    assert_eq!(*shown.lock(), [None, Some("Bearer particular".to_owned())]);
}
