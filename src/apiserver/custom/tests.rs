//! Custom resources through the in-process door, on a real store.

use api::{Call, EventKind, PatchKind, Resource, Verb};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::testing::Fixture;
use crate::webhook::testing::{Program, answer};

const GROUP: &str = "apiextensions.k8s.io";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["replicas"], "properties": {
            "replicas": {"type": "integer"}, "colour": {"type": "string", "default": "red"}, "selector": {"type": "string"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".spec.selector"}},
            "selectableFields": [{"jsonPath": ".spec.colour"}],
            "additionalPrinterColumns": [{"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}]})
    };
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"],
                "categories": ["all"]},
            "versions": [version("v1", true), version("v2", false)],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn ask(verb: Verb, version: &'static str, path: &str, body: Option<Value>) -> Call {
    let mut parts = path.split('/');
    let mut call = Call::new(verb, Resource::new("example.com", version, "widgets"));
    assert_eq!(parts.next(), Some("widgets"));
    call.name = parts.next().map(str::to_owned);
    call.subresource = parts.next().map(|name| name.to_owned().into());
    call.namespace = Some("default".to_owned());
    call.body = body;
    call
}

async fn established(t: &Fixture, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    t.create(GROUP, "customresourcedefinitions", definition).await.unwrap();
    until(t, &name, |found| {
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
    })
    .await
}

/// Waits until a definition is as wanted.
async fn until(t: &Fixture, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("customresourcedefinitions/{name}");
    for _ in 0..500 {
        if let Ok(found) = t.get(GROUP, &path).await
            && wanted(&found)
        {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} does not become what it is to be");
}

#[tokio::test]
async fn a_definition_is_established_and_its_objects_live() {
    let t = Fixture::start().await;
    let definition = established(&t, definition()).await;
    assert_eq!(definition["status"]["acceptedNames"]["plural"], "widgets");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    let created =
        t.call(ask(Verb::Create, "v1", "widgets", Some(widget("a", json!({"replicas": 1, "junk": 1}))))).await.unwrap();
    assert_eq!(created["spec"], json!({"replicas": 1, "colour": "red"}));
    assert_eq!(created["metadata"]["generation"], 1);
    let failure = t.call(ask(Verb::Create, "v1", "widgets", Some(widget("b", json!({}))))).await.unwrap_err();
    assert_eq!(failure.message, "Widget.example.com \"b\" is invalid: spec.replicas: Required value");

    let mut strict = ask(Verb::Create, "v1", "widgets", Some(widget("b", json!({"replicas": 1, "junk": 1}))));
    strict.options.field_validation = Some("Strict".to_owned());
    let failure = t.call(strict).await.unwrap_err();
    let expected =
        r#"Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.junk""#;
    assert_eq!((failure.code, failure.message.as_str()), (400, expected));

    let second = t.call(ask(Verb::Get, "v2", "widgets/a", None)).await.unwrap();
    assert_eq!(second["apiVersion"], "example.com/v2");
    assert_eq!(second["spec"], created["spec"]);
    let mut changed = second.clone();
    changed["spec"]["replicas"] = json!(4);
    let changed = t.call(ask(Verb::Update, "v2", "widgets/a", Some(changed))).await.unwrap();
    assert_eq!((&changed["metadata"]["generation"], &changed["apiVersion"]), (&json!(2), &json!("example.com/v2")));
    let list = t.call(ask(Verb::List, "v1", "widgets", None)).await.unwrap();
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("WidgetList"), Some(1)));

    let mut status = changed.clone();
    status["status"] = json!({"replicas": 4});
    status["spec"]["replicas"] = json!(9);
    let status = t.call(ask(Verb::Update, "v2", "widgets/a/status", Some(status))).await.unwrap();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(4), &json!(4)));
    assert_eq!(status["metadata"]["generation"], 2);
    let scale = t.call(ask(Verb::Get, "v1", "widgets/a/scale", None)).await.unwrap();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!("Scale"), &json!(4), &json!(4))
    );
    let mut patch = ask(Verb::Patch, "v1", "widgets/a/scale", Some(json!({"spec": {"replicas": 7}})));
    patch.options.patch = Some(PatchKind::Merge);
    assert_eq!(t.call(patch).await.unwrap()["spec"]["replicas"], 7);
    assert_eq!(t.call(ask(Verb::Get, "v1", "widgets/a", None)).await.unwrap()["spec"]["replicas"], 7);
}

