//! The verbs through the in-process door, on a real store.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{EventKind, PatchKind, Reason, Verb};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::identity::Identity;
use crate::testing::Fixture;

fn config_map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"v": value}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_object_lives_through_its_verbs() {
    let t = Fixture::start().await;
    let created = t.create("", "configmaps", config_map("a", "1")).await.unwrap();
    assert_eq!((created["kind"].as_str(), created["apiVersion"].as_str()), (Some("ConfigMap"), Some("v1")));
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(t.get("", "configmaps/a").await.unwrap(), created);
    assert!(t.create("", "configmaps", config_map("a", "1")).await.unwrap_err().is_already_exists());

    let mut changed = created.clone();
    changed["data"]["v"] = json!("2");
    let updated = t.update("", "configmaps/a", changed.clone()).await.unwrap();
    assert!(version(&updated) > version(&created));
    assert!(t.update("", "configmaps/a", changed).await.unwrap_err().is_conflict(), "an old version");
    let same = t.update("", "configmaps/a", updated.clone()).await.unwrap();
    assert_eq!(version(&same), version(&updated), "nothing changed, nothing is written");
    assert!(t.update("", "configmaps/b", config_map("b", "1")).await.unwrap_err().is_not_found());

    let patched = t.patch(PatchKind::Merge, "", "configmaps/a", json!({"data": {"w": "3"}})).await.unwrap();
    assert_eq!(patched["data"], json!({"v": "2", "w": "3"}));
    let body = json!([{"op": "remove", "path": "/data/w"}]);
    let patched = t.patch(PatchKind::Json, "", "configmaps/a", body).await.unwrap();
    assert_eq!(patched["data"], json!({"v": "2"}));
    let status = t.delete("", "configmaps/a", None).await.unwrap();
    assert_eq!((status["kind"].as_str(), status["status"].as_str()), (Some("Status"), Some("Success")));
    assert!(t.get("", "configmaps/a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn bad_requests_get_upstreams_answers() {
    let t = Fixture::start().await;
    let wrong_namespace = json!({"metadata": {"name": "a", "namespace": "other"}});
    assert_eq!(t.create("", "configmaps", wrong_namespace).await.unwrap_err().code, 400);
    let mut call = t.ask(Verb::Create, "", "configmaps", Some(config_map("a", "1")));
    call.namespace = Some("nowhere".to_owned());
    let failure = t.call(call).await.unwrap_err();
    assert_eq!(failure.message, "namespaces \"nowhere\" not found");
    let mut call = t.ask(Verb::Create, "", "configmaps", Some(json!({"metadata": {"name": "a"}, "dta": {}})));
    call.options.field_validation = Some("Strict".to_owned());
    let failure = t.call(call).await.unwrap_err();
    assert!(failure.message.ends_with("strict decoding error: unknown field \"dta\""), "{failure}");
    let failure = t.create("", "configmaps", json!({"metadata": {"name": "a"}, "data": {"v": 1}})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::BadRequest);
    let failure = t.create("", "configmaps", json!({"metadata": {"name": "A/../b"}})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Invalid);
    let failure = t.delete("", "namespaces/default", None).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Forbidden);
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let t = Fixture::start().await;
    let body = json!({"metadata": {"generateName": "x-"}});
    let first = t.create("", "configmaps", body.clone()).await.unwrap();
    let second = t.create("", "configmaps", body).await.unwrap();
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    let mut call = t.ask(Verb::Create, "", "configmaps", Some(config_map("dry", "1")));
    call.options.dry_run = true;
    let dry = t.call(call).await.unwrap();
    assert_eq!(dry["metadata"]["name"], "dry");
    assert!(dry["metadata"].get("resourceVersion").is_none(), "what is not stored has no version");
    assert!(t.get("", "configmaps/dry").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn server_side_apply_creates_owns_and_conflicts() {
    let t = Fixture::start().await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"v": "1"}});
    let applied = t.patch(PatchKind::Apply, "", "configmaps/a", config.clone()).await.unwrap();
    assert_eq!(applied["metadata"]["managedFields"][0]["manager"], "test");
    let again = t.patch(PatchKind::Apply, "", "configmaps/a", config.clone()).await.unwrap();
    assert_eq!(version(&again), version(&applied));
    let mut other = config;
    other["data"]["v"] = json!("2");
    let mut call = t.ask(Verb::Patch, "", "configmaps/a", Some(other));
    call.options.patch = Some(PatchKind::Apply);
    call.options.field_manager = Some("other".to_owned());
    let failure = t.call(call.clone()).await.unwrap_err();
    assert!(failure.is_conflict());
    assert_eq!(failure.details.unwrap().causes[0].reason, "FieldManagerConflict");
    call.options.force = Some(true);
    assert_eq!(t.call(call).await.unwrap()["data"]["v"], "2");
}

