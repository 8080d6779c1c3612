//! Starts a node's tasks, on a server and on an agent alike: images, runtime, kubelet; and, when the node has its part
//! of the pods' network, the network, Services and DNS.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use client::{Client, Scope};
use futures::future::BoxFuture;
use images::{Images, ImagesConfig, RegistriesConfig};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Taint};
use network::{Network, NetworkConfig, PodAttach};
use pki::Live;
use runtime::{PodNetwork, RuntimeConfig};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use task::Shutdown;

use crate::control::{self, Answering, AnsweringNode};
use crate::options::{DEFAULT_DATA_DIR, NodeOptions, PathOptions};
use crate::saved::Saver;
use crate::settings::ClusterSettings;
use crate::{overlay, preflight};

/// The node's name: what was asked for, or the host's name.
pub fn name(options: &NodeOptions) -> anyhow::Result<String> {
    let name = match &options.node_name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
    };
    let name = name.to_lowercase();
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || !name.chars().all(fine) {
        anyhow::bail!(
            "{name:?} cannot be a node's name: it may have lower case letters, digits, '-' and '.'; choose one with \
             --node-name"
        );
    }
    Ok(name)
}

/// The cgroup above the kubelet's `kubepods`: none, as everywhere, but for further nodes on one machine, whose data lie
/// elsewhere.
fn cgroup_root(paths: &PathOptions) -> String {
    if paths.data_dir == Path::new(DEFAULT_DATA_DIR) {
        return String::new();
    }
    // FNV-1a: short, and the same at every start.
    let hash = paths.data_dir.as_os_str().as_encoded_bytes().iter();
    let hash = hash.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("/cluster-{hash:08x}")
}

/// What a node is started with.
pub struct NodeConfig {
    pub name: String,
    pub ip: IpAddr,
    pub paths: PathOptions,
    pub options: NodeOptions,
    pub settings: ClusterSettings,
    pub ca_pem: String,
    /// The kubelet's serving certificate.
    pub serving: Live,
    /// On a server.
    pub saver: Option<Saver>,
}

/// Starts everything; the tasks run until `shutdown`.
pub async fn start(config: NodeConfig, client: Client, shutdown: &Shutdown) -> anyhow::Result<()> {
    let paths = config.paths.clone();
    let images = image_store(&paths, Some(&config.options.private_registry)).await?;
    let network = Arc::new(Attachments { network: OnceLock::new() });

    let (runtime_images, runtime_network, stop) = (images.clone(), network.clone(), shutdown.clone());
    let runtime_settings = runtime_config(&paths);
    task::restarting("runtime", shutdown.clone(), move || {
        runtime::run(runtime_settings.clone(), runtime_images.clone(), runtime_network.clone(), stop.clone())
    });

    let node = AnsweringNode { name: config.name.clone(), images: images.clone() };
    let answering = Answering { client: client.clone(), node: Some(node), saver: config.saver.clone() };
    control::start(paths.control_socket(), answering, shutdown);
    task::spawn("import", import_all(paths.agent().join("images"), images));

    let kubelet_config = Arc::new(kubelet_config(&config)?);
    let (kubelet_client, stop) = (client.clone(), shutdown.clone());
    task::restarting("kubelet", shutdown.clone(), move || {
        kubelet::run(kubelet::Config::clone(&kubelet_config), kubelet_client.clone(), stop.clone())
    });

    let (connected, stop) = (network.clone(), shutdown.clone());
    let config = Arc::new(config);
    task::restarting("network", shutdown.clone(), move || {
        connect(config.clone(), client.clone(), connected.clone(), stop.clone())
    });
    Ok(())
}

