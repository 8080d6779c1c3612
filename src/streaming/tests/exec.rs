//! exec and attach.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Inside, connected, process, spdy, websocket};
use crate::spdy::client::Event;
use crate::{StreamOptions, TerminalSize, serve_attach, serve_exec};

const PIPES: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: false, tty: true };

/// A connection to a server that runs one process.
fn exec(options: StreamOptions) -> (DuplexStream, Inside) {
    let (process, inside) = process();
    let process = Mutex::new(Some(process));
    let io = connected(move |request| {
        let process = process.lock().unwrap().take().unwrap();
        serve_exec(request, options, async { Ok(process) })
    });
    (io, inside)
}

async fn binary(socket: &mut WebSocketStream<DuplexStream>) -> Bytes {
    match socket.next().await.unwrap().unwrap() {
        Message::Binary(data) => data,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn kubectls_protocol_from_input_to_exit_code() {
    let (io, mut inside) = exec(PIPES);
    let mut socket = websocket(io, "v5.channel.k8s.io").await;
    assert_eq!(binary(&mut socket).await, &b"\x01"[..]);
    socket.send(Message::binary(&b"\x00hello"[..])).await.unwrap();
    socket.send(Message::binary(&b"\xff\x00"[..])).await.unwrap();
    let mut input = String::new();
    inside.stdin.read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "hello");
    inside.stdout.write_all(b"out").await.unwrap();
    assert_eq!(binary(&mut socket).await, &b"\x01out"[..]);
    inside.stderr.write_all(b"err").await.unwrap();
    assert_eq!(binary(&mut socket).await, &b"\x02err"[..]);
    socket.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"p")));
    // Output that comes together with the exit is not lost.
    inside.exit.send(3).unwrap();
    inside.stdout.write_all(b"last").await.unwrap();
    drop((inside.stdout, inside.stderr));
    assert_eq!(binary(&mut socket).await, &b"\x01last"[..]);
    let status = binary(&mut socket).await;
    assert_eq!(status[0], 3);
    let status: serde_json::Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    match socket.next().await.unwrap().unwrap() {
        Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 1000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_terminal_is_told_its_size() {
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io", ""] {
        let (io, mut inside) = exec(TERMINAL);
        let mut socket = websocket(io, protocol).await;
        assert_eq!(binary(&mut socket).await, &b"\x01"[..]);
        socket.send(Message::binary(&b"\x04{\"Width\":80,\"Height\":24}"[..])).await.unwrap();
        assert_eq!(inside.resize.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        inside.exit.send(0).unwrap();
        drop((inside.stdout, inside.stderr));
        match protocol {
            "" => assert!(matches!(socket.next().await, Some(Ok(Message::Close(_))))),
            _ => assert_eq!(binary(&mut socket).await, &b"\x03{\"metadata\":{},\"status\":\"Success\"}"[..]),
        }
    }
}

#[tokio::test]
async fn the_base64_form() {
    let (io, mut inside) = exec(TERMINAL);
    let mut socket = websocket(io, "v4.base64.channel.k8s.io").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1"));
    socket.send(Message::text("0aGk=")).await.unwrap();
    let mut input = [0; 2];
    inside.stdin.read_exact(&mut input).await.unwrap();
    assert_eq!(&input, b"hi");
    inside.stdout.write_all(b"hi").await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1aGk="));
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sent_before_it_went_away_reaches_the_process() {
    let (io, mut inside) = exec(PIPES);
    let mut socket = websocket(io, "v5.channel.k8s.io").await;
    socket.send(Message::binary(&b"\x00a file"[..])).await.unwrap();
    drop(socket);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut input = String::new();
    inside.stdin.read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "a file");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!inside.dropped.load(Ordering::SeqCst), "it has a while to store that");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(inside.dropped.load(Ordering::SeqCst), "but no longer");

    let (io, inside) = exec(PIPES);
    drop(websocket(io, "v5.channel.k8s.io").await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(inside.dropped.load(Ordering::SeqCst), "who sent nothing leaves nothing to be done");
}

#[tokio::test(start_paused = true)]
async fn the_same_over_spdy() {
    for sent in [true, false] {
        let (io, mut inside) = exec(PIPES);
        let mut client = spdy(io, "v4.channel.k8s.io").await;
        let mut stdin = 0;
        for kind in ["error", "stdin", "stdout", "stderr"] {
            let stream = client.open(&[("streamtype", kind)]).await;
            if kind == "stdin" {
                stdin = stream;
            }
        }
        if sent {
            client.send(stdin, b"a file", false).await;
        }
        drop(client);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(inside.dropped.load(Ordering::SeqCst), !sent, "who sent nothing leaves nothing to be done");
        if sent {
            let mut input = String::new();
            inside.stdin.read_to_string(&mut input).await.unwrap();
            assert_eq!(input, "a file");
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(inside.dropped.load(Ordering::SeqCst), "it has a while and no longer");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_takes_its_session_with_it() {
    for spdy_client in [false, true] {
        let (io, mut inside) = exec(PIPES);
        if spdy_client {
            let mut client = spdy(io, "v4.channel.k8s.io").await;
            for kind in ["error", "stdin", "stdout", "stderr"] {
                client.open(&[("streamtype", kind)]).await;
            }
            client.send(3, b"x", false).await;
            assert_eq!(inside.stdin.read_u8().await.unwrap(), b'x');
        } else {
            let mut socket = websocket(io, "v5.channel.k8s.io").await;
            socket.send(Message::binary(&b"\x00x"[..])).await.unwrap();
            assert_eq!(inside.stdin.read_u8().await.unwrap(), b'x');
        }
        let mut rest = Vec::new();
        inside.stdin.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        for _ in 0..100 {
            if inside.dropped.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(inside.dropped.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_process_up() {
    let (io, mut inside) = exec(PIPES);
    let _socket = websocket(io, "v5.channel.k8s.io").await;
    let mut written = 0u64;
    let chunk = [0; 1024];
    while tokio::time::timeout(Duration::from_millis(200), inside.stdout.write_all(&chunk)).await.is_ok() {
        written += 1;
        assert!(written < 4096, "more than 4 MiB are buffered");
    }
}

#[tokio::test]
async fn a_process_that_does_not_start_is_explained() {
    let io = connected(|request| serve_exec(request, PIPES, async { Err("exec: \"nope\": not found".into()) }));
    let mut socket = websocket(io, "v5.channel.k8s.io").await;
    assert_eq!(binary(&mut socket).await, &b"\x01"[..]);
    let status = binary(&mut socket).await;
    let status: serde_json::Value = serde_json::from_slice(&status[1..]).unwrap();
    let message = "Internal error occurred: error executing command in container: exec: \"nope\": not found";
    assert_eq!(status["message"], message);
}

#[tokio::test]
async fn older_clients_use_spdy() {
    let (io, mut inside) = exec(PIPES);
    let mut client = spdy(io, "v4.channel.k8s.io").await;
    let error = client.open(&[("streamtype", "error")]).await;
    assert_eq!(client.next().await, Event::Reply(error));
    let stdin = client.open(&[("streamtype", "stdin")]).await;
    let stdout = client.open(&[("streamtype", "stdout")]).await;
    let stderr = client.open(&[("streamtype", "stderr")]).await;
    let unknown = client.open(&[("streamtype", "nonsense")]).await;
    for stream in [stdin, stdout, stderr] {
        assert_eq!(client.next().await, Event::Reply(stream));
    }
    assert_eq!(client.next().await, Event::Reset(unknown));
    client.ping(1).await;
    client.send(stdin, b"in", false).await;
    client.send(stdin, b"put", true).await;
    let mut input = String::new();
    inside.stdin.read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "input");
    // Far more than SPDY's initial window: clients never enlarge it.
    let text = vec![b'x'; 300 << 10];
    let writing = async {
        inside.stdout.write_all(&text).await.unwrap();
        drop((inside.stdout, inside.stderr));
        inside.exit.send(0).unwrap();
    };
    let (_, events) = tokio::join!(writing, client.rest());
    let data = |of: u32| {
        let pieces = events.iter().filter_map(move |event| match event {
            Event::Data(stream, data) if *stream == of => Some(data.to_vec()),
            _ => None,
        });
        pieces.collect::<Vec<_>>().concat()
    };
    assert_eq!(data(stdout), text);
    assert_eq!(data(error), br#"{"metadata":{},"status":"Success"}"#);
    for stream in [stdout, stderr, error] {
        assert!(events.contains(&Event::End(stream)), "{stream}");
    }
    assert_eq!(events.last(), Some(&Event::GoAway));
}

#[tokio::test]
async fn attach_over_spdy_with_a_terminal() {
    let (process, mut inside) = process();
    let process = Mutex::new(Some(process));
    let io = connected(move |request| {
        let process = process.lock().unwrap().take().unwrap();
        serve_attach(request, TERMINAL, async { Ok(process) })
    });
    let mut client = spdy(io, "v3.channel.k8s.io").await;
    for kind in ["error", "stdin", "stdout", "resize"] {
        client.open(&[("streamtype", kind)]).await;
    }
    client.send(7, b"{\"Width\":1,\"Height\":2}\n", false).await;
    assert_eq!(inside.resize.recv().await, Some(TerminalSize { width: 1, height: 2 }));
    drop((inside.stdout, inside.stderr));
    inside.exit.send(9).unwrap();
    let events = client.rest().await;
    let old = Bytes::from_static(b"command terminated with non-zero exit code: exit status 9");
    assert!(events.contains(&Event::Data(1, old)), "{events:?}");
}
