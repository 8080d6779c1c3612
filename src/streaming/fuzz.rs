//! The doors through which the targets of `fuzz/` reach the wire. They are there in builds for fuzzing only.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::spdy;
use crate::websocket::{Channels, Framing, accept};

/// What a client sends over SPDY: frames, with header blocks in them.
pub fn spdy(bytes: &[u8]) {
    run(spdy::read_all(bytes));
}

/// What a client sends over WebSocket; the first byte says how channels are framed.
pub fn channels(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    run(async move {
        let (mut client, server) = tokio::io::duplex(bytes.len() + 1024);
        if client.write_all(bytes).await.is_err() || client.shutdown().await.is_err() {
            return;
        }
        let mut channels = Channels::new(Framing { base64: choice & 1 != 0, close_signal: choice & 2 != 0 });
        let mut input = channels.input(0);
        let session = async move {
            let mut sink = Vec::new();
            let _ = input.read_to_end(&mut sink).await;
        };
        channels.serve(accept(server).await, session).await;
    });
}

fn run(work: impl Future<Output = ()>) {
    // Without timers that wait: whatever is not done at once is given up.
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build() else {
        return;
    };
    runtime.block_on(work);
}
