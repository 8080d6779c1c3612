//! Members that talk over byte streams.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::frame::{Hello, read_frame, read_hello, send_hello, write_frame};
use super::{Dial, Stream};
use crate::{Config, MemberRole, NetworkConfig, Store, Txn};

/// Dials members in the same process.
#[derive(Clone, Default)]
struct Switchboard {
    listening: Arc<Mutex<BTreeMap<String, Store>>>,
}

impl Dial for Switchboard {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let store = self.listening.lock().get(address).cloned();
        Box::pin(async move {
            let store = store.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (here, there) = duplex(64 << 10);
            task::spawn("accept", async move { store.accept(there).await });
            Ok(Box::new(here) as Box<dyn Stream>)
        })
    }
}

async fn member(board: &Switchboard, dir: &tempfile::TempDir, name: &str, join: &[&str]) -> (Store, task::Shutdown) {
    let network = NetworkConfig {
        address: name.to_owned(),
        dial: Arc::new(board.clone()),
        join: join.iter().map(|address| (*address).to_owned()).collect(),
    };
    let shutdown = task::Shutdown::new();
    let config = Config { network: Some(network), ..Config::new(dir.path().join(name), name) };
    let store = Store::open(config, shutdown.clone()).await.unwrap();
    board.listening.lock().insert(name.to_owned(), store.clone());
    store.ready().await.unwrap();
    (store, shutdown)
}

fn voters(store: &Store) -> usize {
    store.members().iter().filter(|member| member.role == MemberRole::Voter).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_on_real_disks_agree_over_byte_streams() {
    let dir = tempfile::tempdir().unwrap();
    let board = Switchboard::default();
    let (first, first_shutdown) = member(&board, &dir, "first", &[]).await;
    // Larger than one part of a snapshot.
    for at in 0..8 {
        first.txn(Txn::put(format!("large/{at}"), vec![at as u8; 400_000])).await.unwrap();
    }
    first.inner.raft.trigger().snapshot().await.unwrap();
    let (second, _second) = member(&board, &dir, "second", &["first"]).await;
    let (third, _third) = member(&board, &dir, "third", &["nobody", "second"]).await;
    while voters(&first) < 3 {
        sleep(Duration::from_millis(10)).await;
    }
    for (at, store) in [&first, &second, &third].into_iter().enumerate() {
        store.txn(Txn::put("k", at.to_string())).await.unwrap();
    }
    for store in [&first, &second, &third] {
        let revision = store.read_index().await.unwrap();
        assert_eq!((revision, store.status().keys), (first.revision(), 9));
    }
    first_shutdown.cancel();
    second.txn(Txn::put("k", "after")).await.unwrap();
    first.closed().await;
    third.read_index().await.unwrap();
    assert_eq!(third.revision(), second.revision());
}

async fn broken(bytes: &[u8]) -> bool {
    let (mut here, mut there): (DuplexStream, DuplexStream) = duplex(4_096);
    here.write_all(bytes).await.unwrap();
    drop(here);
    read_hello(&mut there).await.is_err()
}

#[tokio::test]
async fn what_is_no_hello_is_refused_and_frames_are_bounded() {
    let hello = Hello { from: 7, address: "there:2380".to_owned(), to: 9 };
    let (mut here, mut there) = duplex(4_096);
    send_hello(&mut here, &hello).await.unwrap();
    let mut written = vec![0; 4 + 4 + 4 + 16 + 4 + 10];
    there.read_exact(&mut written).await.unwrap();
    for at in 0..written.len() {
        assert!(broken(&written[..at]).await, "cut off at {at}");
    }
    let mut other = written.clone();
    other[8] ^= 1;
    assert!(broken(&other).await, "another version");
    assert!(broken(&u32::MAX.to_le_bytes()).await);

    write_frame(&mut here, 5, b"content").await.unwrap();
    assert_eq!(read_frame(&mut there).await.unwrap(), Some((5, "content".into())));
    here.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    assert!(read_frame(&mut there).await.is_err());
}