#[tokio::test]
async fn finalizers_hold_an_object_and_preconditions_protect_it() {
    let t = Fixture::start().await;
    let mut held = config_map("a", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let created = t.create("", "configmaps", held).await.unwrap();
    let other = json!({"preconditions": {"uid": "other"}});
    assert!(t.delete("", "configmaps/a", Some(other)).await.unwrap_err().is_conflict());
    let marked = t.delete("", "configmaps/a", None).await.unwrap();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["uid"], created["metadata"]["uid"]);
    let freed = json!({"metadata": {"finalizers": null}});
    t.patch(PatchKind::Merge, "", "configmaps/a", freed).await.unwrap();
    assert!(t.get("", "configmaps/a").await.unwrap_err().is_not_found());

    t.create("", "configmaps", config_map("b", "1")).await.unwrap();
    let marked = t.delete("", "configmaps/b", Some(json!({"propagationPolicy": "Foreground"}))).await.unwrap();
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_pod_on_a_node_goes_when_its_kubelet_says_so() {
    let t = Fixture::start().await.with_account().await;
    let created = t.create("", "pods", pod("web")).await.unwrap();
    let mounts = &created["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(created["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(created["spec"]["priority"], 0);
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    t.create("", "pods/web/binding", binding.clone()).await.unwrap();
    assert!(t.create("", "pods/web/binding", binding).await.unwrap_err().is_conflict(), "bound once");
    let bound = t.get("", "pods/web").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");

    let mut status = bound.clone();
    status["status"]["phase"] = json!("Running");
    status["spec"]["nodeName"] = json!("n2");
    status.as_object_mut().unwrap().get_mut("metadata").unwrap()["resourceVersion"] = json!("");
    let running = t.update("", "pods/web/status", status).await.unwrap();
    assert_eq!(
        (running["status"]["phase"].as_str(), running["spec"]["nodeName"].as_str()),
        (Some("Running"), Some("n1"))
    );

    let marked = t.delete("", "pods/web", None).await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    t.get("", "pods/web").await.unwrap();
    let shorter = t.delete("", "pods/web", Some(json!({"gracePeriodSeconds": 5}))).await.unwrap();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    t.delete("", "pods/web", Some(json!({"gracePeriodSeconds": 0}))).await.unwrap();
    assert!(t.get("", "pods/web").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let t = Fixture::start().await;
    t.create("", "namespaces", json!({"metadata": {"name": "shop"}})).await.unwrap();
    let mut call = t.ask(Verb::Create, "", "configmaps", Some(config_map("early", "1")));
    call.namespace = Some("shop".to_owned());
    t.call(call).await.unwrap();
    let marked = t.delete("", "namespaces/shop", None).await.unwrap();
    assert_eq!(marked["status"]["phase"], "Terminating");
    t.catch_up().await;
    let mut call = t.ask(Verb::Create, "", "configmaps", Some(config_map("a", "1")));
    call.namespace = Some("shop".to_owned());
    let refused = t.call(call).await.unwrap_err();
    assert_eq!(refused.details.unwrap().causes[0].reason, "NamespaceTerminating");
    let mut finalized = marked;
    finalized["spec"]["finalizers"] = json!([]);
    t.update("", "namespaces/shop/finalize", finalized).await.unwrap();
    assert!(t.get("", "namespaces/shop").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn lists_are_selected_limited_and_continued() {
    let t = Fixture::start().await;
    for at in 0..10 {
        let value = if at % 2 == 0 { "even" } else { "odd" };
        t.create("", "configmaps", config_map(&format!("c{at}"), value)).await.unwrap();
    }
    let mut call = t.ask(Verb::List, "", "configmaps", None);
    call.options.label_selector = Some("v=even".to_owned());
    let even = t.call(call.clone()).await.unwrap();
    assert_eq!((even["kind"].as_str(), even["items"].as_array().unwrap().len()), (Some("ConfigMapList"), 5));
    assert!(even["items"][0].get("kind").is_none());

    let mut names = Vec::new();
    call.options.label_selector = None;
    call.options.limit = Some(4);
    loop {
        let page = t.call(call.clone()).await.unwrap();
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()));
        // What comes later is not in the list.
        t.create("", "configmaps", config_map(&format!("d{}", names.len()), "new")).await.unwrap();
        match page["metadata"]["continue"].as_str() {
            Some(token) => call.options.continue_token = Some(token.to_owned()),
            None => break,
        }
    }
    let expected: Vec<Value> = (0..10).map(|at| json!(format!("c{at}"))).collect();
    assert_eq!(names, expected);

    let mut call = t.ask(Verb::List, "", "configmaps", None);
    call.options.field_selector = Some("metadata.name=c3".to_owned());
    assert_eq!(t.call(call.clone()).await.unwrap()["items"].as_array().unwrap().len(), 1);
    call.options.field_selector = Some("data.v=1".to_owned());
    assert_eq!(t.call(call).await.unwrap_err().code, 400);
    let deleted = t.call(t.ask(Verb::DeleteCollection, "", "configmaps", None)).await.unwrap();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 13);
    let left = t.call(t.ask(Verb::List, "", "configmaps", None)).await.unwrap();
    assert_eq!(left["items"], json!([]));
}

#[tokio::test]
async fn a_list_whose_revision_is_gone_goes_on_with_what_there_is_now() {
    let t = Fixture::start().await;
    for at in 0..6 {
        t.create("", "configmaps", config_map(&format!("c{at}"), "old")).await.unwrap();
    }
    let mut call = t.ask(Verb::List, "", "configmaps", None);
    call.options.limit = Some(2);
    let first = t.call(call.clone()).await.unwrap();
    t.create("", "configmaps", config_map("c9", "new")).await.unwrap();
    t.server.store().compact(t.server.store().read_index().await.unwrap()).await.unwrap();

    call.options.continue_token = first["metadata"]["continue"].as_str().map(str::to_owned);
    let failure = t.call(call.clone()).await.unwrap_err();
    assert_eq!((failure.code, &failure.to_status()["metadata"]["continue"].is_string()), (410, &true), "{failure}");
    call.options.continue_token = failure.continue_token;
    let second = t.call(call.clone()).await.unwrap();
    assert_eq!(
        (&second["items"][0]["metadata"]["name"], &second["metadata"]["remainingItemCount"]),
        (&json!("c2"), &json!(3))
    );
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    call.options.continue_token = second["metadata"]["continue"].as_str().map(str::to_owned);
    call.options.limit = None;
    let rest = t.call(call).await.unwrap();
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);
    assert_eq!(rest["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watch_misses_nothing_while_many_write() {
    const WRITERS: usize = 8;
    const WRITES: usize = 40;
    let t = Arc::new(Fixture::start().await);
    let listed = t.call(t.ask(Verb::List, "", "configmaps", None)).await.unwrap();
    let mut call = t.ask(Verb::Watch, "", "configmaps", None);
    call.options.resource_version = Some(listed["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
    let mut watch = t.server.watch(&t.admin, call);
    let writers = (0..WRITERS).map(|writer| {
        let t = t.clone();
        task::spawn("writer", async move {
            let name = format!("w{writer}");
            t.create("", "configmaps", config_map(&name, "0")).await.unwrap();
            for write in 1..WRITES {
                let value = json!({"data": {"v": write.to_string()}});
                t.patch(PatchKind::Merge, "", &format!("configmaps/{name}"), value).await.unwrap();
            }
            t.delete("", &format!("configmaps/{name}"), None).await.unwrap();
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut last, mut events) = (0, 0);
    while events < WRITERS * (WRITES + 1) {
        let event = watch.next().await.unwrap().unwrap();
        let object: Value = event.object.decode().unwrap();
        let version = event.object.resource_version.unwrap();
        assert!(version > last, "in order, each once");
        last = version;
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let count = seen.entry(name).or_default();
        match event.kind {
            EventKind::Added => assert_eq!(*count, 0),
            EventKind::Modified => assert_eq!(object["data"]["v"], json!(count.to_string())),
            EventKind::Deleted => assert_eq!(*count, WRITES),
            EventKind::Bookmark => panic!("not asked for"),
        }
        *count += 1;
        events += 1;
    }
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_objects_come_and_go() {
    let t = Fixture::start().await;
    t.create("", "configmaps", config_map("a", "x")).await.unwrap();
    let mut call = t.ask(Verb::Watch, "", "configmaps", None);
    call.options.label_selector = Some("v=x".to_owned());
    let mut watch = t.server.watch(&t.admin, call);
    let mut next = async || {
        let event = watch.next().await.unwrap().unwrap();
        let object: Value = event.object.decode().unwrap();
        (event.kind, object["metadata"]["name"].as_str().unwrap().to_owned())
    };
    assert_eq!(next().await, (EventKind::Added, "a".to_owned()));
    t.create("", "configmaps", config_map("b", "y")).await.unwrap();
    let label = |value: &str| json!({"metadata": {"labels": {"v": value}}});
    t.patch(PatchKind::Merge, "", "configmaps/b", label("x")).await.unwrap();
    assert_eq!(next().await, (EventKind::Added, "b".to_owned()));
    t.patch(PatchKind::Merge, "", "configmaps/a", label("y")).await.unwrap();
    assert_eq!(next().await, (EventKind::Deleted, "a".to_owned()));
    t.delete("", "configmaps/b", None).await.unwrap();
    assert_eq!(next().await, (EventKind::Deleted, "b".to_owned()));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_and_the_distant_past_is_gone() {
    let t = Fixture::start().await;
    let mut call = t.ask(Verb::Watch, "", "namespaces", None);
    call.options.send_initial_events = Some(true);
    call.options.resource_version_match = Some("NotOlderThan".to_owned());
    call.options.allow_watch_bookmarks = true;
    let events: Vec<_> = t.server.watch(&t.admin, call).take(5).collect().await;
    assert!(events.iter().take(4).all(|event| event.as_ref().unwrap().kind == EventKind::Added));
    let bookmark: Value = events[4].as_ref().unwrap().object.decode().unwrap();
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    let mut call = t.ask(Verb::Watch, "", "namespaces", None);
    call.options.resource_version = Some("99999999".to_owned());
    call.options.timeout_seconds = Some(1);
    let failure = t.server.watch(&t.admin, call).next().await.unwrap().unwrap_err();
    assert_eq!(failure.code, 504, "{failure}");
}

#[tokio::test]
async fn scaling_meets_other_writers() {
    let t = Fixture::start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    t.create("apps", "deployments", json!({"metadata": {"name": "d"}, "spec": spec})).await.unwrap();
    let old = t.get("apps", "deployments/d/scale").await.unwrap();
    let label = async {
        for number in 0..40 {
            let labels = json!({"number": number.to_string()});
            let label = json!({"metadata": {"labels": labels}});
            let labelled = t.patch(PatchKind::Merge, "apps", "deployments/d", label).await;
            assert_eq!(labelled.unwrap()["metadata"]["labels"], labels);
        }
    };
    // Who names no version is never told that somebody else was faster.
    let scale = async {
        for number in 0..40 {
            let replicas = json!({"spec": {"replicas": number}});
            let scaled = t.patch(PatchKind::Merge, "apps", "deployments/d/scale", replicas).await;
            assert_eq!(scaled.unwrap()["spec"]["replicas"], number);
        }
    };
    tokio::join!(label, scale);
    assert!(t.update("apps", "deployments/d/scale", old).await.unwrap_err().is_conflict(), "an old version");
}

#[tokio::test]
async fn scale_and_two_versions_of_one_object() {
    let t = Fixture::start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    let made = t.create("apps", "deployments", json!({"metadata": {"name": "d"}, "spec": spec})).await.unwrap();
    assert_eq!(made["metadata"]["generation"], 1);
    let scale = t.get("apps", "deployments/d/scale").await.unwrap();
    assert_eq!((scale["spec"]["replicas"].as_i64(), scale["status"]["selector"].as_str()), (Some(2), Some("a=b")));
    let scaled = t.patch(PatchKind::Merge, "apps", "deployments/d/scale", json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scaled.unwrap()["spec"]["replicas"], 5);
    assert_eq!(t.get("apps", "deployments/d").await.unwrap()["metadata"]["generation"], 2);

    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}});
    t.create("autoscaling", "horizontalpodautoscalers", scaler).await.unwrap();
    let mut call = t.ask(Verb::Get, "autoscaling", "horizontalpodautoscalers/h", None);
    call.resource.version = "v1".into();
    assert_eq!(t.call(call).await.unwrap()["apiVersion"], "autoscaling/v1");
}

#[tokio::test]
async fn events_are_selected_by_the_fields_of_each_version_whichever_was_asked_first() {
    let t = Fixture::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "regarding": {"name": "p", "namespace": "default"}, "reason": "Test",
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Do", "type": "Normal",
        "reportingController": "tester", "reportingInstance": "here",
    });
    t.create("events.k8s.io", "events", event).await.unwrap();
    for (group, selector) in [
        ("events.k8s.io", "reportingController=tester"),
        ("", "source=tester"),
        ("", "involvedObject.name=p"),
        ("events.k8s.io", "regarding.name=p,reason=Test"),
    ] {
        let mut call = t.ask(Verb::List, group, "events", None);
        call.options.field_selector = Some(selector.to_owned());
        assert_eq!(t.call(call).await.unwrap()["items"].as_array().unwrap().len(), 1, "{selector}");
    }
}

#[tokio::test]
async fn rights_come_from_roles_and_nobody_hands_out_more() {
    let t = Fixture::start().await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}]);
    let group = "rbac.authorization.k8s.io";
    t.create(group, "roles", json!({"metadata": {"name": "r"}, "rules": rules})).await.unwrap();
    let subjects = json!([{"kind": "User", "name": "bob", "apiGroup": group}]);
    let role = json!({"kind": "Role", "name": "r", "apiGroup": group});
    let binding = json!({"metadata": {"name": "b"}, "subjects": subjects, "roleRef": role});
    t.create(group, "rolebindings", binding).await.unwrap();
    t.catch_up().await;
    let bob = Identity::user("bob", ["people"]);
    let may = async |call| t.server.call(&bob, call).await.map(|_| ()).map_err(|failure| failure.message);
    may(t.ask(Verb::List, "", "configmaps", None)).await.unwrap();
    assert_eq!(
        may(t.ask(Verb::List, "", "pods", None)).await.unwrap_err(),
        "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let more =
        json!({"metadata": {"name": "s"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    let refused = may(t.ask(Verb::Create, group, "roles", Some(more))).await.unwrap_err();
    assert!(refused.contains("attempting to grant RBAC permissions not currently held"), "{refused}");
    let less = json!({"metadata": {"name": "s"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    may(t.ask(Verb::Create, group, "roles", Some(less))).await.unwrap();

    // A view of everything, by an aggregated role.
    let subjects = json!([{"kind": "User", "name": "eve", "apiGroup": group}]);
    let role = json!({"kind": "ClusterRole", "name": "view", "apiGroup": group});
    let binding = json!({"metadata": {"name": "v"}, "subjects": subjects, "roleRef": role});
    t.create(group, "rolebindings", binding).await.unwrap();
    t.catch_up().await;
    let eve = Identity::user("eve", ["people"]);
    t.server.call(&eve, t.ask(Verb::List, "", "pods", None)).await.unwrap();
    assert_eq!(t.server.call(&eve, t.ask(Verb::List, "", "secrets", None)).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_kubelet_sees_and_changes_what_is_its_own() {
    let t = Fixture::start().await.with_account().await;
    let n1 = Identity::node("n1");
    for name in ["mine", "other"] {
        t.create("", "secrets", json!({"metadata": {"name": name}})).await.unwrap();
    }
    let mut with_secret = pod("web");
    with_secret["spec"]["nodeName"] = json!("n1");
    with_secret["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "mine"}}]);
    t.create("", "pods", with_secret).await.unwrap();
    t.catch_up().await;
    let ask = async |call| t.server.call(&n1, call).await.map(|_| ()).map_err(|failure| failure.code);
    assert_eq!(ask(t.ask(Verb::Get, "", "secrets/mine", None)).await, Ok(()));
    assert_eq!(ask(t.ask(Verb::Get, "", "secrets/other", None)).await, Err(403));
    assert_eq!(ask(t.ask(Verb::List, "", "secrets", None)).await, Err(403));
    let named = |name: &str| {
        let mut list = t.ask(Verb::List, "", "secrets", None);
        list.options.field_selector = Some(format!("metadata.name={name}"));
        list
    };
    assert_eq!((ask(named("mine")).await, ask(named("other")).await), (Ok(()), Err(403)));
    let node = |name: &str| Some(json!({"metadata": {"name": name}}));
    assert_eq!(ask(t.ask(Verb::Create, "", "nodes", node("n1"))).await, Ok(()));
    assert_eq!(ask(t.ask(Verb::Create, "", "nodes", node("n2"))).await, Err(403));
    let uid = t.get("", "pods/web").await.unwrap()["metadata"]["uid"].clone();
    let token = |uid: Value| {
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid});
        Some(json!({"spec": {"boundObjectRef": bound}}))
    };
    let path = "serviceaccounts/default/token";
    assert_eq!(ask(t.ask(Verb::Create, "", path, token(uid.clone()))).await, Ok(()));
    assert_eq!(ask(t.ask(Verb::Create, "", path, token(json!("other")))).await, Err(403));
    assert_eq!(ask(t.ask(Verb::Create, "", path, Some(json!({"spec": {}})))).await, Err(403), "bound to nothing");
    assert_eq!(Identity::node("n2").node_name(), Some("n2"));
    let foreign = t.server.call(&Identity::node("n2"), t.ask(Verb::Get, "", "secrets/mine", None)).await;
    assert_eq!(foreign.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_token_dies_with_its_pod() {
    let t = Fixture::start().await.with_account().await;
    t.create("", "pods", pod("web")).await.unwrap();
    let request = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "web"}, "expirationSeconds": 600}});
    let answer = t.create("", "serviceaccounts/default/token", request).await.unwrap();
    let review = json!({"spec": {"token": answer["status"]["token"]}});
    t.catch_up().await;
    let status = t.create("authentication.k8s.io", "tokenreviews", review.clone()).await.unwrap()["status"].clone();
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    t.delete("", "pods/web", None).await.unwrap();
    t.catch_up().await;
    let status = t.create("authentication.k8s.io", "tokenreviews", review).await.unwrap()["status"].clone();
    assert_ne!(status["authenticated"], json!(true));
}

#[tokio::test]
async fn evictions_heed_the_budget() {
    let t = Fixture::start().await.with_account().await;
    let mut labelled = pod("web");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    labelled["spec"]["nodeName"] = json!("n1");
    let mut created = t.create("", "pods", labelled).await.unwrap();
    created["status"]["phase"] = json!("Running");
    t.update("", "pods/web/status", created).await.unwrap();
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}});
    let budget = json!({"metadata": {"name": "p"}, "spec": spec});
    let mut budget = t.create("policy", "poddisruptionbudgets", budget).await.unwrap();
    let eviction = json!({"metadata": {"name": "web"}});
    t.catch_up().await;
    let refused = t.create("", "pods/web/eviction", eviction.clone()).await.unwrap_err();
    assert_eq!((refused.code, refused.details.as_ref().unwrap().retry_after_seconds), (429, 10), "nobody counted yet");
    budget["status"] = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1,
        "desiredHealthy": 1, "expectedPods": 2});
    let mut budget = t.update("policy", "poddisruptionbudgets/p/status", budget).await.unwrap();
    t.catch_up().await;
    // It runs and is not ready: with as many healthy ones as there have to be, it is missed by nobody.
    let dry = json!({"metadata": {"name": "web"}, "deleteOptions": {"dryRun": ["All"]}});
    assert_eq!(t.create("", "pods/web/eviction", dry).await.unwrap()["status"], "Success");
    let mut ready = t.get("", "pods/web").await.unwrap();
    ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    t.update("", "pods/web/status", ready).await.unwrap();
    let refused = t.create("", "pods/web/eviction", eviction.clone()).await.unwrap_err();
    let details = refused.details.as_ref().unwrap();
    assert_eq!((refused.code, details.retry_after_seconds), (429, 0));
    assert_eq!(details.causes[0].message, "The disruption budget p needs 1 healthy pods and has 1 currently");
    budget["status"] = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2});
    t.update("policy", "poddisruptionbudgets/p/status", budget).await.unwrap();
    let evicted = t.create("", "pods/web/eviction", eviction).await.unwrap();
    assert_eq!((&evicted["status"], &evicted["code"]), (&json!("Success"), &json!(201)));
    let going = t.get("", "pods/web").await.unwrap();
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let condition = going["status"]["conditions"].as_array().unwrap().last().unwrap();
    let said = (&condition["type"], &condition["status"], &condition["reason"]);
    assert_eq!(said, (&json!("DisruptionTarget"), &json!("True"), &json!("EvictionByEvictionAPI")));
    let spent = t.get("policy", "poddisruptionbudgets/p").await.unwrap()["status"].clone();
    assert_eq!(spent["disruptionsAllowed"], 0);
    assert_eq!(spent["conditions"][0]["reason"], "InsufficientPods");
    assert!(spent["disruptedPods"]["web"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn services_share_no_address_and_no_port_and_give_them_back() {
    // Room for 14 addresses, of which `kubernetes` has the first; ten node ports.
    let t = Arc::new(Fixture::with_service_range("10.43.0.0/28").await);
    let service =
        |name: String, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    let made = (0..20).map(|at| {
        let (t, body) = (t.clone(), service(format!("s{at}"), "ClusterIP"));
        task::spawn("creator", async move { t.create("", "services", body).await })
    });
    let (mut addresses, mut refused) = (Vec::new(), 0);
    for handle in made.collect::<Vec<_>>() {
        match handle.await.unwrap().unwrap() {
            Ok(service) => addresses.push(service["spec"]["clusterIP"].as_str().unwrap().to_owned()),
            Err(failure) => {
                assert!(failure.message.contains("range is full"), "{failure}");
                refused += 1;
            }
        }
    }
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), count, refused), (13, 13, 7));
    assert!(!addresses.contains(&"10.43.0.1".to_owned()));
    let services = t.call(t.ask(Verb::List, "", "services", None)).await.unwrap();
    let name = services["items"].as_array().unwrap().iter().find(|one| one["metadata"]["name"] != "kubernetes");
    let name = name.unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    t.delete("", &format!("services/{name}"), None).await.unwrap();
    let again = t.create("", "services", service("again".to_owned(), "NodePort")).await.unwrap();
    let port = again["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=30009).contains(&port));
    let plain = json!({"spec": {"type": "ClusterIP"}});
    let plain = t.patch(PatchKind::Merge, "", "services/again", plain).await.unwrap();
    assert_eq!(plain["spec"]["clusterIP"], again["spec"]["clusterIP"]);
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
}

#[tokio::test]
async fn ten_thousand_watches_see_a_write() {
    const WATCHES: usize = 10_000;
    let fixture = Fixture::start().await;
    let watches: Vec<_> = (0..WATCHES)
        .map(|_| fixture.server.watch(&fixture.admin, fixture.ask(Verb::Watch, "", "configmaps", None)))
        .collect();
    fixture.create("", "configmaps", json!({"metadata": {"name": "a"}})).await.unwrap();
    let mut seen = futures::stream::select_all(watches).take(WATCHES);
    let mut bytes = std::collections::BTreeSet::new();
    while let Some(event) = seen.next().await {
        bytes.insert(event.unwrap().object.json.to_vec());
    }
    assert_eq!(bytes.len(), 1, "all see the same");
}

#[tokio::test]
async fn patches_that_explode_are_refused() {
    let fixture = Fixture::start().await;
    fixture
        .create("", "configmaps", json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat(1000)}}))
        .await
        .unwrap();
    let copies = |count: usize| -> Value {
        (0..count).map(|number| json!({"op": "copy", "from": "/data", "path": format!("/data/{number}")})).collect()
    };
    let refused = fixture.patch(PatchKind::Json, "", "configmaps/a", copies(10_001)).await.unwrap_err();
    assert_eq!(refused.code, 413);
    assert!(refused.message.ends_with("The allowed maximum operations in a JSON patch is 10000, got 10001"));
    // Each doubles what is there.
    let refused = fixture.patch(PatchKind::Json, "", "configmaps/a", copies(40)).await.unwrap_err();
    assert_eq!(refused.code, 422);
    // Lists that are merged by key, with very many keys.
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}]},
    });
    let fixture = fixture.with_account().await;
    fixture.create("", "pods", pod).await.unwrap();
    let many: Vec<Value> = (0..20_000).map(|number| json!({"name": format!("v{number}"), "emptyDir": {}})).collect();
    let refused = fixture.patch(PatchKind::Strategic, "", "pods/p", json!({"spec": {"volumes": many}})).await;
    assert_eq!(refused.unwrap_err().code, 422);
}