#[tokio::test]
async fn applied_configurations_merge_by_the_schema() {
    let t = Fixture::start().await;
    established(&t, definition()).await;
    let apply = |manager: &str, body: Value| {
        let mut call = ask(Verb::Patch, "v1", "widgets/a", Some(body));
        call.options.patch = Some(PatchKind::Apply);
        call.options.field_manager = Some(manager.to_owned());
        call
    };
    let one = widget("a", json!({"replicas": 1, "ports": [{"name": "x", "port": 1}]}));
    t.call(apply("one", one)).await.unwrap();
    let two = widget("a", json!({"ports": [{"name": "y", "port": 2}]}));
    let both = t.call(apply("two", two)).await.unwrap();
    assert_eq!(both["spec"]["ports"], json!([{"name": "x", "port": 1}, {"name": "y", "port": 2}]));
    let conflict = t.call(apply("two", widget("a", json!({"replicas": 2})))).await.unwrap_err();
    assert!(conflict.is_conflict(), "{conflict:?}");
    let failure = t.call(apply("two", widget("a", json!({"nope": 2})))).await.unwrap_err();
    assert!(failure.message.contains(".spec.nope: field not declared in schema"), "{failure:?}");
    let mut strategic = ask(Verb::Patch, "v1", "widgets/a", Some(json!({})));
    strategic.options.patch = Some(PatchKind::Strategic);
    assert_eq!(t.call(strategic).await.unwrap_err().code, 415);
}

#[tokio::test]
async fn objects_are_watched_in_every_version_and_selected_by_field() {
    let t = Fixture::start().await;
    let definition = established(&t, definition()).await;
    let mut selecting = ask(Verb::Watch, "v2", "widgets", None);
    selecting.options.field_selector = Some("spec.colour=blue".to_owned());
    let mut watch = t.server.watch(&t.admin, selecting);
    let mut all = ask(Verb::Watch, "v1", "widgets", None);
    all.options.resource_version = definition["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let mut all = t.server.watch(&t.admin, all);
    t.call(ask(Verb::Create, "v1", "widgets", Some(widget("a", json!({"replicas": 1}))))).await.unwrap();
    let blue = widget("b", json!({"replicas": 1, "colour": "blue"}));
    let blue = t.call(ask(Verb::Create, "v1", "widgets", Some(blue))).await.unwrap();
    let event = watch.next().await.unwrap().unwrap();
    let object: Value = event.object.decode().unwrap();
    assert_eq!(
        (event.kind, &object["apiVersion"], &object["metadata"]["name"]),
        (EventKind::Added, &json!("example.com/v2"), &json!("b"))
    );
    let mut red = blue;
    red["spec"]["colour"] = json!("red");
    t.call(ask(Verb::Update, "v1", "widgets/b", Some(red))).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().kind, EventKind::Deleted);
    for kind in [EventKind::Added, EventKind::Added, EventKind::Modified] {
        assert_eq!(all.next().await.unwrap().unwrap().kind, kind);
    }
    let mut list = ask(Verb::List, "v2", "widgets", None);
    list.options.field_selector = Some("spec.colour=red".to_owned());
    assert_eq!(t.call(list.clone()).await.unwrap()["items"].as_array().map(Vec::len), Some(2));
    list.options.field_selector = Some("spec.replicas=1".to_owned());
    let failure = t.call(list).await.unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (400, "field label not supported: spec.replicas"));
}