/// Brings the node into the pods' network as soon as it has its part of it, and starts what lives there.
async fn connect(
    config: Arc<NodeConfig>,
    client: Client,
    attachments: Arc<Attachments>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let pod_cidr = pod_cidr(&config, &client).await?;
    let settings = &config.settings;
    let mut network_config = NetworkConfig::new(pod_cidr, settings.cluster_cidr);
    network_config.service_cidrs = vec![settings.service_cidr];
    network_config.node_ip = Some(config.ip);
    let network = Network::start(network_config).await.context("the pod network cannot be set up")?;
    network.add_local_address(settings.cluster_dns).await.context("the name server's address cannot be set up")?;
    attachments.network.set(network.clone()).ok();

    let dns = dns::DnsConfig {
        listen: vec![SocketAddr::new(settings.cluster_dns, 53)],
        cluster_domain: settings.cluster_domain.clone(),
        resolv_conf: config.options.resolv_conf.clone(),
    };
    let proxy = proxy::ProxyConfig {
        node_name: config.name.clone(),
        cluster_cidrs: vec![settings.cluster_cidr],
        table: network.names().service_table.clone(),
        served_here: vec![settings.cluster_dns],
    };
    let (client_of_dns, client_of_proxy) = (client.clone(), client.clone());
    let (stop_dns, stop_proxy, stop_overlay) = (shutdown.clone(), shutdown.clone(), shutdown.clone());
    task::restarting("dns", shutdown.clone(), move || dns::run(dns.clone(), client_of_dns.clone(), stop_dns.clone()));
    task::restarting("proxy", shutdown.clone(), move || {
        proxy::run(proxy.clone(), client_of_proxy.clone(), stop_proxy.clone())
    });
    let (kept, stop) = (network.clone(), shutdown.clone());
    task::restarting("masquerade", shutdown.clone(), move || {
        let (network, stop) = (kept.clone(), stop.clone());
        async move { network.keep(stop).await }
    });
    let name = config.name.clone();
    task::restarting("overlay", shutdown.clone(), move || {
        overlay::run(client.clone(), network.clone(), name.clone(), stop_overlay.clone())
    });
    Ok(())
}

/// This node's part of the pods' network: as it was at the last start, so that a node that boots while cut off has its
/// network, or else as soon as the control plane has given it one.
async fn pod_cidr(config: &NodeConfig, client: &Client) -> anyhow::Result<IpNet> {
    let path = config.paths.agent().join("pod-cidr");
    if let Some(known) = pki::read_secret(&path)?
        && let Ok(cidr) = known.trim().parse()
    {
        return Ok(cidr);
    }
    let nodes = client.informer::<Node>(Scope::all());
    let mut changes = nodes.subscribe();
    loop {
        let change = changes.next().await;
        if change.key.name != config.name {
            continue;
        }
        let Some(text) = change.new.as_ref().and_then(|node| node.spec.as_ref()?.pod_cidr.clone()) else { continue };
        let cidr = text.parse().with_context(|| format!("the node's podCIDR {text:?} is no network"))?;
        pki::write_public(&path, &format!("{text}\n"))?;
        return Ok(cidr);
    }
}

/// The pod network as the runtime sees it: there once the node has its part of it.
struct Attachments {
    network: OnceLock<Network>,
}

impl PodNetwork for Attachments {
    fn attach<'a>(
        &'a self,
        sandbox_id: &'a str,
        netns: &'a Path,
        _: &'a cri::v1::PodSandboxMetadata,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let network = self.network.get().ok_or("the pod network is not set up yet")?;
            let pod = PodAttach { id: sandbox_id.to_owned(), netns: netns.to_owned(), ifname: "eth0".to_owned() };
            network.attach(pod).await.map(|addresses| addresses.ips).map_err(|error| chain(&error))
        })
    }

    fn detach<'a>(&'a self, sandbox_id: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            match self.network.get() {
                Some(network) => network.detach(sandbox_id).await.map_err(|error| chain(&error)),
                None => Ok(()),
            }
        })
    }

    fn not_ready(&self) -> Option<String> {
        self.network.get().is_none().then(|| "the node has no part of the pods' network yet".to_owned())
    }
}

/// The network of a node that is being removed: everything in it goes in one go afterwards.
pub struct Detached;

impl PodNetwork for Detached {
    fn attach<'a>(
        &'a self,
        _: &'a str,
        _: &'a Path,
        _: &'a cri::v1::PodSandboxMetadata,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async { Err("the node is being removed".to_owned()) })
    }

    fn detach<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The node's images. `registries` is the file with mirrors and credentials, which may be missing.
