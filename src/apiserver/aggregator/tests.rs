//! An aggregated server that is a real program on loopback.

use std::time::Duration;

use api::Verb;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::testing::Fixture;
use crate::webhook::testing::{Program, answer};

/// Serves `example.com/v1` with one resource, and says who asks.
async fn program() -> Program {
    Program::start("api.default.svc", |request: Request<bytes::Bytes>| async move {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let resources = json!([{"name": "widgets", "singularName": "widget", "namespaced": true, "kind": "Widget",
            "verbs": ["get", "list"]}]);
        match request.uri().path() {
            "/apis/example.com/v1" => answer(
                200,
                json!({"kind": "APIResourceList", "groupVersion": "example.com/v1", "resources": resources})
                    .to_string(),
            ),
            "/openapi/v3" => {
                let url = "/openapi/v3/apis/example.com/v1?hash=1";
                answer(200, json!({"paths": {"apis/example.com/v1": {"serverRelativeURL": url}}}).to_string())
            }
            "/apis/example.com/v1/whoami" => {
                let asked = json!({"user": header("x-remote-user"), "token": header("authorization"),
                    "query": request.uri().query(), "body": String::from_utf8_lossy(request.body())});
                answer(201, asked.to_string())
            }
            "/apis/example.com/v1/echo" => {
                task::spawn("test-echo", async move {
                    let stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                    let (mut read, mut write) = tokio::io::split(stream);
                    tokio::io::copy(&mut read, &mut write).await
                });
                let upgraded = http::Response::builder().status(101).header("connection", "Upgrade");
                upgraded.header("upgrade", "echo").body(Full::default()).unwrap()
            }
            _ => answer(404, "{}"),
        }
    })
    .await
}

/// A Service in front of the program, with endpoints on loopback, which go to the store beside validation.
async fn service(fixture: &Fixture, port: u16) {
    let service = json!({"metadata": {"name": "api"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    fixture.create("", "services", service).await.unwrap();
    let slice = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": "api-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "api"}},
        "ports": [{"name": "https", "port": port}], "endpoints": [{"addresses": ["127.0.0.1"]}],
    });
    let key = "/registry/endpointslices/default/api-1";
    let value = crate::cache::encode(&slice).unwrap();
    fixture.server.storage().create(key.into(), value.into(), store::Durability::Relaxed).await.unwrap();
}

fn api_service(program: &Program) -> Value {
    json!({"metadata": {"name": "v1.example.com"}, "spec": {
        "group": "example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 10,
        "service": {"namespace": "default", "name": "api"}, "caBundle": program.bundle(),
    }})
}