#[tokio::test]
async fn a_changed_schema_holds_for_what_was_stored_before() {
    let t = Fixture::start().await;
    let mut definition = established(&t, definition()).await;
    t.call(ask(Verb::Create, "v1", "widgets", Some(widget("a", json!({"replicas": 1}))))).await.unwrap();
    let mut watch = t.server.watch(&t.admin, ask(Verb::Watch, "v1", "widgets", None));
    assert_eq!(watch.next().await.unwrap().unwrap().kind, EventKind::Added);
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        spec["size"] = json!({"type": "string", "default": "big"});
        spec.as_object_mut().unwrap().remove("colour");
        version.as_object_mut().unwrap().remove("selectableFields");
        let storage = version["name"] == "v2";
        version["storage"] = json!(storage);
    }
    let changed = t.update(GROUP, "customresourcedefinitions/widgets.example.com", definition).await.unwrap();
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    assert!(watch.next().await.is_none(), "a watch on the old schema ends");
    let found = t.call(ask(Verb::Get, "v1", "widgets/a", None)).await.unwrap();
    assert_eq!(found["spec"], json!({"replicas": 1, "size": "big"}));
    let same = t.call(ask(Verb::Update, "v1", "widgets/a", Some(found.clone()))).await.unwrap();
    assert_ne!(
        same["metadata"]["resourceVersion"], found["metadata"]["resourceVersion"],
        "it moves to the storage version"
    );
    assert_eq!(same["metadata"]["generation"], 1);
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let t = Fixture::start().await;
    established(&t, definition()).await;
    let mut held = widget("held", json!({"replicas": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    t.call(ask(Verb::Create, "v1", "widgets", Some(held))).await.unwrap();
    t.call(ask(Verb::Create, "v1", "widgets", Some(widget("free", json!({"replicas": 1}))))).await.unwrap();
    let path = "customresourcedefinitions/widgets.example.com";
    let marked = t.delete(GROUP, path, None).await.unwrap();
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    until(&t, "widgets.example.com", |found| {
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["reason"] == "InstanceDeletionInProgress")
    })
    .await;
    let failure =
        t.call(ask(Verb::Create, "v1", "widgets", Some(widget("late", json!({"replicas": 1}))))).await.unwrap_err();
    assert!(
        failure.message.ends_with("create not allowed while custom resource definition is terminating"),
        "{failure:?}"
    );
    for attempt in 0.. {
        let gone =
            t.call(ask(Verb::Get, "v1", "widgets/free", None)).await.is_err_and(|failure| failure.is_not_found());
        if gone {
            break;
        }
        assert!(attempt < 500, "what nothing holds goes");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let mut free = ask(Verb::Patch, "v1", "widgets/held", Some(json!({"metadata": {"finalizers": null}})));
    free.options.patch = Some(PatchKind::Merge);
    t.call(free).await.unwrap();
    for attempt in 0.. {
        if t.get(GROUP, path).await.is_err_and(|failure| failure.is_not_found()) {
            break;
        }
        assert!(attempt < 500, "the definition goes when its objects have gone");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for attempt in 0.. {
        if t.call(ask(Verb::List, "v1", "widgets", None)).await.is_err_and(|failure| failure.code == 404) {
            break;
        }
        assert!(attempt < 500, "and with it the resource");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn rules_hold_for_objects_and_for_their_status() {
    let t = Fixture::start().await;
    let mut object = definition();
    for version in object["spec"]["versions"].as_array_mut().unwrap() {
        let parts = &mut version["schema"]["openAPIV3Schema"]["properties"];
        parts["spec"]["x-kubernetes-validations"] = json!([
            {"rule": "self.replicas <= 10", "message": "at most ten"}, {"rule": "self.replicas >= oldSelf.replicas"}]);
        parts["status"]["x-kubernetes-validations"] = json!([{"rule": "self.replicas > 0"}]);
    }
    let mut bad = object.clone();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"][0]["rule"] =
        json!("self.z == 1");
    let failure = t.create(GROUP, "customresourcedefinitions", bad).await.unwrap_err();
    assert!(failure.message.contains("undefined field 'z'"), "{failure:?}");
    established(&t, object).await;
    let create = |replicas: Value| ask(Verb::Create, "v1", "widgets", Some(widget("a", json!({"replicas": replicas}))));
    let failure = t.call(create(json!(11))).await.unwrap_err();
    assert_eq!(failure.message, "Widget.example.com \"a\" is invalid: spec: Invalid value: at most ten");
    let failure = t.call(create(json!("x"))).await.unwrap_err();
    assert!(
        failure.message.contains("<nil>: Invalid value: null: some validation rules were not checked"),
        "{failure:?}"
    );
    let mut created = t.call(create(json!(5))).await.unwrap();
    created["spec"]["replicas"] = json!(4);
    let failure = t.call(ask(Verb::Update, "v1", "widgets/a", Some(created.clone()))).await.unwrap_err();
    assert!(
        failure.message.ends_with("spec: Invalid value: failed rule: self.replicas >= oldSelf.replicas"),
        "{failure:?}"
    );
    created["status"] = json!({"replicas": 0});
    let failure = t.call(ask(Verb::Update, "v1", "widgets/a/status", Some(created.clone()))).await.unwrap_err();
    assert!(failure.message.ends_with("status: Invalid value: failed rule: self.replicas > 0"), "{failure:?}");
    created["status"] = json!({"replicas": 1});
    t.call(ask(Verb::Update, "v1", "widgets/a/status", Some(created))).await.unwrap();
}

/// Converts `spec.colour` to `spec.color` and back, as a webhook would.
async fn convert(request: Request<Bytes>) -> Response<Full<Bytes>> {
    let review: Value = serde_json::from_slice(request.body()).unwrap();
    let desired = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let (from, to) = if desired.ends_with("v1") { ("color", "colour") } else { ("colour", "color") };
    let mut objects = review["request"]["objects"].clone();
    for object in objects.as_array_mut().unwrap() {
        object["apiVersion"] = json!(desired);
        if let Some(value) = object["spec"].as_object_mut().unwrap().remove(from) {
            object["spec"][to] = value;
        }
    }
    let body = json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": {
        "uid": review["request"]["uid"], "convertedObjects": objects, "result": {"status": "Success"}}});
    answer(200, body.to_string())
}

#[tokio::test]
async fn a_webhook_converts_between_versions() {
    let t = Fixture::start().await;
    let program = Program::start("converter", convert).await;
    let mut object = definition();
    object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": program.client_config("/convert")}});
    let second = &mut object["spec"]["versions"][1];
    let fields = second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].as_object_mut().unwrap();
    let colour = fields.remove("colour").unwrap();
    fields.insert("color".to_owned(), json!({"type": colour["type"]}));
    second["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    established(&t, object).await;
    let mut watch = t.server.watch(&t.admin, ask(Verb::Watch, "v2", "widgets", None));
    let blue = widget("a", json!({"replicas": 1, "colour": "blue"}));
    t.call(ask(Verb::Create, "v1", "widgets", Some(blue))).await.unwrap();
    let mut second = t.call(ask(Verb::Get, "v2", "widgets/a", None)).await.unwrap();
    assert_eq!(second["spec"], json!({"replicas": 1, "color": "blue"}));
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!(event.object.decode::<Value>().unwrap()["spec"]["color"], "blue");
    second["spec"]["color"] = json!("green");
    t.call(ask(Verb::Update, "v2", "widgets/a", Some(second))).await.unwrap();
    let first = t.call(ask(Verb::Get, "v1", "widgets/a", None)).await.unwrap();
    assert_eq!(first["spec"], json!({"replicas": 1, "colour": "green"}));
    let mut list = ask(Verb::List, "v2", "widgets", None);
    list.options.field_selector = Some("spec.color=green".to_owned());
    let list = t.call(list).await.unwrap();
    assert_eq!((&list["items"][0]["spec"]["color"], &list["items"][0]["kind"]), (&json!("green"), &json!("Widget")));
}
