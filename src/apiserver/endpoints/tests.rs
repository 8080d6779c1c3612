//! Discovery compared with upstream's, and the other documents.

use std::collections::{BTreeMap, BTreeSet};

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::testing::Fixture;

const UPSTREAM: &str = "/work/shared/kubernetes-1.36/discovery";

async fn fetch(t: &Fixture, path: &str, accept: &str) -> (u16, Vec<u8>) {
    let request = Request::get(path).header("accept", accept).body(()).unwrap();
    match super::answer(&t.server, &request).await {
        Ok(response) => {
            let code = response.status().as_u16();
            (code, response.into_body().collect().await.unwrap().to_bytes().to_vec())
        }
        Err(failure) => (failure.code, Vec::new()),
    }
}

async fn document(t: &Fixture, path: &str) -> Value {
    let (code, body) = fetch(t, path, "application/json").await;
    assert_eq!(code, 200, "{path}");
    serde_json::from_slice(&body).unwrap()
}

/// By name; what is said of resources, without order.
fn resources(document: &Value) -> BTreeMap<String, Value> {
    let list = document["resources"].as_array().unwrap();
    list.iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one.clone())).collect()
}

#[tokio::test]
async fn discovery_says_what_upstream_says() {
    if !std::path::Path::new(UPSTREAM).exists() {
        println!("{UPSTREAM} is not here; nothing compared");
        return;
    }
    let t = Fixture::with_flags(&["runtime-config=api/all=true"]).await;
    let mut paths = vec!["/api/v1".to_owned()];
    for (group, versions) in crate::aggregator::groups(&t.server) {
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    let mut differences = Vec::new();
    for path in &paths {
        let ours = resources(&document(&t, path).await);
        let file = format!("{UPSTREAM}/{}.json", path.trim_start_matches('/').replace('/', "__"));
        let Ok(text) = std::fs::read(&file) else {
            differences.push(format!("{path}: upstream has none"));
            continue;
        };
        let theirs = resources(&serde_json::from_slice(&text).unwrap());
        let (mut ours, mut theirs) = (ours, theirs);
        // Upstream keeps these in the store as v1beta1 and ours as v1; the hash says which, and nothing else.
        for name in ["customresourcedefinitions", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"] {
            for side in [&mut ours, &mut theirs] {
                side.get_mut(name).and_then(Value::as_object_mut).map(|one| one.remove("storageVersionHash"));
            }
        }
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            if ours.get(name) != theirs.get(name) {
                differences.push(format!("{path} {name}: {:?} instead of {:?}", ours.get(name), theirs.get(name)));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(paths.len() > 25, "{paths:?}");
}

/// What upstream says of groups and versions, without those that we do not have.
#[tokio::test]
async fn groups_are_named_in_upstreams_order() {
    let Ok(text) = std::fs::read(format!("{UPSTREAM}/apis.json")) else {
        println!("{UPSTREAM} is not here; nothing compared");
        return;
    };
    let theirs: Value = serde_json::from_slice(&text).unwrap();
    let aggregated: Value =
        serde_json::from_slice(&std::fs::read(format!("{UPSTREAM}/aggregated_v2.json")).unwrap()).unwrap();
    for (flags, default) in [(&["runtime-config=api/all=true"][..], false), (&[][..], true)] {
        let t = Fixture::with_flags(flags).await;
        let known = crate::aggregator::groups(&t.server);
        let has = |group: &Value, version: &Value| {
            known.iter().any(|(name, versions)| group == name.as_str() && versions.iter().any(|one| version == one))
        };
        let mut expected = Vec::new();
        for group in theirs["groups"].as_array().unwrap() {
            let mut group = group.clone();
            let name = group["name"].clone();
            let versions = group["versions"].as_array_mut().unwrap();
            versions.retain(|one| has(&name, &one["version"]));
            let first = versions.first().cloned();
            if let Some(first) = first {
                group["preferredVersion"] = first;
                expected.push(group);
            }
        }
        let ours = document(&t, "/apis").await;
        assert_eq!(ours["groups"].as_array().unwrap(), &expected);
        if default {
            let stable = |one: &Value| !one["version"].as_str().unwrap().contains(['a', 'b']);
            let versions = |groups: &[Value]| -> usize {
                let of = |group: &Value| group["versions"].as_array().unwrap().iter().filter(|one| stable(one)).count();
                groups.iter().map(of).sum()
            };
            assert_eq!(
                versions(&expected),
                versions(theirs["groups"].as_array().unwrap()),
                "no stable version is missing"
            );
        }

        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let (_, body) = fetch(&t, "/apis", accept).await;
        let ours: Value = serde_json::from_slice(&body).unwrap();
        let mut expected = Vec::new();
        for group in aggregated["items"].as_array().unwrap() {
            let mut group = group.clone();
            let name = group["metadata"]["name"].clone();
            let versions = group["versions"].as_array_mut().unwrap();
            versions.retain(|one| has(&name, &one["version"]));
            if !versions.is_empty() {
                let metadata = json!({"name": name});
                expected.push(json!({"metadata": metadata, "versions": group["versions"]}));
            }
        }
        let ours = ours["items"].as_array().unwrap();
        for (ours, theirs) in ours.iter().zip(&expected) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), expected.len());
    }
}

#[tokio::test]
async fn aggregated_discovery_has_every_resource() {
    let t = Fixture::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let (_, body) = fetch(&t, "/apis", accept).await;
    let document: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["kind"], "APIGroupDiscoveryList");
    let groups = crate::aggregator::groups(&t.server);
    assert_eq!(document["items"].as_array().unwrap().len(), groups.len());
    let (_, body) = fetch(&t, "/api", "application/json").await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "APIVersions");
}

