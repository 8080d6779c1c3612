//! Encrypted objects through a server and its store, with keys that change.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{Fields, Verb};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use serde_json::{Value, json};
use store::{KeyRange, Range};
use tokio::net::UnixListener;

use super::*;
use crate::server::ApiServer;
use crate::testing::Fixture;

fn configure(path: &Path, resources: &str) {
    let text =
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{resources}");
    std::fs::write(path, text).unwrap();
}

fn keys(kind: &str, names: &[&str]) -> String {
    let key = |name: &&str| format!("{{name: {name}, secret: {}}}", STANDARD.encode([name.as_bytes()[0]; 32]));
    format!("{kind}: {{keys: [{}]}}", names.iter().map(key).collect::<Vec<_>>().join(", "))
}

async fn fixture(path: &Path) -> Fixture {
    let options = Options { config_file: Some(path.to_owned()), automatic_reload: false };
    Fixture::with(|config| config.protection.encryption = options).await
}

/// What the store itself holds.
fn raw(server: &ApiServer, key: &str) -> Vec<u8> {
    let found = server.store().range(&Range::all(KeyRange::key(key.to_owned()))).unwrap();
    found.kvs[0].value.to_vec()
}

fn begins(server: &ApiServer, key: &str) -> String {
    String::from_utf8_lossy(&raw(server, key)).chars().take(30).collect()
}

async fn reload(fixture: &Fixture) {
    fixture.server.storage().at_rest().encryption().unwrap().reload(&Shutdown::new()).await;
}

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "dG9wIHNlY3JldA=="}})
}

const A: &str = "/registry/secrets/default/a";

#[tokio::test]
async fn objects_are_encrypted_as_configured_and_keys_rotate() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("encryption.yaml");
    let rule =
        |providers: &[String]| format!("- resources: [secrets]\n  providers: [{{{}}}]\n", providers.join("}, {"));
    let identity = || "identity: {}".to_owned();
    configure(&path, &rule(&[keys("aescbc", &["old"]), identity()]));
    let fixture = fixture(&path).await;
    let server = &fixture.server;
    fixture.create("", "secrets", secret("a")).await.unwrap();
    fixture.create("", "configmaps", json!({"metadata": {"name": "a"}})).await.unwrap();
    assert!(begins(server, A).starts_with("k8s:enc:aescbc:v1:old:"), "{}", begins(server, A));
    assert!(begins(server, "/registry/configmaps/default/a").starts_with("{\"kind\":\"ConfigMap\""));
    let there = fixture.get("", "secrets/a").await.unwrap();
    assert_eq!(there["data"]["k"], "dG9wIHNlY3JldA==");

    // An update that changes nothing writes nothing, until the key is another.
    let same = fixture.update("", "secrets/a", there.clone()).await.unwrap();
    assert_eq!(same["metadata"]["resourceVersion"], there["metadata"]["resourceVersion"]);
    for (providers, prefix) in [
        (vec![keys("aescbc", &["new", "old"]), identity()], "k8s:enc:aescbc:v1:new:"),
        (vec![keys("aesgcm", &["gcm"]), keys("aescbc", &["new"])], "k8s:enc:aesgcm:v1:gcm:"),
        (vec![keys("secretbox", &["box"]), keys("aesgcm", &["gcm"])], "k8s:enc:secretbox:v1:box:"),
        (vec![identity(), keys("secretbox", &["box"])], "{\"kind\":\"Secret\""),
        (vec![keys("aescbc", &["old"]), identity()], "k8s:enc:aescbc:v1:old:"),
    ] {
        configure(&path, &rule(&providers));
        reload(&fixture).await;
        let there = fixture.get("", "secrets/a").await.unwrap();
        let written = fixture.update("", "secrets/a", there.clone()).await.unwrap();
        assert_ne!(written["metadata"]["resourceVersion"], there["metadata"]["resourceVersion"], "{prefix}");
        assert!(begins(server, A).starts_with(prefix), "{}", begins(server, A));
        let again = fixture.update("", "secrets/a", written.clone()).await.unwrap();
        assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
    }

    // A list at a revision of the past reads what was encrypted then.
    let mut list = fixture.ask(Verb::List, "", "secrets", None);
    list.options.resource_version = there["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    list.options.resource_version_match = Some("Exact".to_owned());
    assert_eq!(fixture.call(list.clone()).await.unwrap().list("items").len(), 1);

    // A server that begins with what is there reads it; without the key it does not, and says so.
    let restarted = |config: &Path| {
        let options = Options { config_file: Some(config.to_owned()), automatic_reload: false };
        let mut config = crate::testing::config("10.43.0.0/16");
        config.protection.encryption = options;
        ApiServer::start(config, server.store().clone(), Shutdown::new())
    };
    let get = || fixture.ask(Verb::Get, "", "secrets/a", None);
    let other = restarted(&path).await.unwrap();
    other.call(&fixture.admin, get()).await.unwrap();
    configure(&path, &rule(&[keys("aescbc", &["lost"])]));
    let other = restarted(&path).await.unwrap();
    let failure = other.call(&fixture.admin, get()).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.message.contains("no matching prefix found")),
        (500, true),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("encryption.yaml");
    configure(&path, &format!("- resources: ['*.*']\n  providers: [{{{}}}]\n", keys("secretbox", &["a"])));
    let fixture = fixture(&path).await;
    std::fs::write(&path, "kind: EncryptionConfiguration\n").unwrap();
    reload(&fixture).await;
    fixture.create("", "secrets", secret("a")).await.unwrap();
    assert!(begins(&fixture.server, A).starts_with("k8s:enc:secretbox:v1:a:"));
    let encryption = fixture.server.storage().at_rest().encryption().unwrap();
    for key in ["/registry/services/specs/a/b", "/registry/example.com/widgets/a/b", "/registry/leases/a/b"] {
        assert!(encryption.covers(key.as_bytes()), "{key}");
    }
}

