//! What goes over the wire, in the forms that clients take.

use std::io::Read;

use api::Verb;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use schema::Types;
use schema::protobuf::{Encoder, decode, decode_message, envelope, opened};
use serde_json::{Map, Value, json};

use crate::testing::{Fixture, Http};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

fn decoded(body: &[u8]) -> Value {
    decode(body, Types::builtin()).unwrap()
}

/// The metadata in a body that says it is `PartialObjectMetadata`, or its list.
fn partial(body: &[u8], kind: &str) -> Value {
    let (api_version, found, raw) = opened(body).unwrap();
    assert_eq!((api_version, found), ("meta.k8s.io/v1", kind));
    let mut object = Map::new();
    decode_message(raw, Types::builtin().named(&format!("{META}{kind}")).unwrap(), &mut object).unwrap();
    object.into()
}

/// As Go's JSON would have it: what says nothing is not there.
fn without_nothing(mut value: Value) -> Value {
    fn clear(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(clear);
                fields.retain(|_, value| !value.is_null() && value != &json!({}) && value != &json!(""));
            }
            Value::Array(items) => items.iter_mut().for_each(clear),
            _ => {}
        }
    }
    clear(&mut value);
    value
}

fn body(value: &Value, api_version: &str, kind: &str) -> Bytes {
    let (mut message, mut out) = (Vec::new(), Vec::new());
    let ty = Types::builtin().api_version_kind(api_version, kind).unwrap();
    Encoder::default().value(value, ty, &mut message).unwrap();
    envelope(api_version, kind, &message, &mut out);
    out.into()
}

fn config_map(name: &str, bytes: usize) -> Value {
    json!({"metadata": {"name": name, "labels": {"a": "b"}}, "data": {"v": "x".repeat(bytes)}})
}

/// Reads a watch's events one after the other.
struct Events(Incoming, BytesMut);

impl Events {
    async fn next(&mut self) -> Value {
        loop {
            if let Some(length) = self.1.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)
                && self.1.len() >= length + 4
            {
                self.1.advance(4);
                let event = self.1.split_to(length);
                let mut object = Map::new();
                let ty = Types::builtin().kind("", "v1", "WatchEvent").unwrap();
                // The object is an envelope, which is no JSON.
                assert!(decode_message(&event, ty, &mut object).is_err());
                let at = event.windows(4).position(|four| four == b"k8s\0").unwrap();
                let kind = std::str::from_utf8(&event[2..2 + usize::from(event[1])]).unwrap().to_owned();
                return json!({"type": kind, "body": event[at..].to_vec()});
            }
            let frame = self.0.frame().await.unwrap().unwrap();
            self.1.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    async fn next_decoded(&mut self) -> (String, Value) {
        let event = self.next().await;
        let body: Vec<u8> = serde_json::from_value(event["body"].clone()).unwrap();
        (event["type"].as_str().unwrap().to_owned(), decoded(&body))
    }
}

async fn watch(http: &mut Http, path: &str, accept: &str) -> Events {
    let response = http.open("GET", path, &[("accept", accept)], Bytes::new()).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    Events(response.into_body(), BytesMut::new())
}

#[tokio::test]
async fn an_object_is_the_same_in_every_form() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let created = http.write("POST", path, PROTOBUF, body(&config_map("a", 3), "v1", "ConfigMap")).await;
    assert_eq!((created.code, created.content_type()), (201, PROTOBUF));
    let path = "/api/v1/namespaces/default/configmaps/a";
    let json = http.get(path, "application/json").await.json();
    assert_eq!(json["data"]["v"], "xxx");
    assert_eq!(decoded(&created.body), json);
    let answer = http.get(path, &format!("{PROTOBUF},application/json")).await;
    assert_eq!((answer.content_type(), decoded(&answer.body)), (PROTOBUF, json.clone()));
    let yaml = http.get(path, "application/yaml").await;
    let of_yaml: Value = serde_saphyr::from_str(std::str::from_utf8(&yaml.body).unwrap()).unwrap();
    assert_eq!((yaml.content_type(), of_yaml), ("application/yaml", json.clone()));

