//! The kubelet's HTTPS API as the API server uses it. Runs in a network namespace of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use task::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::api::FakeApi;
use super::runtime::FakeRuntime;
use crate::cgroups::Cgroups;
use crate::server::Listener;

/// Runs a test where its sockets are nobody else's.
fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert!(std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.join().unwrap();
}

struct Asker {
    address: SocketAddr,
    authority: pki::Authority,
}

impl Asker {
    /// One request as a user of the cluster, or as nobody.
    async fn ask(&self, user: Option<(&str, &str)>, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        let certificates =
            |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificates(self.authority.cert_pem()).remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match user {
            None => builder.with_no_client_auth(),
            Some((user, group)) => {
                let issued = self.authority.issue(&pki::Profile::client(user, &[group])).unwrap();
                let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(certificates(&issued.cert_pem), key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        task::spawn("test-connection", connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    async fn get(&self, user: Option<(&str, &str)>, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("Host", "node").body(Empty::new()).unwrap();
        let answer = self.ask(user, request).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

const ADMIN: Option<(&str, &str)> = Some(("admin", "system:masters"));

#[test]
fn the_api_server_gets_in_and_reaches_containers() {
    in_own_network(|| async {
        let temp = tempfile::tempdir().unwrap();
        let authority = pki::Authority::create("test").unwrap();
        let address = "127.0.0.1:10250".parse().unwrap();
        let mut config = super::config(temp.path());
        config.listen = address;
        let profile = pki::Profile::server("node-1", vec![], vec!["127.0.0.1".parse().unwrap()]);
        config.serving_cert = Arc::new(pki::Live::new(&authority.issue(&profile).unwrap()).unwrap());
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::pem_slice_iter(authority.cert_pem().as_bytes()).next().unwrap().unwrap();
        roots.add(ca).unwrap();
        config.client_ca = Arc::new(roots);
        std::fs::create_dir_all(config.data_dir.join("pods")).unwrap();

        let runtime = FakeRuntime::serve(&config.cri_socket);
        let api = FakeApi::default();
        let shutdown = Shutdown::new();
        let config = Arc::new(config);
        let listener = Listener::bind(&config).await.unwrap();
        let client = api.client(shutdown.clone());
        let (context, pods, _) = crate::start(config.clone(), client, Cgroups::none(), &shutdown);
        task::spawn("test-api", listener.serve(context, pods, shutdown.clone()));
        let asker = Asker { address, authority };

        assert_eq!(asker.get(None, "/pods").await.0, StatusCode::UNAUTHORIZED);
        let (status, text) = asker.get(Some(("system:node:node-1", "system:nodes")), "/pods").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(text, "Forbidden (user=system:node:node-1, verb=get, resource=nodes, subresource(s)=[proxy])\n");
        assert_eq!(asker.get(ADMIN, "/healthz").await, (StatusCode::OK, "ok".to_owned()));
        assert_eq!(asker.get(ADMIN, "/nothing").await.0, StatusCode::NOT_FOUND);

        api.put(
            "pods",
            json!({"metadata": {"name": "web", "namespace": "default", "uid": "u"},
                "spec": {"nodeName": "node-1", "containers": [{"name": "a", "image": "nginx"}]}}),
        );
        while api.get("pods", "default", "web").unwrap()["status"]["phase"] != "Running" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let list: Value = serde_json::from_str(&asker.get(ADMIN, "/pods").await.1).unwrap();
        assert_eq!(list["items"][0]["status"]["phase"], "Running");

        let log = config.log_dir.join("default_web_u/a/0.log");
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr F two\n").unwrap();
        let logs = "/containerLogs/default/web/a";
        assert_eq!(asker.get(ADMIN, logs).await, (StatusCode::OK, "one\ntwo\n".to_owned()));
        assert_eq!(asker.get(ADMIN, &format!("{logs}?tailLines=1")).await.1, "two\n");
        assert_eq!(asker.get(ADMIN, &format!("{logs}?previous=true")).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(asker.get(ADMIN, "/containerLogs/default/none/a").await.0, StatusCode::NOT_FOUND);

        // A streaming server that speaks a protocol of its own: it answers what it hears.
        let streaming = TcpListener::bind("127.0.0.1:0").await.unwrap();
        runtime.stream_at(&format!("http://{}/exec/token", streaming.local_addr().unwrap()));
        let served = task::spawn("test-streaming", async move {
            let (mut stream, _) = streaming.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\nX-Own: 1\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let request = Request::post("/exec/default/web/a?command=sh&command=-c&input=1&output=1")
            .header("Host", "node")
            .header("Connection", "Upgrade")
            .header("Upgrade", "test")
            .body(Empty::new())
            .unwrap();
        let mut answer = asker.ask(ADMIN, request).await;
        assert_eq!(
            (answer.status(), answer.headers()["x-own"].as_bytes()),
            (StatusCode::SWITCHING_PROTOCOLS, &b"1"[..])
        );
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        stream.shutdown().await.unwrap();
        let head = served.await.unwrap().unwrap();
        assert!(head.starts_with("POST /exec/token HTTP/1.1\r\n"), "{head}");
        assert!(runtime.calls().contains(&"stream sh -c".to_owned()));
        shutdown.cancel();
    });
}