/// The condition `Available`, once it is what is expected.
async fn condition(fixture: &Fixture, name: &str, expected: [&str; 2]) -> Value {
    let mut last = Value::Null;
    for _ in 0..200 {
        if let Ok(object) = fixture.get("apiregistration.k8s.io", &format!("apiservices/{name}")).await {
            last = object["status"]["conditions"][0].clone();
            if last["status"] == expected[0] && last["reason"] == expected[1] {
                return last;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} is {last}, not {expected:?}");
}

#[tokio::test]
async fn every_group_version_has_an_api_service_and_whom_to_believe_is_published() {
    let fixture = Fixture::start().await;
    let local = condition(&fixture, "v1.apps", ["True", "Local"]).await;
    assert_eq!(local["message"], "Local APIServices are always available");
    let all = fixture.call(fixture.ask(Verb::List, "apiregistration.k8s.io", "apiservices", None)).await.unwrap();
    let served: std::collections::BTreeSet<String> = fixture
        .server
        .rows()
        .iter()
        .map(|row| format!("{}.{}", row.resource.version, row.resource.group))
        .filter(|name| name != "v1.apiregistration.k8s.io")
        .collect();
    let there = all["items"].as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned());
    assert_eq!(there.collect::<std::collections::BTreeSet<_>>(), served);
    let mut call = fixture.ask(Verb::Get, "", "configmaps/extension-apiserver-authentication", None);
    call.namespace = Some("kube-system".to_owned());
    let published = fixture.call(call).await.unwrap();
    assert_eq!(published["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
    assert!(published["data"]["requestheader-client-ca-file"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE"));
    assert_ne!(published["data"]["requestheader-client-ca-file"], published["data"]["client-ca-file"]);
}

#[tokio::test]
async fn an_aggregated_server_is_offered_once_it_answers() {
    let fixture = Fixture::start().await;
    let program = program().await;
    fixture.create("apiregistration.k8s.io", "apiservices", api_service(&program)).await.unwrap();
    let missing = condition(&fixture, "v1.example.com", ["False", "ServiceNotFound"]).await;
    assert_eq!(missing["message"], "service/api in \"default\" is not present");
    service(&fixture, program.port).await;
    condition(&fixture, "v1.example.com", ["True", "Passed"]).await;
    let offers = fixture.server.aggregator().documents().offers();
    let offer = &offers[&("example.com".to_owned(), "v1".to_owned())];
    assert_eq!(offer.resources[0]["resource"], "widgets");
    assert_eq!((offer.fresh, offer.openapi.as_deref()), (true, Some("/openapi/v3/apis/example.com/v1?hash=1")));
    let groups = super::groups(&fixture.server);
    assert_eq!(groups.last().unwrap(), &("example.com".to_owned(), vec!["v1".to_owned()]));
    assert!(fixture.server.aggregator().elsewhere("/apis/example.com/v1/whoami").is_some());
    assert!(fixture.server.aggregator().elsewhere("/apis/example.com/v2/whoami").is_none());
    assert!(fixture.server.aggregator().elsewhere("/apis/apps/v1/deployments").is_none());

    // The server goes; so does the offer's freshness.
    drop(program);
    fixture.delete("", "services/api", None).await.unwrap();
    condition(&fixture, "v1.example.com", ["False", "ServiceNotFound"]).await;
    fixture.delete("apiregistration.k8s.io", "apiservices/v1.example.com", None).await.unwrap();
    fixture.catch_up().await;
    assert!(fixture.server.aggregator().elsewhere("/apis/example.com/v1/whoami").is_none());
}

#[tokio::test]
async fn a_request_is_passed_on_in_the_users_name() {
    use http_body_util::BodyExt;
    let fixture = Fixture::start().await;
    let program = program().await;
    service(&fixture, program.port).await;
    fixture.create("apiregistration.k8s.io", "apiservices", api_service(&program)).await.unwrap();
    condition(&fixture, "v1.example.com", ["True", "Passed"]).await;
    let (address, token) = fixture.serve().await;
    let body = Full::new(bytes::Bytes::from("hello"));
    let request = Request::post(format!("https://{address}/apis/example.com/v1/whoami?x=1"))
        .header("authorization", format!("Bearer {token}"))
        .header("x-remote-user", "root")
        .body(body)
        .unwrap();
    let answered = fixture.ask_over_tls(address, request).await;
    assert_eq!(answered.status(), 201);
    let body = answered.into_body().collect().await.unwrap().to_bytes();
    let expected = json!({"user": "tester", "token": null, "query": "x=1", "body": "hello"});
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);

    // What is upgraded goes through in both directions.
    let request = Request::post(format!("https://{address}/apis/example.com/v1/echo"))
        .header("authorization", format!("Bearer {token}"))
        .header("connection", "Upgrade")
        .header("upgrade", "echo")
        .body(Full::default())
        .unwrap();
    let answered = fixture.ask_over_tls(address, request).await;
    assert_eq!((answered.status().as_u16(), answered.headers()["upgrade"].as_bytes()), (101, b"echo".as_slice()));
    let mut stream = TokioIo::new(hyper::upgrade::on(answered).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");

    fixture.delete("", "services/api", None).await.unwrap();
    condition(&fixture, "v1.example.com", ["False", "ServiceNotFound"]).await;
    let request = Request::get(format!("https://{address}/apis/example.com/v1/whoami"))
        .header("authorization", format!("Bearer {token}"))
        .body(Full::default())
        .unwrap();
    let answered = fixture.ask_over_tls(address, request).await;
    assert_eq!(answered.status(), 503);
    assert_eq!(answered.into_body().collect().await.unwrap().to_bytes(), "service unavailable\n");
}

#[tokio::test]
async fn custom_resources_have_an_api_service_as_long_as_they_are_served() {
    let fixture = Fixture::start().await;
    let version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster", "versions": [version],
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
    }});
    fixture.create("apiextensions.k8s.io", "customresourcedefinitions", definition).await.unwrap();
    condition(&fixture, "v1.example.com", ["True", "Local"]).await;
    fixture.delete("apiextensions.k8s.io", "customresourcedefinitions/widgets.example.com", None).await.unwrap();
    for _ in 0..200 {
        if fixture.get("apiregistration.k8s.io", "apiservices/v1.example.com").await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the APIService of a definition that is gone stays");
}

#[tokio::test]
async fn what_lost_its_api_service_is_offered_no_more_and_still_answers() {
    let t = Fixture::start().await;
    condition(&t, "v1.batch", ["True", "Local"]).await;
    let mut http = t.http().await;
    let offered = async |http: &mut crate::testing::Http| {
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let groups = http.get("/apis", "application/json").await.json();
        let legacy = groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "batch");
        let groups = http.get("/apis", aggregated).await.json();
        let items = groups["items"].as_array().unwrap();
        (legacy, items.iter().any(|group| group["metadata"]["name"] == "batch"))
    };
    assert_eq!(offered(&mut http).await, (true, true));
    t.delete("apiregistration.k8s.io", "apiservices/v1.batch", None).await.unwrap();
    t.catch_up().await;
    assert_eq!(offered(&mut http).await, (false, false));
    for path in ["/apis/batch", "/apis/batch/v1", "/apis/batch/v1/namespaces/default/jobs"] {
        assert_eq!(http.get(path, "application/json").await.code, 200, "{path}");
    }
}