    let mut changed = json;
    changed["data"]["w"] = "1".into();
    let updated = http.write("PUT", path, PROTOBUF, body(&changed, "v1", "ConfigMap")).await;
    assert_eq!((updated.code, &decoded(&updated.body)["data"]["w"]), (200, &json!("1")));
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    let refused = http.write("DELETE", path, PROTOBUF, body(&options, "v1", "DeleteOptions")).await;
    let status = decoded(&refused.body);
    assert_eq!((refused.code, &status["kind"], &status["reason"]), (409, &json!("Status"), &json!("Conflict")));
    let deleted = http.write("DELETE", path, PROTOBUF, Bytes::new()).await;
    assert_eq!(decoded(&deleted.body)["status"], "Success");
    let missing = http.get(path, PROTOBUF).await;
    assert_eq!((missing.code, missing.content_type()), (404, PROTOBUF));
    assert_eq!(decoded(&missing.body)["details"]["name"], "a");
}

#[tokio::test]
async fn lists_are_the_same_in_protobuf_however_long() {
    let t = Fixture::start().await;
    for number in 0..40 {
        t.create("", "configmaps", config_map(&format!("c{number}"), 10_000)).await.unwrap();
    }
    t.catch_up().await;
    let mut http = t.http().await;
    for path in ["/api/v1/configmaps", "/api/v1/configmaps?limit=3", "/api/v1/pods"] {
        let json = without_nothing(http.get(path, "application/json").await.json());
        // The second time the lengths are known.
        for _ in 0..2 {
            let answer = http.get(path, PROTOBUF).await;
            assert_eq!((answer.code, answer.content_type()), (200, PROTOBUF));
            let mut ours = without_nothing(decoded(&answer.body));
            let mut theirs = json.clone();
            // Tokens and revisions need not be the same, nothing else may differ; an empty list is no list in protobuf.
            for one in [&mut ours, &mut theirs] {
                one["metadata"].as_object_mut().unwrap().retain(|name, _| name == "remainingItemCount");
                if one["items"] == json!([]) {
                    one.as_object_mut().unwrap().remove("items");
                }
            }
            assert!(ours == theirs, "{path}");
        }
        let headers = [("accept", PROTOBUF), ("accept-encoding", "gzip")];
        let packed = http.send("GET", path, &headers, Bytes::new()).await;
        if packed.headers.contains_key("content-encoding") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(packed.body.as_ref()).read_to_end(&mut plain).unwrap();
            assert_eq!(decoded(&plain)["items"].as_array().unwrap().len(), json["items"].as_array().unwrap().len());
        }
    }
}

#[tokio::test]
async fn metadata_alone_is_had_in_every_form() {
    let t = Fixture::start().await;
    t.create("", "configmaps", config_map("a", 3)).await.unwrap();
    t.catch_up().await;
    let mut http = t.http().await;
    let of = |media: &str, kind: &str| format!("{media};as={kind};v=v1;g=meta.k8s.io");
    let (one, all) = ("/api/v1/namespaces/default/configmaps/a", "/api/v1/namespaces/default/configmaps");
    let object = http.get(one, "application/json").await.json();
    let expected = json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
    });
    assert_eq!(http.get(one, &of("application/json", "PartialObjectMetadata")).await.json(), expected);
    let yaml = http.get(one, &of("application/yaml", "PartialObjectMetadata")).await;
    let of_yaml: Value = serde_saphyr::from_str(std::str::from_utf8(&yaml.body).unwrap()).unwrap();
    assert_eq!(of_yaml, expected);
    let answer = http.get(one, &of(PROTOBUF, "PartialObjectMetadata")).await;
    assert_eq!(partial(&answer.body, "PartialObjectMetadata")["metadata"], object["metadata"]);

    let list = http.get(all, &of("application/json", "PartialObjectMetadataList")).await.json();
    assert_eq!((&list["kind"], &list["items"][0]), (&json!("PartialObjectMetadataList"), &expected));
    let answer = http.get(all, &of(PROTOBUF, "PartialObjectMetadataList")).await;
    let list = partial(&answer.body, "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"], object["metadata"]);

    assert_eq!(http.get(one, &of(PROTOBUF, "PartialObjectMetadataList")).await.code, 406);
    assert_eq!(http.get(all, &of(PROTOBUF, "PartialObjectMetadata")).await.code, 406);
    assert_eq!(http.get(all, &of(PROTOBUF, "Table")).await.code, 406);
    let table = http.get(all, &format!("{},application/json", of("application/json", "Table"))).await;
    assert_eq!(table.json()["rows"][0]["object"]["metadata"], object["metadata"]);
}

