//! Calls to a real program on loopback.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::testing::{Program, answer};
use super::{Cause, Endpoint};
use crate::testing::Fixture;

const LIMIT: Duration = Duration::from_secs(10);

async fn echo() -> Program {
    Program::start("hook.default.svc", |request| async move {
        match request.uri().path() {
            "/slow" => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                answer(200, "late")
            }
            "/refuse" => answer(400, r#"{"kind":"Status","apiVersion":"v1","message":"not like this","code":400}"#),
            "/broken" => answer(500, "it \"fell\" over\n"),
            "/agent" => answer(200, request.headers()["user-agent"].as_bytes().to_vec()),
            path => answer(200, format!("{path} {}", String::from_utf8_lossy(request.body()))),
        }
    })
    .await
}

#[tokio::test]
async fn calls_share_a_connection_and_say_what_went_wrong() {
    let fixture = Fixture::start().await;
    let (caller, program) = (fixture.server.caller(), echo().await);
    let endpoint = |path: &str| Endpoint::from_client_config(&program.client_config(path)).unwrap();
    for word in ["one", "two", "three"] {
        let answered = caller.post(&endpoint("/say"), Bytes::from(word), LIMIT).await.unwrap();
        assert_eq!(answered, format!("/say {word}"));
    }
    assert_eq!(program.connections(), 1);
    let agent = caller.get(&endpoint("/"), "/agent", LIMIT).await.unwrap();
    assert!(agent.starts_with(b"kube-apiserver-admission/v1.36"), "{agent:?}");

    let refused = caller.post(&endpoint("/refuse"), Bytes::new(), LIMIT).await.unwrap_err();
    assert_eq!(refused.to_string(), "not like this");
    assert!(!refused.is_transient());
    let broken = caller.post(&endpoint("/broken"), Bytes::new(), LIMIT).await.unwrap_err();
    assert_eq!(
        broken.to_string(),
        r#"an error on the server ("it \"fell\" over") has prevented the request from succeeding"#
    );
    assert!(broken.is_transient());
    let late = caller.post(&endpoint("/slow"), Bytes::new(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late.cause, Cause::Timeout);
    let expected = format!("Post \"https://127.0.0.1:{}/slow\": context deadline exceeded", program.port);
    assert_eq!(late.to_string(), expected);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_called() {
    let fixture = Fixture::start().await;
    let (caller, program) = (fixture.server.caller(), echo().await);
    let mut config = program.client_config("/x");
    config["caBundle"] = STANDARD.encode(pki::Authority::create("other").unwrap().cert_pem()).into();
    let endpoint = Endpoint::from_client_config(&config).unwrap();
    let refused = caller.post(&endpoint, Bytes::new(), LIMIT).await.unwrap_err();
    let why = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(refused.to_string(), format!("Post \"https://127.0.0.1:{}/x\": {why}", program.port));

    let port = {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        unused.local_addr().unwrap().port()
    };
    let nobody = Endpoint::from_client_config(&json!({"url": format!("https://127.0.0.1:{port}/x")})).unwrap();
    let refused = caller.post(&nobody, Bytes::new(), LIMIT).await.unwrap_err();
    let why = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(refused.to_string(), format!("Post \"https://127.0.0.1:{port}/x\": {why}"));
}

/// Endpoints on loopback are refused by validation, so they go to the store beside it.
async fn store(fixture: &Fixture, group: &str, plural: &str, object: serde_json::Value) {
    let row = api::Row::find(group, "v1", plural).unwrap();
    let key = row.key(Some("default"), object["metadata"]["name"].as_str().unwrap());
    let value = crate::cache::encode(&object).unwrap();
    fixture.server.storage().create(key.into(), value.into(), store::Durability::Relaxed).await.unwrap();
    fixture.catch_up().await;
}

#[tokio::test]
async fn a_service_is_called_at_a_ready_endpoint_under_its_own_name() {
    let fixture = Fixture::start().await;
    let (caller, program) = (fixture.server.caller(), echo().await);
    let config = json!({
        "service": {"namespace": "default", "name": "hook", "port": 8443, "path": "/say"},
        "caBundle": program.bundle(),
    });
    let endpoint = Endpoint::from_client_config(&config).unwrap();
    let failed = |error: super::CallError| match error.cause {
        Cause::Service(failure) => failure.message,
        other => other.to_string(),
    };
    let missing = caller.post(&endpoint, Bytes::new(), LIMIT).await.unwrap_err();
    assert_eq!(failed(missing), "services \"hook\" not found");

    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "web", "port": 8443}]}});
    fixture.create("", "services", service).await.unwrap();
    fixture.catch_up().await;
    let lonely = caller.post(&endpoint, Bytes::new(), LIMIT).await.unwrap_err();
    assert_eq!(failed(lonely), "no endpoints available for service \"hook\"");

    let slice = json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "ports": [{"name": "web", "port": program.port, "protocol": "TCP"}],
        // Nobody listens at the first address; whoever is called in vain is passed over.
        "endpoints": [{"addresses": ["127.0.0.2"]}, {"addresses": ["127.0.0.1"]}],
    });
    store(&fixture, "discovery.k8s.io", "endpointslices", slice).await;
    let answered = caller.post(&endpoint, Bytes::from_static(b"hello"), LIMIT).await.unwrap();
    assert_eq!(answered, "/say hello");
}