#[test]
fn storage_keys_tell_their_resource() {
    assert_eq!(resource_of(b"/registry/secrets/default/a"), Some(("", "secrets")));
    assert_eq!(resource_of(b"/registry/services/specs/default/a"), Some(("", "services")));
    assert_eq!(resource_of(b"/registry/deployments/default/a"), Some(("apps", "deployments")));
    assert_eq!(resource_of(b"/registry/example.com/widgets/default/a"), Some(("example.com", "widgets")));
    assert_eq!(resource_of(b"elsewhere"), None);
}

/// A KMS plugin that turns bits around.
struct Plugin {
    key: Arc<AtomicUsize>,
    decrypted: Arc<AtomicUsize>,
}

impl Plugin {
    fn listen(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let (key, decrypted) = (self.key.clone(), self.decrypted.clone());
        task::spawn("test-kms", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (key, decrypted) = (key.clone(), decrypted.clone());
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (key, decrypted) = (key.clone(), decrypted.clone());
                    async move { Ok::<_, std::convert::Infallible>(answer(request, &key, &decrypted).await) }
                });
                let connection = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
                task::spawn("test-kms-connection", connection);
            }
        });
    }
}

type Frames =
    StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<http_body::Frame<Bytes>, std::convert::Infallible>>>>;

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    key: &AtomicUsize,
    decrypted: &AtomicUsize,
) -> http::Response<Frames> {
    let key_id = format!("key-{}", key.load(Ordering::SeqCst));
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes().slice(5..);
    let turned = |bytes: &[u8]| bytes.iter().map(|byte| byte ^ 0x5a).collect::<Vec<u8>>();
    let message = match path.as_str() {
        "/v2.KeyManagementService/Status" => {
            wire::StatusResponse { version: "v2".to_owned(), healthz: "ok".to_owned(), key_id }.encode_to_vec()
        }
        "/v2.KeyManagementService/Encrypt" => {
            let ciphertext = turned(&wire::EncryptRequest::decode(body).unwrap().plaintext);
            let annotations = [("note.kms".to_owned(), b"x".to_vec())].into();
            wire::EncryptResponse { ciphertext, key_id, annotations }.encode_to_vec()
        }
        _ => {
            decrypted.fetch_add(1, Ordering::SeqCst);
            let request = wire::DecryptRequest::decode(body).unwrap();
            assert_eq!(request.annotations["note.kms"], b"x");
            wire::DecryptResponse { plaintext: turned(&request.ciphertext) }.encode_to_vec()
        }
    };
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = vec![Ok(http_body::Frame::data(framed.into())), Ok(http_body::Frame::trailers(trailers))];
    let response = http::Response::builder().header("content-type", "application/grpc");
    response.body(StreamBody::new(futures::stream::iter(frames))).unwrap()
}

#[tokio::test]
async fn a_kms_plugin_is_asked_once_for_a_seed_and_its_key_rotates() {
    let directory = tempfile::tempdir().unwrap();
    let (path, socket) = (directory.path().join("encryption.yaml"), directory.path().join("kms.sock"));
    let plugin = Plugin { key: Arc::default(), decrypted: Arc::default() };
    plugin.listen(&socket);
    let provider = format!("kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}'}}", socket.display());
    configure(&path, &format!("- resources: [secrets]\n  providers: [{{{provider}}}]\n"));
    let fixture = fixture(&path).await;
    let server = &fixture.server;
    for name in ["a", "b", "c"] {
        fixture.create("", "secrets", secret(name)).await.unwrap();
    }
    assert!(begins(server, A).starts_with("k8s:enc:kms:v2:vault:"));
    assert!(!raw(server, A).windows(4).any(|part| part == b"dG9w"));
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 0, "its own seed is known");
    let first = fixture.get("", "secrets/a").await.unwrap();

    plugin.key.store(1, Ordering::SeqCst);
    let encryption = server.storage().at_rest().encryption().unwrap();
    assert!(encryption.rules.load().plugins[0].check().await);
    assert_eq!(encryption.health(), Some(Vec::new()));
    let second = fixture.update("", "secrets/a", first.clone()).await.unwrap();
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"], "written with the new key");

    // A new server asks for the seeds of both keys, once each.
    let mut config = crate::testing::config("10.43.0.0/16");
    config.protection.encryption = Options { config_file: Some(path.clone()), automatic_reload: false };
    let other = ApiServer::start(config, server.store().clone(), Shutdown::new()).await.unwrap();
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 2);
    let listed = other.call(&fixture.admin, fixture.ask(Verb::List, "", "secrets", None)).await.unwrap();
    let listed: Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(listed.list("items").len(), 3);
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 2);
}
