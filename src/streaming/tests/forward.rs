//! port-forward.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use super::{connected, spdy, websocket};
use crate::spdy::client::{Client, Event};
use crate::websocket::tunnel;
use crate::{Connection, TargetError, serve_port_forward};

/// Port 80 echoes until its input ends and then says so; no other port is open.
async fn connect(port: u16) -> Result<Box<dyn Connection>, TargetError> {
    if port != 80 {
        return Err("connection refused".into());
    }
    let (near, far) = tokio::io::duplex(1024);
    task::spawn("echo", async move {
        let (mut read, mut write) = tokio::io::split(far);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.write_all(b"!").await.unwrap();
        write.shutdown().await.unwrap();
    });
    Ok(Box::new(near))
}

fn server() -> DuplexStream {
    connected(|request| serve_port_forward(request, vec![80, 81], connect))
}

async fn two_connections(mut client: Client<impl AsyncRead + AsyncWrite + Unpin>) {
    let pair = async |client: &mut Client<_>, request: &str, port: &str| {
        let error = client.open(&[("streamtype", "error"), ("port", port), ("requestid", request)]).await;
        assert_eq!(client.next().await, Event::Reply(error));
        let data = client.open(&[("streamtype", "data"), ("port", port), ("requestid", request)]).await;
        assert_eq!(client.next().await, Event::Reply(data));
        (error, data)
    };
    let (error, data) = pair(&mut client, "0", "80").await;
    client.send(data, b"hello", false).await;
    assert_eq!(client.next().await, Event::Data(data, "hello".into()));
    client.send(data, b"", true).await;
    // Our side has ended, the target's goes on.
    assert_eq!(client.next().await, Event::Data(data, "!".into()));
    assert_eq!(client.next().await, Event::End(data));
    assert_eq!(client.next().await, Event::End(error));

    let (error, data) = pair(&mut client, "1", "81").await;
    let mut events = [client.next().await, client.next().await, client.next().await];
    events.sort_by_key(|event| format!("{event:?}"));
    let message = "error forwarding port 81 to pod: connection refused";
    assert_eq!(events, [Event::Data(error, message.into()), Event::End(error), Event::Reset(data)]);
    let refused = client.open(&[("streamtype", "data"), ("port", "70000")]).await;
    assert_eq!(client.next().await, Event::Reset(refused));
}

#[tokio::test]
async fn over_spdy() {
    two_connections(spdy(server(), "portforward.k8s.io").await).await;
}

#[tokio::test]
async fn over_spdy_in_a_websocket() {
    let socket = websocket(server(), "SPDY/3.1+portforward.k8s.io").await;
    two_connections(Client::new(tunnel(socket))).await;
}

#[tokio::test]
async fn over_websocket_channels() {
    let mut socket = websocket(server(), "v4.channel.k8s.io").await;
    socket.send(Message::binary(&b"\x00ping"[..])).await.unwrap();
    let mut received = vec![Vec::new(); 4];
    while received[0].len() < 6 || received[3].len() < 10 {
        let data = socket.next().await.unwrap().unwrap().into_data();
        received[data[0] as usize].extend_from_slice(&data[1..]);
    }
    assert_eq!(received[0], b"\x50\x00ping");
    assert_eq!(received[1], b"\x50\x00");
    assert_eq!(received[2], b"\x51\x00");
    assert_eq!(received[3], b"\x51\x00error forwarding port 81 to pod: connection refused");
}

#[tokio::test]
async fn the_connection_ends_with_the_target() {
    let io = connected(|request| {
        serve_port_forward(request, vec![80], async |_| {
            let (near, mut far) = tokio::io::duplex(1024);
            far.write_all(b"bye").await.unwrap();
            Ok(Box::new(near) as Box<dyn Connection>)
        })
    });
    let mut socket = websocket(io, "v4.channel.k8s.io").await;
    let mut received = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(data) = message
            && data.first() == Some(&0)
        {
            received.extend_from_slice(&data[1..]);
        }
    }
    assert_eq!(received, b"\x50\x00bye");
}

#[tokio::test]
async fn a_connection_with_garbage_ends() {
    for garbage in [&[0xff; 64][..], b"\x80\x03\x00\x01\x00\x00\x00\x0a\0\0\0\x01\0\0\0\0\0\0"] {
        let io = server();
        let request = "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n";
        let (mut read, mut write) = tokio::io::split(io);
        write.write_all(request.as_bytes()).await.unwrap();
        write.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"\r\n\r\n"));
    }
}
