//! Recording calls, from the policy to the log file.

use std::path::Path;

use api::{PatchKind, Verb};
use serde_json::json;

use super::*;
use crate::testing::Fixture;

async fn fixture(directory: &Path, policy: &str, change: impl FnOnce(&mut Options)) -> Fixture {
    let policy_file = directory.join("policy.yaml");
    std::fs::write(&policy_file, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}")).unwrap();
    let mut options = Options { policy_file: Some(policy_file), ..Options::default() };
    options.log.file.path = directory.join("audit.log");
    change(&mut options);
    Fixture::with(|config| config.protection.audit = options).await
}

fn events(directory: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(directory.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event.pointer("/objectRef/name").is_some_and(|one| one == name)).collect()
}

#[tokio::test]
async fn a_call_is_recorded_as_the_policy_says() {
    let directory = tempfile::tempdir().unwrap();
    let policy = "omitManagedFields: true\nrules:\n\
                  - {level: RequestResponse, users: [admin], resources: [{group: '', resources: [configmaps]}]}\n\
                  - {level: Metadata, users: [admin], omitStages: [RequestReceived]}\n";
    let fixture = fixture(directory.path(), policy, |_| {}).await;
    fixture.create("", "configmaps", json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.unwrap();
    fixture.patch(PatchKind::Merge, "", "configmaps/a", json!({"data": {"k": "w"}})).await.unwrap();
    fixture.create("", "secrets", json!({"metadata": {"name": "s"}, "data": {"k": "dg=="}})).await.unwrap();
    fixture.get("", "configmaps/none").await.unwrap_err();
    let events = events(directory.path());
    let of_map = of(&events, "a");
    let stages: Vec<&str> = of_map.iter().map(|event| event.text("stage")).collect();
    // Before its body is read the object's name is not known.
    assert_eq!(stages, ["ResponseComplete", "RequestReceived", "ResponseComplete"]);
    let created = of_map[0];
    assert_eq!(created["level"], "RequestResponse");
    assert_eq!(created["requestURI"], "/api/v1/namespaces/default/configmaps");
    assert_eq!(created["user"]["username"], "admin");
    assert_eq!(created["requestObject"]["data"], json!({"k": "v"}));
    assert_eq!(created["responseObject"]["data"], json!({"k": "v"}));
    assert!(created["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(created["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(of_map[2]["requestObject"], json!({"data": {"k": "w"}}));
    let of_secret: Vec<&Value> =
        events.iter().filter(|event| event.pointer("/objectRef/resource") == Some(&json!("secrets"))).collect();
    assert_eq!(of_secret.len(), 1);
    assert!(of_secret[0].get("requestObject").is_none() && of_secret[0].get("responseObject").is_none());
    let missing = of(&events, "none");
    assert_eq!(missing[1]["responseStatus"]["reason"], "NotFound");
    assert_eq!(missing[1]["responseStatus"]["code"], 404);
    let mut text = Text::new(false);
    fixture.server.audit().unwrap().write_figures(&mut text);
    assert!(text.finish().contains("apiserver_audit_level_total{level=\"RequestResponse\"} 3\n"));
}

#[tokio::test]
async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
    use futures::StreamExt;
    let directory = tempfile::tempdir().unwrap();
    let fixture = fixture(directory.path(), "rules: [{level: Metadata, verbs: [watch]}]\n", |_| {}).await;
    fixture.create("", "configmaps", json!({"metadata": {"name": "a"}})).await.unwrap();
    let mut watch = fixture.server.watch(&fixture.admin, fixture.ask(Verb::Watch, "", "configmaps", None));
    watch.next().await.unwrap().unwrap();
    let stages = || events(directory.path()).iter().map(|event| event.text("stage").to_owned()).collect::<Vec<_>>();
    assert_eq!(stages(), ["RequestReceived", "ResponseStarted"]);
    drop(watch);
    while stages().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stages()[2], "ResponseComplete");
}

#[tokio::test]
async fn strict_recording_refuses_what_it_cannot_record_and_large_events_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let policy = "rules: [{level: Request, users: [admin], resources: [{group: '', resources: [configmaps]}]}]\n";
    let fixture = fixture(directory.path(), policy, |options| {
        options.log.delivery.mode = Mode::BlockingStrict;
        options.log.delivery.truncate = true;
        options.log.delivery.event_bytes_max = 2000;
    })
    .await;
    let large = json!({"metadata": {"name": "large"}, "data": {"k": "v".repeat(5000)}});
    fixture.create("", "configmaps", large).await.unwrap();
    let cut = events(directory.path());
    let cut = of(&cut, "large");
    assert_eq!(cut[0]["annotations"]["audit.k8s.io/truncated"], "true");
    assert!(cut[0].get("requestObject").is_none());
    let long = "x".repeat(2000);
    let refused = fixture.get("", &format!("configmaps/{long}")).await.unwrap_err();
    assert_eq!((refused.code, refused.message.contains("failed to store audit event")), (500, true));
}

#[tokio::test]
async fn events_reach_a_webhook_in_batches_and_again_if_it_was_busy() {
    use crate::webhook::testing::{Program, answer};
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let program = Program::start("audit", move |request: http::Request<Bytes>| {
        let busy = calls.fetch_add(1, Ordering::SeqCst) == 0;
        if !busy {
            sender.send(request.into_body()).unwrap();
        }
        std::future::ready(if busy { answer(503, "busy") } else { answer(200, "{}") })
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("webhook.kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts: [{{name: it, context: {{cluster: it, user: ''}}}}]\n\
         clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{}/events', certificate-authority-data: {}}}}}]\n",
        program.port,
        program.bundle()
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let policy = "omitStages: [RequestReceived]\nrules: [{level: Metadata, users: [admin]}]\n";
    let fixture = fixture(directory.path(), policy, |options| {
        options.log.file.path = std::path::PathBuf::new();
        options.webhook.config_file = Some(kubeconfig);
        options.webhook.initial_backoff = std::time::Duration::from_millis(1);
        options.webhook.delivery.batch_events_max = 2;
    })
    .await;
    for name in ["a", "b"] {
        fixture.create("", "configmaps", json!({"metadata": {"name": name}})).await.unwrap();
    }
    let list: Value = serde_json::from_slice(&received.recv().await.unwrap()).unwrap();
    assert_eq!((list.text("kind"), list.text("apiVersion")), ("EventList", "audit.k8s.io/v1"));
    let names: Vec<&str> =
        list.list("items").iter().map(|event| event["objectRef"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn where_a_request_came_from() {
    let mut headers = HeaderMap::new();
    let remote = "192.0.2.9".parse().unwrap();
    assert_eq!(source_ips(&headers, remote), ["192.0.2.9"]);
    headers.insert("x-forwarded-for", "10.0.0.1, nonsense, 10.0.0.2".parse().unwrap());
    headers.insert("x-real-ip", "10.0.0.1".parse().unwrap());
    assert_eq!(source_ips(&headers, remote), ["10.0.0.1", "10.0.0.2", "192.0.2.9"]);
    assert_eq!(source_ips(&headers, "::ffff:10.0.0.2".parse().unwrap()), ["10.0.0.1", "10.0.0.2"]);
}
