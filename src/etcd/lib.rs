//! The etcd v3 API over the store: KV, Watch, Lease, Cluster and Maintenance, generated from `etcd.proto`, so that
//! `etcdctl` and other programs made for etcd read and write what the store holds.
//!
//! It is served over TLS to whoever shows a certificate that the given configuration accepts; there are no users beside
//! that. Each method unpacks its request, asks the store, and packs the answer; errors have etcd's codes and texts
//! (`errors`).
//!
//! Limitations: snapshots in etcd's file format, authentication by user and password, and downgrades are not served.
//! Servers join and vote by themselves, so members are not added, moved or promoted here.

mod convert;
mod errors;
mod kv;
mod lease;
mod listen;
mod maintenance;
mod members;
mod watch;

/// The generated types of package `etcdserverpb`.
#[allow(clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated")]
mod v3 {
    tonic::include_proto!("etcdserverpb");
}

use std::sync::Arc;

use store::Store;
use task::Shutdown;
use tokio::net::TcpListener;
use tonic::transport::Server;

use v3::cluster_server::ClusterServer;
use v3::kv_server::KvServer;
use v3::lease_server::LeaseServer;
use v3::maintenance_server::MaintenanceServer;
use v3::watch_server::WatchServer;

/// Requests are no longer than this: a transaction at its largest, and what it is wrapped in (etcd:
/// `--max-request-bytes` and its overhead).
const REQUEST_BYTES_MAX: usize = store::TXN_BYTES_MAX + 512 * 1024;
/// Requests and streams of one connection at a time (etcd: `--max-concurrent-streams` has no bound).
const STREAMS_MAX: u32 = 1_024;

/// What is said of this cluster and this server.
#[derive(Clone, Debug)]
pub struct About {
    /// The same on all servers of a cluster, and on no others.
    pub cluster_id: u64,
    /// Where this API is reached.
    pub client_url: String,
    /// Keys and values may weigh so much.
    pub quota_bytes: u64,
}

/// The services' common ground.
#[derive(Clone)]
struct Served {
    store: Store,
    about: Arc<About>,
}

impl Served {
    fn header(&self, revision: u64) -> Option<v3::ResponseHeader> {
        Some(v3::ResponseHeader {
            cluster_id: self.about.cluster_id,
            member_id: self.store.id(),
            revision: convert::signed(revision),
            raft_term: self.store.leading().borrow().term,
        })
    }

    /// For answers that are about no revision: the newest one.
    fn header_now(&self) -> Option<v3::ResponseHeader> {
        self.header(self.store.revision())
    }
}

/// Serves the API until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    store: Store,
    about: About,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let served = Served { store, about: Arc::new(about) };
    let limited = REQUEST_BYTES_MAX;
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(
            KvServer::new(served.clone()).max_decoding_message_size(limited).max_encoding_message_size(usize::MAX),
        )
        .add_service(
            WatchServer::new(served.clone()).max_decoding_message_size(limited).max_encoding_message_size(usize::MAX),
        )
        .add_service(LeaseServer::new(served.clone()).max_encoding_message_size(usize::MAX))
        .add_service(ClusterServer::new(served.clone()))
        .add_service(MaintenanceServer::new(served))
        .serve_with_incoming(listen::accepted(listener, tls, shutdown.clone()));
    // Watches never end by themselves, so nothing is waited for.
    tokio::select! {
        ended = server => ended,
        () = shutdown.cancelled() => Ok(()),
    }
}