#[tokio::test]
async fn reviews_are_no_tables() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    for (accept, code) in [("application/json", 201), ("application/json;as=Table;v=v1;g=meta.k8s.io", 406)] {
        let headers = [("accept", accept), ("content-type", "application/json")];
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        assert_eq!(http.send("POST", path, &headers, review.to_string().into()).await.code, code, "{accept}");
    }
}

#[tokio::test]
async fn a_watch_in_protobuf_says_what_happens() {
    let t = Fixture::start().await;
    t.create("", "configmaps", config_map("a", 300)).await.unwrap();
    t.catch_up().await;
    let (mut one, mut two, mut three) = (t.http().await, t.http().await, t.http().await);
    let path = "/api/v1/namespaces/default/configmaps?watch=1";
    let streaming = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut whole = watch(&mut one, &format!("{path}{streaming}"), PROTOBUF).await;
    let mut other = watch(&mut two, path, &format!("{PROTOBUF};stream=watch")).await;
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let mut partials = watch(&mut three, path, &metadata).await;

    let first = t.get("", "configmaps/a").await.unwrap();
    assert_eq!(whole.next_decoded().await, ("ADDED".to_owned(), first.clone()));
    assert_eq!(other.next_decoded().await, ("ADDED".to_owned(), first.clone()));
    let (kind, bookmark) = whole.next_decoded().await;
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let event = partials.next().await;
    let body: Vec<u8> = serde_json::from_value(event["body"].clone()).unwrap();
    let (_, _, raw) = opened(&body).unwrap();
    let mut object = Map::new();
    let ty = Types::builtin().named(&format!("{META}PartialObjectMetadata")).unwrap();
    decode_message(raw, ty, &mut object).unwrap();
    assert_eq!(object["metadata"], first["metadata"]);

    let changed = t.update("", "configmaps/a", config_map("a", 5)).await.unwrap();
    assert_eq!(whole.next_decoded().await, ("MODIFIED".to_owned(), changed.clone()));
    assert_eq!(other.next_decoded().await, ("MODIFIED".to_owned(), changed));
    t.delete("", "configmaps/a", None).await.unwrap();
    assert_eq!(whole.next_decoded().await.0, "DELETED");
    assert_eq!(other.next_decoded().await.0, "DELETED");
}

#[tokio::test]
async fn a_watch_that_cannot_begin_says_why_in_protobuf() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    let answer = http.get("/api/v1/configmaps?watch=1&resourceVersion=x", PROTOBUF).await;
    let status = decoded(&answer.body);
    assert_eq!((answer.code, status["reason"].as_str()), (500, None));
    assert!(status["message"].as_str().is_some_and(|text| text.starts_with("resourceVersion: Invalid value: \"x\"")));
    let answer = http.get("/api/v1/configmaps?watch=1", "application/yaml").await;
    assert_eq!(answer.code, 406);
}

#[tokio::test]
async fn bodies_that_are_no_protobuf_are_refused() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for bad in [&b""[..], b"{}", b"k8s\0", b"k8s\0\x0a\xff", b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Chair"] {
        let answer = http.write("POST", path, PROTOBUF, Bytes::from_static(bad)).await;
        assert_eq!(answer.code, 400, "{bad:?}");
    }
    let other = body(&json!({"metadata": {"name": "x"}}), "v1", "Secret");
    assert_eq!(http.write("POST", path, PROTOBUF, other).await.code, 400);
    let patch = format!("{path}/a");
    t.call(t.ask(Verb::Create, "", "configmaps", Some(config_map("a", 1)))).await.unwrap();
    assert_eq!(http.write("PATCH", &patch, PROTOBUF, body(&config_map("a", 2), "v1", "ConfigMap")).await.code, 415);
}

