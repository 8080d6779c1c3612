//! Clients that do not keep to the rules, on real connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use task::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::config::{BearerToken, Config};
use crate::identity::Identity;
use crate::testing::Fixture;

struct Served {
    fixture: Fixture,
    address: std::net::SocketAddr,
    shutdown: Shutdown,
}

impl Served {
    async fn start(change: impl FnOnce(&mut Config)) -> Served {
        let fixture = Fixture::with(change).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        let (server, stop) = (fixture.server.clone(), shutdown.clone());
        task::spawn("test-serve", async move { server.serve(listener, stop).await });
        Served { fixture, address, shutdown }
    }

    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = pki::Trust::Anybody.client().unwrap().with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// The first line of what the server says to these bytes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    }
}

fn admin_token() -> BearerToken {
    BearerToken { token: "admin".to_owned(), identity: Identity::master("admin") }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_slow_are_refused() {
    let served = Served::start(|config| config.limits.header_read_max = Duration::from_millis(300)).await;
    let large =
        format!("GET /version HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\nConnection: close\r\n\r\n", "x".repeat(100_000));
    assert_eq!(served.raw(large.as_bytes()).await, "HTTP/1.1 431 Request Header Fields Too Large");
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    let many = format!("GET /version HTTP/1.1\r\nHost: x\r\n{many}Connection: close\r\n\r\n");
    assert_eq!(served.raw(many.as_bytes()).await, "HTTP/1.1 431 Request Header Fields Too Large");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(100_000));
    let answer = served.raw(long.as_bytes()).await;
    assert!(answer.contains("414") || answer.contains("431"), "{answer}");
    // One that never ends its head is cut off, not waited for.
    assert_eq!(served.raw(b"GET /version HTTP/1.1\r\nHost: x\r\n").await, "");
    assert!(served.raw(b"\x00\xff\x00 nonsense\r\n\r\n").await.contains("400"));
    let good = served.raw(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(good, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn bodies_that_are_too_large_or_too_slow_are_refused() {
    let served = Served::start(|config| {
        config.bearer_tokens = vec![admin_token()];
        config.limits.body_read_max = Duration::from_millis(300);
        config.limits.body_bytes_max = 10_000;
    })
    .await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\
                Content-Type: application/json\r\nConnection: close\r\n";
    let large = format!("{head}Content-Length: 20000\r\n\r\n{}", " ".repeat(20_000));
    assert!(served.raw(large.as_bytes()).await.contains("413"));
    let slow = format!("{head}Content-Length: 100\r\n\r\n{{");
    assert!(served.raw(slow.as_bytes()).await.contains("504"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &vec![b' '; 1_000_000]).unwrap();
    let packed = packed.finish().unwrap();
    let mut bomb = format!("{head}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len()).into_bytes();
    bomb.extend_from_slice(&packed);
    assert!(served.raw(&bomb).await.contains("413"));
}

#[tokio::test]
async fn a_connection_that_is_chosen_ends_after_its_request() {
    let served = Served::start(|config| config.limits.goaway_chance = 1.0).await;
    let stream = served.connect(b"h2").await;
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let ended = task::spawn("test-connection", connection);
    let request = Request::get("https://localhost/version").version(Version::HTTP_2).body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap();
    ended.await.unwrap().unwrap().unwrap();
    assert!(sender.is_closed());
}

#[tokio::test]
async fn strangers_get_one_request_over_a_connection() {
    let served = Served::start(|config| config.bearer_tokens = vec![admin_token()]).await;
    for (token, stays) in [("", false), ("Bearer wrong", false), ("Bearer admin", true)] {
        let stream = served.connect(b"h2").await;
        let (mut sender, connection) =
            http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let ended = task::spawn("test-connection", connection);
        let mut request = Request::get("https://localhost/version").version(Version::HTTP_2);
        if !token.is_empty() {
            request = request.header("authorization", token);
        }
        let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap();
        let ends = tokio::time::timeout(Duration::from_millis(500), ended).await.is_ok();
        assert_eq!(ends, !stays, "{token}");
    }
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    let served = Served::start(|_| {}).await;
    let mut stream = served.connect(b"h2").await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await.unwrap();
    // HEADERS with :method GET, :scheme https, :path /, :authority x; then RST_STREAM (CANCEL).
    let mut flood = Vec::new();
    for stream_id in (1u32..20_001).step_by(2) {
        flood.extend_from_slice(&[0, 0, 6, 1, 5]);
        flood.extend_from_slice(&stream_id.to_be_bytes());
        flood.extend_from_slice(&[0x82, 0x87, 0x84, 0x41, 0x01, b'x']);
        flood.extend_from_slice(&[0, 0, 4, 3, 0]);
        flood.extend_from_slice(&stream_id.to_be_bytes());
        flood.extend_from_slice(&8u32.to_be_bytes());
    }
    let written = stream.write_all(&flood).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(written.is_err() || read.is_ok(), "the server ends it");
    // Others are served as ever.
    let good = served.raw(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(good, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_answer_says_how_it_was_classified_and_figures_count_it() {
    let served = Served::start(|config| config.bearer_tokens = vec![admin_token()]).await;
    let stream = served.connect(b"http/1.1").await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    task::spawn("test-connection", connection);
    let mut ask = async |path: &str| {
        let request = Request::get(path).header("host", "x").header("authorization", "Bearer admin");
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let (parts, _) = ask("/api/v1/pods").await;
    let schema = served.fixture.get("flowcontrol.apiserver.k8s.io", "flowschemas/exempt").await.unwrap();
    assert_eq!(parts.headers["x-kubernetes-pf-flowschema-uid"], schema["metadata"]["uid"].as_str().unwrap());
    let (_, metrics) = ask("/metrics").await;
    for line in [
        "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1\n",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"} 2\n",
        "etcd_requests_total{group=\"rbac.authorization.k8s.io\",operation=\"create\",resource=\"clusterroles\"}",
        "apiserver_storage_objects{resource=\"namespaces\"} 4\n",
        "process_open_fds ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(ask("/readyz").await.1, "ok");
    let (_, slis) = ask("/metrics/slis").await;
    assert!(slis.contains("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1\n"), "{slis}");
    let announced = Shutdown::new();
    served.fixture.server.stop_is_announced_by(announced.clone());
    announced.cancel();
    let (parts, verbose) = ask("/readyz").await;
    assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(verbose.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{verbose}");
    assert_eq!(ask("/livez").await.1, "ok");
    assert_eq!(ask("/api/v1/pods").await.0.status, StatusCode::OK, "it goes on for a while");
}