pub async fn image_store(paths: &PathOptions, registries: Option<&Path>) -> anyhow::Result<Images> {
    let mut config = ImagesConfig::new(paths.agent().join("images-store"));
    if let Some(file) = registries
        && let Some(text) = pki::read_secret(file)?
    {
        config.registries =
            RegistriesConfig::parse(&text).with_context(|| format!("{} is not usable", file.display()))?;
    }
    Ok(Images::open(config).await?)
}

pub fn runtime_config(paths: &PathOptions) -> RuntimeConfig {
    let root = cgroup_root(paths);
    RuntimeConfig {
        state_dir: paths.agent().join("containers"),
        run_dir: paths.run_dir.clone(),
        socket: paths.cri_socket(),
        cgroup_parent_default: if root.is_empty() { "/kubepods".to_owned() } else { root },
        shim_executable: PathBuf::from("/proc/self/exe"),
        seccomp_dir: paths.data_dir.join("kubelet").join("seccomp"),
    }
}

fn kubelet_config(config: &NodeConfig) -> anyhow::Result<kubelet::Config> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(config.ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let mut labels = BTreeMap::new();
    for label in &config.options.node_label {
        let (key, value) = label.split_once('=').with_context(|| format!("--node-label: {label:?} is no KEY=VALUE"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let taints = config.options.node_taint.iter().map(|text| taint(text)).collect::<anyhow::Result<_>>()?;
    let paths = &config.paths;
    let port = preflight::KUBELET_PORT;
    Ok(kubelet::Config {
        node_name: config.name.clone(),
        hostname: config.name.clone(),
        node_ips: vec![config.ip],
        data_dir: paths.data_dir.join("kubelet"),
        log_dir: paths.agent().join("logs"),
        static_pods_dir: Some(paths.agent().join("pod-manifests")),
        cri_socket: paths.cri_socket(),
        cluster_dns: vec![config.settings.cluster_dns],
        cluster_domain: config.settings.cluster_domain.clone(),
        resolv_conf: config.options.resolv_conf.clone(),
        pods_max: config.options.max_pods,
        pod_pids_max: None,
        labels,
        taints,
        provider_id: Some(format!("cluster://{}", config.name)),
        reserved: kubelet::Reserved::default(),
        cgroup_root: cgroup_root(paths),
        listen: SocketAddr::from(([0, 0, 0, 0], port)),
        port,
        serving_cert: Arc::new(config.serving.clone()),
        client_ca: Arc::new(roots),
    })
}

/// `KEY=VALUE:EFFECT` or `KEY:EFFECT`, as kubectl takes it.
fn taint(text: &str) -> anyhow::Result<Taint> {
    let parsed = text
        .rsplit_once(':')
        .filter(|(key, effect)| !key.is_empty() && ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(effect));
    let (key, effect) = parsed.with_context(|| {
        format!("--node-taint: {text:?} is no KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute")
    })?;
    let (key, value) = key.split_once('=').map_or((key, None), |(key, value)| (key, Some(value.to_owned())));
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

/// Imports the tarballs in a directory, but not those that were imported before and have not changed since.
async fn import_all(dir: PathBuf, images: Images) {
    let done_path = dir.join(".imported");
    let done = std::fs::read_to_string(&done_path).unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(&dir) else { return };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut imported = String::new();
    for file in files {
        let Ok(meta) = file.metadata() else { continue };
        let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !meta.is_file() || hidden {
            continue;
        }
        let changed = meta.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let mark = format!("{} {} {}\n", changed.unwrap_or_default().as_nanos(), meta.len(), file.display());
        if done.contains(&mark) {
            imported.push_str(&mark);
            continue;
        }
        match images.import(&file).await {
            Ok(found) => {
                imported.push_str(&mark);
                tracing::info!(file = %file.display(), images = found.len(), "images imported");
            }
            Err(error) => tracing::error!(file = %file.display(), error = chain(&error), "images not imported"),
        }
    }
    if imported != done
        && let Err(error) = pki::write_public(&done_path, &imported)
    {
        tracing::warn!(error = chain(&error), "imported images are imported again at the next start");
    }
}