#[tokio::test]
async fn users_of_what_is_deprecated_are_told() {
    let t = Fixture::with_flags(&["runtime-config=networking.k8s.io/v1beta1=true"]).await;
    let mut http = t.http().await;
    let endpoints = http.get("/api/v1/namespaces/default/endpoints", "application/json").await;
    let text = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(endpoints.headers["warning"], text);
    let watch = http.open("GET", "/api/v1/endpoints?watch=1", &[], Bytes::new()).await;
    assert_eq!(watch.headers()["warning"], text);

    let mut http = t.http().await;
    let text = "299 - \"networking.k8s.io/v1beta1 IPAddress is deprecated in v1.34+, unavailable in v1.37+\"";
    let beta = http.get("/apis/networking.k8s.io/v1beta1/ipaddresses", "application/json").await;
    assert_eq!((beta.code, &beta.headers["warning"]), (200, &text.parse().unwrap()));
    assert!(http.get("/apis/networking.k8s.io/v1/ipaddresses", "*/*").await.headers.get("warning").is_none());

    let object = json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "IPAddress", "metadata": {"name": "10.44.0.1"},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}}});
    let path = "/apis/networking.k8s.io/v1beta1/ipaddresses";
    let created = http.write("POST", path, PROTOBUF, body(&object, "networking.k8s.io/v1beta1", "IPAddress")).await;
    assert_eq!(decoded(&created.body)["apiVersion"], "networking.k8s.io/v1beta1");
    let stable = http.get("/apis/networking.k8s.io/v1/ipaddresses/10.44.0.1", PROTOBUF).await;
    assert_eq!(decoded(&stable.body)["apiVersion"], "networking.k8s.io/v1");
}

#[tokio::test]
async fn component_statuses_are_shown_as_a_table() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let all = http.get("/api/v1/componentstatuses", table).await.json();
    let names: Vec<&str> =
        all["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Status", "Message", "Error"]);
    assert_eq!(all["rows"][2]["cells"], json!(["scheduler", "Healthy", "ok", ""]));
    let one = http.get("/api/v1/componentstatuses/etcd-0", table).await.json();
    assert_eq!(one["rows"][0]["cells"][0], "etcd-0");
    let protobuf = http.get("/api/v1/componentstatuses", PROTOBUF).await;
    assert_eq!(decoded(&protobuf.body)["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn custom_resources_have_protobuf_for_their_metadata_alone() {
    let t = Fixture::start().await;
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
    }});
    t.create("apiextensions.k8s.io", "customresourcedefinitions", definition).await.unwrap();
    let mut http = t.http().await;
    let (all, one) = ("/apis/example.com/v1/widgets", "/apis/example.com/v1/widgets/w");
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}).to_string();
    let mut code = 404;
    for _ in 0..200 {
        code = http.write("POST", all, "application/json", widget.clone().into()).await.code;
        if code == 201 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(code, 201);
    t.catch_up().await;
    assert_eq!(http.get(one, PROTOBUF).await.code, 406);
    assert_eq!(http.get(all, PROTOBUF).await.code, 406);
    assert_eq!(http.get(one, &format!("{PROTOBUF},application/json")).await.json()["kind"], "Widget");
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let list = partial(&http.get(all, &metadata).await.body, "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "w");
    let mut refused = Vec::new();
    envelope("example.com/v1", "Widget", b"", &mut refused);
    let answer = http.send("POST", all, &[("content-type", PROTOBUF)], refused.into()).await;
    assert_eq!((answer.code, answer.json()["reason"].as_str()), (415, Some("UnsupportedMediaType")));
}
