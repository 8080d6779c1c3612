//! The answering end of a connection.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::mpsc;

use super::CALLS_MAX;
use super::frame::{HELLO_WITHIN, answer_hello, read_frame, read_hello, write_frame};
use crate::members::{ANYONE, Inbound, Peers};

/// Serves a member that has connected, until it goes or says something that makes no sense.
pub(crate) async fn serve(inbound: Arc<Inbound>, peers: Peers, stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
    if let Err(error) = serve_until_broken(&inbound, &peers, stream).await {
        tracing::debug!(%error, "a member's connection ended");
    }
}

async fn serve_until_broken(
    inbound: &Inbound,
    peers: &Peers,
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin,
) -> io::Result<()> {
    let hello = tokio::time::timeout(HELLO_WITHIN, read_hello(&mut stream)).await??;
    let meant = hello.to == peers.id || hello.to == ANYONE;
    answer_hello(&mut stream, meant).await?;
    if !meant {
        return Ok(());
    }
    peers.met(hello.from, hello.address);
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let mut writer = BufWriter::new(writer);
    // Reading goes on in a future of its own: one that is cut off in the middle of a frame would lose its place.
    let (calls, mut incoming) = mpsc::channel::<(u64, Bytes)>(1);
    let read = async {
        while let Some(call) = read_frame(&mut reader).await? {
            if calls.send(call).await.is_err() {
                break;
            }
        }
        drop(calls);
        Ok::<(), io::Error>(())
    };
    let answer = async {
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                call = incoming.recv(), if answers.len() < CALLS_MAX => match call {
                    Some((call, request)) => answers.push(async move { (call, inbound.answer(&request).await) }),
                    None => return Ok::<(), io::Error>(()),
                },
                Some((call, response)) = answers.next(), if !answers.is_empty() => {
                    write_frame(&mut writer, call, &response).await?;
                    writer.flush().await?;
                }
            }
        }
    };
    tokio::try_join!(read, answer)?;
    Ok(())
}