#[tokio::test]
async fn documents_answer() {
    let t = Fixture::start().await;
    assert_eq!(document(&t, "/version").await["minor"], "36");
    assert_eq!(fetch(&t, "/readyz", "*/*").await, (200, b"ok".to_vec()));
    assert_eq!(fetch(&t, "/livez/ping", "*/*").await.0, 200);
    assert_eq!(fetch(&t, "/livez/nothing", "*/*").await.0, 404);
    assert_eq!(fetch(&t, "/apis/nothing", "*/*").await.0, 404);
    assert_eq!(document(&t, "/openid/v1/jwks").await["keys"][0]["use"], "sig");
    let paths = document(&t, "/openapi/v3").await;
    let url = paths["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let apps = document(&t, url.split('?').next().unwrap()).await;
    let deployment = &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert!(deployment["description"].as_str().unwrap().contains("Deployment"));
    for (table, columns) in [("dump_priority_levels", 10), ("dump_queues", 9)] {
        let (code, text) = fetch(&t, &format!("/debug/api_priority_and_fairness/{table}"), "*/*").await;
        let text = String::from_utf8(text).unwrap();
        assert_eq!(code, 200);
        assert!(text.lines().count() > 5 && text.lines().all(|line| line.split(',').count() == columns), "{text}");
    }
    for (query, columns) in [("", 10), ("?includeRequestDetails=1", 18)] {
        let (code, text) = fetch(&t, &format!("/debug/api_priority_and_fairness/dump_requests{query}"), "*/*").await;
        let text = String::from_utf8(text).unwrap();
        assert_eq!(code, 200);
        assert!(text.lines().all(|line| line.split(',').count() == columns), "{text}");
    }
    let (_, metrics) = fetch(&t, "/metrics", "*/*").await;
    assert!(String::from_utf8(metrics).unwrap().contains("apiserver_storage_objects{resource=\"namespaces\"} 4"));
}

/// What client-go asks for when it wants to know all types.
#[tokio::test]
async fn the_whole_document_comes_in_both_forms() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    let json = http.get("/openapi/v2", "application/json").await;
    let document = json.json();
    let exec = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"];
    assert_eq!(exec["x-kubernetes-group-version-kind"]["kind"], "PodExecOptions");
    let binary = http.get("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf").await;
    assert_eq!(binary.content_type(), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert_eq!(binary.headers["etag"], json.headers["etag"]);
    assert_eq!(binary.body, schema::openapi::v2_binary(&document));
    assert_eq!(http.get("/openapi/v2", "text/html").await.code, 406);
}

#[tokio::test]
async fn paths_answer_as_upstream_has_them() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    let none = bytes::Bytes::new;
    for (method, path, code) in [
        ("POST", "/healthz", 200),
        ("PUT", "/apis", 200),
        ("DELETE", "/apis/apps", 200),
        ("POST", "/api", 405),
        ("POST", "/apis/apps/v1", 405),
        ("POST", "/apis/apps/v9", 404),
        ("POST", "/version", 405),
        ("POST", "/nowhere", 404),
        ("GET", "/api/v1/nodes/a/status/b", 404),
    ] {
        assert_eq!(http.send(method, path, &[], none()).await.code, code, "{method} {path}");
    }
    let answer = http.get("/nowhere", "application/json").await;
    assert_eq!((answer.content_type(), &answer.body[..]), ("text/plain; charset=utf-8", &b"404 page not found\n"[..]));
}

#[tokio::test]
async fn people_read_lines() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    // The server goes on writing, and a list says how far it has come: it is asked for as it was.
    let now = http.get("/api/v1/namespaces", "application/json").await.json();
    let version = now["metadata"]["resourceVersion"].as_str().unwrap();
    let list = format!("/api/v1/namespaces?resourceVersionMatch=Exact&resourceVersion={version}");
    for (path, pretty) in
        [(list.as_str(), "&pretty=true"), ("/apis", "?pretty=1"), ("/api/v1/namespaces/none", "?pretty=t")]
    {
        let compact = http.get(path, "application/json").await;
        let headers = [("user-agent", "curl/8.0"), ("accept-encoding", "gzip")];
        let read = http.send("GET", path, &headers, bytes::Bytes::new()).await;
        assert_eq!(read.json(), compact.json(), "{path}");
        assert!(read.body.starts_with(b"{\n  \""), "{path}");
        let asked = http.get(&format!("{path}{pretty}"), "application/json").await;
        assert_eq!(asked.body, read.body, "{path}");
    }
}

