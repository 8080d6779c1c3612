//! Runs a node's pods (upstream's kubelet).
//!
//! Reads pods from the API, runs them through a container runtime's CRI socket, and tells the API how they and the node
//! are. Knows nothing of how containers are made or networks built.
//!
//! - [`node`]: registration, status, Lease.
//! - [`pods`]: sources, a worker per pod, its pure plan and status, the writing of statuses.
//! - [`containers`]: from a pod to CRI's messages, pure.
//! - [`volumes`], [`probes`], [`images`], [`logs`], [`cgroups`], [`hooks`]: what pods need.
//! - [`server`]: the HTTPS API that logs, exec, attach and port-forward go through.
//!
//! Everything on disk is below [`Config::data_dir`] and [`Config::log_dir`] and can be lost without harm while no pod runs.
//! Stopping the process stops no container; the next one adopts them by their labels.

mod cgroups;
mod containers;
mod hooks;
mod images;
mod inotify;
mod logs;
mod node;
mod objects;
mod pods;
mod probes;
mod quantity;
mod runtime;
mod server;
#[cfg(test)]
mod testing;
mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client::{Client, Recorder, Scope};
use k8s_openapi::api::core::v1::{Service, Taint};
use task::Shutdown;

/// The version of Kubernetes that this node behaves as.
pub const KUBELET_VERSION: &str = "v1.36.2";
/// Upstream's port.
pub const PORT: u16 = 10250;
/// Upstream's `maxPods`.
pub const PODS_MAX: u32 = 110;

/// How a node runs. Paths are made if they are missing.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// The label `kubernetes.io/hostname` and the address of type Hostname.
    pub hostname: String,
    /// Internal addresses, the main one first.
    pub node_ips: Vec<IpAddr>,
    /// `<data-dir>/kubelet`: below it `pods/<uid>` and `seccomp`.
    pub data_dir: PathBuf,
    /// Pods' logs: upstream's `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Manifests of static pods, `<data-dir>/agent/pod-manifests`.
    pub static_pods_dir: Option<PathBuf>,
    /// The container runtime's socket.
    pub cri_socket: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The node's own resolver configuration, for pods with `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    pub pods_max: u32,
    /// Processes per pod; `None` for no limit.
    pub pod_pids_max: Option<u64>,
    /// Labels and taints that the node registers with, beside upstream's well-known labels.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub provider_id: Option<String>,
    /// What pods do not get of the node's resources.
    pub reserved: Reserved,
    /// The cgroup above `kubepods`, `""` for none. Several nodes on one machine need different ones.
    pub cgroup_root: String,
    /// Where the HTTPS API listens, usually on all addresses and [`PORT`].
    pub listen: SocketAddr,
    /// The port that the Node object names.
    pub port: u16,
    /// The HTTPS API's certificate.
    pub serving_cert: Arc<dyn rustls::server::ResolvesServerCert>,
    /// Who signs the certificates of the HTTPS API's clients.
    pub client_ca: Arc<rustls::RootCertStore>,
}

/// Amounts taken off the node's capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
}

/// Why a node cannot run at all. What fails later is logged and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be made")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("the cgroups for pods cannot be made")]
    Cgroups { source: std::io::Error },
    #[error("the kubelet's API cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the kubelet's API cannot check client certificates")]
    Tls { source: rustls::server::VerifierBuilderError },
    #[error("the kubelet's API has no usable TLS version")]
    TlsVersion { source: rustls::Error },
}

/// Runs the node until `shutdown`; its containers go on running afterwards.
pub async fn run(config: Config, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    let config = Arc::new(config);
    for path in [&config.data_dir.join("pods"), &config.log_dir] {
        std::fs::create_dir_all(path).map_err(|source| Error::Directory { path: path.clone(), source })?;
    }
    let cgroups = cgroups::Cgroups::find(&config.cgroup_root, config.pod_pids_max)
        .and_then(|cgroups| cgroups.prepare().map(|()| cgroups))
        .map_err(|source| Error::Cgroups { source })?;
    let listener = server::Listener::bind(&config).await?;
    let (context, pods, mut tasks) = start(config, client, cgroups, &shutdown);
    tasks.push(task::spawn("kubelet-api", listener.serve(context, pods, shutdown)));
    for task in tasks {
        // A panic was logged where it happened.
        let _ = task.await;
    }
    Ok(())
}

type Tasks = Vec<tokio::task::JoinHandle<Option<()>>>;

/// Starts everything but the HTTPS API.
fn start(
    config: Arc<Config>,
    client: Client,
    cgroups: cgroups::Cgroups,
    shutdown: &Shutdown,
) -> (Arc<pods::Context>, Arc<pods::Pods>, Tasks) {
    let runtime = runtime::Runtime::connect(&config.cri_socket);
    let machine = node::machine::Machine::read(&config.data_dir);
    let context = Arc::new(pods::Context {
        images: images::Images::new(runtime.clone()),
        volumes: volumes::Volumes::new(config.data_dir.join("pods"), client.clone(), config.cluster_domain.clone()),
        cgroups: Arc::new(cgroups),
        events: Recorder::new(client.clone(), "kubelet", Some(&config.node_name)),
        statuses: pods::statuses::Statuses::new(client.clone(), shutdown.clone()),
        services: client.informer::<Service>(Scope::all()),
        node: machine.facts(&config),
        runtime_name: ArcSwap::from_pointee(String::new()),
        runtime: runtime.clone(),
        client,
        config,
    });

    let pods = pods::Pods::new(context.clone(), shutdown.clone());
    let tasks = vec![
        task::spawn("node", node::run(context.clone(), machine, shutdown.clone())),
        task::spawn("pods", pods.clone().run()),
        task::spawn("container-events", pods.clone().follow_events()),
        task::spawn("log-rotation", logs::rotate::run(runtime, shutdown.clone())),
    ];
    (context, pods, tasks)
}
