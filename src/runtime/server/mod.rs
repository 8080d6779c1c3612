//! The CRI server: knows every sandbox and container, asks the shims, keeps what must be found again on disk.
//!
//! What is known is in three places: a pod's shim knows its containers while it lives; each container's last
//! status and each sandbox's and container's record are small files under the state directory; memory holds
//! both together. Starting reads the files and asks the shims, so stopping or killing the server loses nothing.

mod containers;
mod events;
mod exec;
mod executable;
mod images;
mod plan;
mod sandboxes;
mod service;
mod shims;
mod signals;
mod state;
mod stats;
mod streams;
mod views;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::images::Images;
use cri::v1::PodSandboxMetadata;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use task::Shutdown;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::UnixListenerStream;

use crate::cgroup::{self, Hierarchy};
use executable::Executable;
use state::{Container, Sandbox};

/// Events that a slow listener may be behind before it misses some.
const EVENTS_MAX: usize = 1024;

/// Where exec, attach and port-forward are streamed; the CRI's answers name the port.
const STREAMING_ADDRESS: std::net::SocketAddr = std::net::SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Where the runtime keeps things and how it is reached.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// `<data-dir>/agent/containers`: survives a reboot.
    pub state_dir: PathBuf,
    /// `<run-dir>`: the shims' sockets.
    pub run_dir: PathBuf,
    /// Where the CRI is served.
    pub socket: PathBuf,
    /// For sandboxes that name no cgroup parent; absolute.
    pub cgroup_parent_default: String,
    /// What is run as `<executable> shim <spec>`: normally `/proc/self/exe`.
    pub shim_executable: PathBuf,
    /// Directory of `Localhost` seccomp profiles whose reference is relative.
    pub seccomp_dir: PathBuf,
}

/// The pod network, seen from the runtime. It is asked when a sandbox that does not use the node's network comes and
/// goes. Both calls may be repeated for the same sandbox.
pub trait PodNetwork: Send + Sync {
    /// Connects the network namespace at `netns` and returns the pod's addresses, primary first. The loopback
    /// interface is up already. The error is a sentence.
    fn attach<'a>(
        &'a self,
        sandbox_id: &'a str,
        netns: &'a Path,
        metadata: &'a PodSandboxMetadata,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;

    /// Undoes [`attach`](Self::attach); the namespace may be gone. No error if it was never attached.
    fn detach<'a>(&'a self, sandbox_id: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Why pods cannot be connected at the moment, if so (the CRI's condition `NetworkReady`).
    fn not_ready(&self) -> Option<String> {
        None
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("open the image store")]
    Images(#[from] ::images::Error),
    #[error("listen for streams on {address}")]
    Streaming { address: std::net::SocketAddr, source: std::io::Error },
    #[error("serve the CRI")]
    Serve(#[from] tonic::transport::Error),
}

/// Everything that the server's methods share.
pub(crate) struct Runtime {
    pub config: RuntimeConfig,
    pub hierarchy: Hierarchy,
    pub images: Images,
    pub network: Arc<dyn PodNetwork>,
    pub executable: Executable,
    pub node_hostname: String,
    pub sandboxes: RwLock<HashMap<String, Arc<Sandbox>>>,
    pub containers: RwLock<HashMap<String, Arc<Container>>>,
    pub events: broadcast::Sender<cri::v1::ContainerEventResponse>,
    pub streaming: streams::Server,
}

/// Serves the CRI on `config.socket` until `shutdown`, with whatever images `images` has.
/// Containers go on when it ends, and the next call finds them again.
pub async fn run(
    config: RuntimeConfig,
    images: Images,
    network: Arc<dyn PodNetwork>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let runtime = Runtime::open(config, images, network).await?;
    runtime.streaming.serve(&runtime, shutdown.clone());
    let socket = &runtime.config.socket;
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir).map_err(io("create", dir))?;
    }
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(io("listen on", socket))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(socket, mode).map_err(io("set the mode of", socket))?;
    tracing::info!(socket = %socket.display(), "container runtime is listening");
    service::serve(runtime, UnixListenerStream::new(listener), shutdown).await?;
    Ok(())
}

/// Ends and removes everything of the runtime's: pods, containers, their cgroups and shims, and its files.
/// What cannot be removed is logged and passed over.
pub async fn teardown(config: RuntimeConfig, images: Images, network: Arc<dyn PodNetwork>) -> Result<(), Error> {
    let runtime = Runtime::open(config, images, network).await?;
    let ids: Vec<String> = runtime.sandboxes.read().keys().cloned().collect();
    for id in ids {
        if let Err(status) = runtime.remove_sandbox(&id).await {
            tracing::error!(sandbox = id, error = status.message(), "removing the pod sandbox");
        }
    }
    let config = &runtime.config;
    runtime.hierarchy.remove_tree(&config.cgroup_parent_default)?;
    for dir in [&config.state_dir, &config.run_dir.join(state::SHIMS)] {
        match std::fs::remove_dir_all(dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "remove", path: dir.clone(), source });
            }
            _ => {}
        }
    }
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

impl Runtime {
    /// Finds what is there and takes up the shims that live.
    async fn open(config: RuntimeConfig, images: Images, network: Arc<dyn PodNetwork>) -> Result<Arc<Self>, Error> {
        for dir in [
            config.state_dir.join(state::SANDBOXES),
            config.state_dir.join(state::CONTAINERS),
            config.run_dir.join(state::SHIMS),
        ] {
            let made = std::fs::create_dir_all(&dir)
                .and_then(|()| std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)));
            made.map_err(|source| Error::Io { action: "create", path: dir.clone(), source })?;
        }
        let executable = Executable::open(&config.shim_executable).map_err(|source| Error::Io {
            action: "open",
            path: config.shim_executable.clone(),
            source,
        })?;
        let node_hostname =
            nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let runtime = Arc::new(Self {
            hierarchy: Hierarchy::detect()?,
            images,
            network,
            executable,
            node_hostname,
            sandboxes: RwLock::default(),
            containers: RwLock::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            streaming: streams::Server::bind(STREAMING_ADDRESS).await?,
            config,
        });
        runtime.adopt().await?;
        Ok(runtime)
    }
}