#[tokio::test]
async fn the_beta_of_metadata_is_answered_in_the_beta() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    for kind in ["PartialObjectMetadata", "Table"] {
        let accept = format!("application/json;as={kind};v=v1beta1;g=meta.k8s.io");
        let answer = http.get("/api/v1/namespaces/default", &accept).await.json();
        assert_eq!((&answer["kind"], &answer["apiVersion"]), (&kind.into(), &"meta.k8s.io/v1beta1".into()));
    }
    let accept = "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io";
    let answer = http.get("/api/v1/namespaces", accept).await.json();
    assert_eq!(answer["apiVersion"], "meta.k8s.io/v1beta1");
    assert_eq!(answer["items"][0]["apiVersion"], "meta.k8s.io/v1beta1");
}

#[tokio::test]
async fn what_is_deprecated_is_counted() {
    let t = Fixture::with_flags(&["--runtime-config=networking.k8s.io/v1beta1=true"]).await;
    let mut http = t.http().await;
    assert_eq!(http.get("/apis/networking.k8s.io/v1beta1/ipaddresses", "application/json").await.code, 200);
    let metrics = http.get("/metrics", "*/*").await;
    let text = String::from_utf8_lossy(&metrics.body);
    let labels = "group=\"networking.k8s.io\",removed_release=\"1.37\",resource=\"ipaddresses\",subresource=\"\",version=\"v1beta1\"";
    assert!(text.contains(&format!("apiserver_requested_deprecated_apis{{{labels}}} 1\n")), "{text}");
}

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let t = Fixture::start().await;
    let mut http = t.http().await;
    http.get("/api/v1/namespaces", "application/json").await;
    http.get("/api/v1/namespaces?resourceVersion=1&resourceVersionMatch=Exact", "application/json").await;
    let metrics = http.get("/metrics", "*/*").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count, "each family stands once");
    // What upstream calls stable is missing nowhere; calls of webhooks are there once there are webhooks.
    for family in [
        "apiserver_admission_controller_admission_duration_seconds histogram",
        "apiserver_admission_step_admission_duration_seconds histogram",
        "apiserver_current_inflight_requests gauge",
        "apiserver_longrunning_requests gauge",
        "apiserver_request_duration_seconds histogram",
        "apiserver_request_total counter",
        "apiserver_requested_deprecated_apis gauge",
        "apiserver_response_sizes histogram",
        "apiserver_storage_objects gauge",
        "apiserver_storage_size_bytes gauge",
        // And what dashboards and alerts ask for.
        "apiserver_authorization_decisions_total counter",
        "apiserver_cache_list_total counter",
        "apiserver_cel_compilation_duration_seconds histogram",
        "apiserver_cel_evaluation_duration_seconds histogram",
        "apiserver_client_certificate_expiration_seconds histogram",
        "apiserver_flowcontrol_dispatched_requests_total counter",
        "apiserver_mutating_admission_policy_check_total counter",
        "apiserver_request_sli_duration_seconds histogram",
        "apiserver_request_terminations_total counter",
        "apiserver_resource_objects gauge",
        "apiserver_storage_events_received_total counter",
        "apiserver_storage_list_total counter",
        "apiserver_terminated_watchers_total counter",
        "apiserver_tls_handshake_errors_total counter",
        "apiserver_validating_admission_policy_check_duration_seconds histogram",
        "apiserver_watch_cache_events_received_total counter",
        "apiserver_watch_events_total counter",
        "apiserver_watch_list_duration_seconds histogram",
        "authenticated_user_requests counter",
        "authentication_attempts counter",
        "authentication_duration_seconds histogram",
        "authentication_token_cache_fetch_total counter",
        "authorization_attempts_total counter",
        "authorization_duration_seconds histogram",
        "kubernetes_build_info gauge",
        "kubernetes_feature_enabled gauge",
        "process_cpu_seconds_total counter",
        "watch_cache_capacity gauge",
    ] {
        assert!(families.binary_search(&family).is_ok(), "{family}\n{text}");
    }
    for line in [
        "apiserver_cache_list_total{group=\"\",index=\"\",resource=\"namespaces\"}",
        "apiserver_storage_list_total{group=\"\",resource=\"namespaces\"} 1\n",
        "authorization_attempts_total{result=\"allowed\"}",
        "apiserver_watch_cache_events_received_total{group=\"\",resource=\"namespaces\"}",
        "kubernetes_build_info{build_date=\"1970-01-01T00:00:00Z\",compiler=\"rustc\",",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
