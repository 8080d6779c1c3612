//! exec, attach and port-forward, over WebSocket as `kubectl` speaks it.

use std::time::Duration;

use cri::v1;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::node::{Node, shell};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

struct Session(WebSocketStream<TcpStream>);

impl Session {
    async fn open(url: &str, protocol: &'static str) -> Result<Self, tokio_tungstenite::tungstenite::Error> {
        let address = url.trim_start_matches("http://").split('/').next().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocol));
        Ok(Self(tokio_tungstenite::client_async(request, stream).await?.0))
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    /// Everything of each channel until the session ends, or until `enough`.
    async fn receive(&mut self, enough: impl Fn(&[String; 5]) -> bool) -> [String; 5] {
        let mut all = [const { String::new() }; 5];
        let reading = async {
            while let Some(Ok(message)) = self.0.next().await {
                if let Message::Binary(bytes) = message
                    && let Some((channel, text)) = bytes.split_first()
                {
                    all[usize::from(*channel)].push_str(&String::from_utf8_lossy(text));
                }
                if enough(&all) {
                    break;
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), reading).await;
        assert!(ended.is_ok(), "the session does not end: {all:?}");
        all
    }

    async fn rest(&mut self) -> [String; 5] {
        self.receive(|_| false).await
    }
}

async fn exec(node: &mut Node, id: &str, script: &str, tty: bool) -> String {
    let request = v1::ExecRequest {
        container_id: id.into(),
        cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    node.runtime.exec(request).await.unwrap().into_inner().url
}

#[tokio::test]
async fn commands_with_streams() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("sleep 1000")).await;
    let url = exec(&mut node, &id, "cat; echo trouble >&2; exit 3", false).await;
    let mut session = Session::open(&url, "v5.channel.k8s.io").await.unwrap();
    session.send(STDIN, b"typed\n").await;
    session.send(CLOSE, &[STDIN]).await;
    let all = session.rest().await;
    assert_eq!((all[usize::from(STDOUT)].as_str(), all[usize::from(STDERR)].as_str()), ("typed\n", "trouble\n"));
    assert!(all[usize::from(STATUS)].contains("\"3\""), "{all:?}");
    assert!(Session::open(&url, "v5.channel.k8s.io").await.is_err(), "a token works once");

    // Whose client goes away is killed.
    let url = exec(&mut node, &id, "echo up; exec sleep 77", false).await;
    let mut session = Session::open(&url, "v5.channel.k8s.io").await.unwrap();
    session.receive(|all| all[usize::from(STDOUT)].contains("up")).await;
    drop(session);
    let mut tries = 0;
    while node.exec(&id, "ps").await.unwrap().1.contains("sleep 77") {
        tries += 1;
        assert!(tries < 100, "the command outlives its client");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.remove_pod(&pod).await;
}

#[tokio::test]
async fn commands_with_a_terminal() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("sleep 1000")).await;
    let url = exec(&mut node, &id, "tty; read line; stty size; echo got $line; exit 4", true).await;
    let mut session = Session::open(&url, "v5.channel.k8s.io").await.unwrap();
    session.send(RESIZE, br#"{"Width":123,"Height":45}"#).await;
    session.receive(|all| all[usize::from(STDOUT)].contains("/dev/pts/0")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.send(STDIN, b"hello\n").await;
    let all = session.rest().await;
    assert_eq!(all[usize::from(STDOUT)], "hello\r\n45 123\r\ngot hello\r\n", "{all:?}");
    assert!(all[usize::from(STATUS)].contains("\"4\""), "{all:?}");
    node.remove_pod(&pod).await;
}

#[tokio::test]
async fn attaching() {
    let mut node = Node::start().await;
    let config = v1::ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..shell("echo early; while read line; do echo got $line; done; echo bye; exit 6")
    };
    let (pod, id) = node.run(config).await;
    let request = v1::AttachRequest { container_id: id.clone(), stdin: true, tty: false, stdout: true, stderr: true };
    let url = node.runtime.attach(request).await.unwrap().into_inner().url;
    let mut session = Session::open(&url, "v5.channel.k8s.io").await.unwrap();
    session.send(STDIN, b"one\n").await;
    session.receive(|all| all[usize::from(STDOUT)].contains("got one")).await;
    session.send(STDIN, b"two\n").await;
    session.send(CLOSE, &[STDIN]).await;
    let all = session.rest().await;
    assert_eq!(all[usize::from(STDOUT)], "got two\nbye\n");
    assert_eq!(node.ended(&id).await.exit_code, 6);
    assert_eq!(node.log("c.log"), "early\ngot one\ngot two\nbye\n");
    node.remove_pod(&pod).await;

    // A terminal is attached to in the same way.
    let config = v1::ContainerConfig { stdin: true, tty: true, ..shell("read line; stty size; echo got $line") };
    let (pod, id) = node.run(config).await;
    let request = v1::AttachRequest { container_id: id.clone(), stdin: true, tty: true, stdout: true, stderr: false };
    let url = node.runtime.attach(request).await.unwrap().into_inner().url;
    let mut session = Session::open(&url, "v5.channel.k8s.io").await.unwrap();
    session.send(RESIZE, br#"{"Width":99,"Height":33}"#).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    session.send(STDIN, b"me\n").await;
    let all = session.rest().await;
    assert_eq!(all[usize::from(STDOUT)], "me\r\n33 99\r\ngot me\r\n", "{all:?}");
    node.remove_pod(&pod).await;
}

#[tokio::test]
async fn forwarding_a_port() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("echo up; echo from the pod | nc -l -p 8080; sleep 1000")).await;
    while !node.log("c.log").contains("up") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let start = std::time::Instant::now();
    while !node.exec(&id, "cat /proc/net/tcp /proc/net/tcp6").await.unwrap().1.contains(":1F90") {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing listens: {}", node.log("c.log"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![8080] };
    let url = node.runtime.port_forward(request).await.unwrap().into_inner().url;
    let mut session = Session::open(&url, "v4.channel.k8s.io").await.unwrap();
    // Each channel begins with the port's number.
    let all = session.receive(|all| all[0].contains("from the pod")).await;
    assert!(all[0].ends_with("from the pod\n"), "{all:?}");
    node.remove_pod(&pod).await;
}
