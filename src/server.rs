//! Starts the control plane and, unless told otherwise, a node.
//!
//! The order is that of need: keys, store, API server, what every cluster has, controllers, scheduler, node. They stop
//! in reverse when `shutdown` is triggered; pods go on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use api::Verb;
use apiserver::{
    AdmissionOptions, AggregationOptions, ApiServer, AuthenticationOptions, AuthorizationOptions, BearerToken,
    Identity, KubeletClient, Limits, ProtectionOptions, ProxyClientFiles, RuntimeConfig, ServiceAccountOptions,
};
use client::{Backend, Client, Informers, Patch, Scope};
use controllers::Served;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use pki::{Authority, Live, Profile};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use store::Store;
use task::Shutdown;
use tokio::net::TcpListener;

use crate::authority::{AuthoritySigner, Keys, serving_profile};
use crate::control::{self, Answering};
use crate::etcd_api::{self, EtcdApi};
use crate::in_process::InProcess;
use crate::instance::Instance;
use crate::manifests;
use crate::node::{self, NodeConfig};
use crate::options::ServerOptions;
use crate::preflight::{self, Wanted};
use crate::saved::Saver;
use crate::settings::ClusterSettings;

/// What `/version` says.
const GIT_VERSION: &str = concat!("v1.36.2+cluster-", env!("CARGO_PKG_VERSION"));
/// As whom the API server vouches for users to aggregated API servers.
const FRONT_PROXY: &str = "front-proxy-client";

/// Runs until `shutdown`.
pub async fn run(options: ServerOptions, shutdown: Shutdown) -> anyhow::Result<()> {
    let listen = SocketAddr::new(options.bind_address, options.https_listen_port);
    let etcd_port = Some(options.etcd_listen_port).filter(|port| *port != 0);
    let wanted = Wanted { api: Some(listen), etcd: etcd_port.map(etcd_api::address), node: !options.disable_agent };
    preflight::check(wanted).map_err(|lacks| anyhow::anyhow!("{lacks}"))?;
    let settings = ClusterSettings::parse(
        &options.cluster_cidr,
        &options.service_cidr,
        options.cluster_dns,
        &options.cluster_domain,
    )?;
    let node_ports = node_ports(&options.service_node_port_range)?;
    let name = node::name(&options.node)?;
    let ip = network::node_address(options.node.node_ip).await?;
    let advertise = options.advertise_address.unwrap_or(ip);
    let paths = options.common.paths.absolute()?;
    let _instance = Instance::take(&paths)?;

    let keys = Keys::load_or_create(&paths, options.token.as_deref())?;
    let mut addresses = vec![ip, advertise];
    addresses.extend(settings.api_address());
    addresses.extend(Some(options.bind_address).filter(|address| !address.is_unspecified()));
    let mut names = options.tls_san.clone();
    names.push(name.clone());
    let profile = serving_profile(&names, &addresses, &settings.cluster_domain);
    let to_kubelets = Profile::client("kube-apiserver-kubelet-client", &["system:masters"]);
    let certificates = Certificates {
        serving: issue_and_renew(&keys.authority, profile, &shutdown)?,
        to_kubelets: issue_and_renew(&keys.authority, to_kubelets, &shutdown)?,
        to_aggregated: issue_and_renew(&keys.front_proxy, Profile::client(FRONT_PROXY, &[]), &shutdown)?,
    };
    let mut config = apiserver_config(&keys, certificates, &settings, advertise, &options, node_ports)?;
    config.apply_flags(options.kube_apiserver_arg.iter().map(String::as_str)).context("--kube-apiserver-arg")?;
    // The API server goes on for a while after it said that it is not ready any more, and so does what it needs.
    let stopping = task::delayed(&shutdown, config.protection.shutdown_delay);
    let store_config = store::Config::new(paths.db(), name.clone());
    let quota_bytes = store_config.quota_bytes;
    let store = Store::open(store_config, stopping.clone()).await.context("the store cannot be opened")?;
    if let Some(port) = etcd_port {
        let etcd_api = EtcdApi {
            authority: keys.etcd.clone(),
            serving: issue_and_renew(&keys.etcd, etcd_api::serving_profile(&name), &shutdown)?,
            dir: paths.tls(),
            port,
            cluster_id: keys.cluster_id(),
            quota_bytes,
        };
        etcd_api.start(store.clone(), &stopping).await?;
    }
    let resources = served(&config.runtime_config);
    let closed = store.clone();
    let api = ApiServer::start(config, store, stopping.clone()).await.context("the API server cannot be started")?;
    api.stop_is_announced_by(shutdown.clone());
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let (serving_api, stop) = (api.clone(), stopping);
    task::spawn("apiserver", async move { serving_api.serve(listener, stop).await });
    keys.write_kubeconfig(&options.write_kubeconfig, &format!("https://127.0.0.1:{}", options.https_listen_port))?;
    tracing::info!(address = %listen, kubeconfig = %options.write_kubeconfig.display(), "API server is serving");

    let backend = |identity: Identity| -> Arc<dyn Backend> { Arc::new(InProcess { server: api.clone(), identity }) };
    // One informer per kind in the process, whoever reads from it.
    let informers = Informers::new(backend(Identity::master("system:apiserver")), shutdown.clone());
    let client = |identity: Identity, manager: &str| Client::new(backend(identity), informers.clone(), manager);
    manifests::apply_all(&client(Identity::master("system:apiserver"), "cluster"), &settings)
        .await
        .context("the cluster's own objects cannot be applied")?;

    let controllers = controllers::Config {
        cluster_cidr: ipv4(settings.cluster_cidr)?,
        ca_pem: keys.authority.cert_pem().to_owned(),
        reserved_addresses: addresses,
        token_signer: Arc::new(LegacyTokens(api.clone())),
        resources,
    };
    let signer = Arc::new(AuthoritySigner(keys.authority.clone()));
    let controller = |name: &str| {
        // Upstream's tokens controller acts before there are ServiceAccounts, as the controller manager itself.
        let identity = match name {
            "tokens-controller" => Identity::user("system:kube-controller-manager", [""; 0]),
            name => Identity::service_account("kube-system", name),
        };
        let manager = if name == "clusterrole-aggregation-controller" { name } else { "kube-controller-manager" };
        client(identity, manager)
    };
    controllers::start(controllers, controller, signer, &shutdown);
    let (scheduler, stop) =
        (client(Identity::user("system:kube-scheduler", [""; 0]), "kube-scheduler"), shutdown.clone());
    task::restarting("scheduler", shutdown.clone(), move || scheduler::run(scheduler.clone(), stop.clone()));

    let saver =
        Saver { store: closed.clone(), paths: paths.clone(), cluster: keys.authority.hash(), server: name.clone() };
    if options.disable_agent {
        let client = client(Identity::master("system:apiserver"), "cluster");
        control::start(paths.control_socket(), Answering { client, node: None, saver: Some(saver) }, &shutdown);
    } else {
        let profile = Profile::server(&format!("system:node:{name}"), vec![name.clone()], vec![ip]);
        let config = NodeConfig {
            ip,
            paths,
            options: options.node,
            settings,
            ca_pem: keys.authority.cert_pem().to_owned(),
            serving: issue_and_renew(&keys.authority, profile, &shutdown)?,
            name: name.clone(),
            saver: Some(saver),
        };
        let of_cluster = client(Identity::master("system:apiserver"), "cluster");
        task::spawn("role", label_control_plane(of_cluster, name.clone(), shutdown.clone()));
        node::start(config, client(Identity::node(&name), "kubelet"), &shutdown).await?;
    }
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        // Nothing is acknowledged any more. The next start reads what is on disk; pods go on meanwhile.
        () = closed.closed() => Err(anyhow::anyhow!("the store has stopped: its disk failed; the log above says how")),
    }
}

/// Tokens for Secrets, signed with the API server's key.
struct LegacyTokens(ApiServer);

impl controllers::TokenSigner for LegacyTokens {
    fn sign(&self, namespace: &str, account: &str, account_uid: &str, secret: &str) -> Result<String, String> {
        self.0.legacy_token(namespace, account, account_uid, secret)
    }
}

/// A node may not give itself a role; the control plane does, when the node has registered.
async fn label_control_plane(client: Client, name: String, shutdown: Shutdown) {
    const ROLE: &str = "node-role.kubernetes.io/control-plane";
    let nodes = client.informer::<Node>(Scope::all());
    let mut changes = nodes.subscribe();
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => return,
            change = changes.next() => change,
        };
        let lacks = |node: &Node| !node.metadata.labels.iter().flatten().any(|(key, _)| key == ROLE);
        if change.key.name == name && change.new.as_deref().is_some_and(lacks) {
            let patch = Patch::Merge(json!({"metadata": {"labels": {ROLE: "true"}}}));
            if let Err(failure) = client.patch::<Node>("", &name, patch).await {
                tracing::warn!(node = name, %failure, "the node has no role label");
            }
        }
    }
}

/// A certificate for this process, replaced in time for as long as it runs.
fn issue_and_renew(authority: &Arc<Authority>, profile: Profile, shutdown: &Shutdown) -> anyhow::Result<Live> {
    let live = Live::new(&authority.issue(&profile)?)?;
    let (authority, renewed, shutdown) = (authority.clone(), live.clone(), shutdown.clone());
    task::spawn("renew", async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(renewed.due_in()) => {}
            }
            match authority.issue(&profile).and_then(|issued| renewed.replace(&issued)) {
                Ok(()) => tracing::info!(name = profile.common_name, "certificate renewed"),
                Err(error) => {
                    tracing::error!(name = profile.common_name, %error, "certificate not renewed");
                    return;
                }
            }
        }
    });
    Ok(live)
}

/// What the API server shows to others; each is replaced in time.
struct Certificates {
    serving: Live,
    to_kubelets: Live,
    to_aggregated: Live,
}

fn apiserver_config(
    keys: &Keys,
    certificates: Certificates,
    settings: &ClusterSettings,
    advertise: IpAddr,
    options: &ServerOptions,
    node_ports: std::ops::RangeInclusive<u16>,
) -> anyhow::Result<apiserver::Config> {
    let ca_pem = keys.authority.cert_pem();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let roots = Arc::new(roots);
    let bootstrap = Identity::user(
        "system:bootstrap:node",
        ["system:bootstrappers", "system:bootstrappers:cluster:default-node-token"],
    );
    let join_tokens = [keys.token.to_string(), keys.token.secret.clone()];
    Ok(apiserver::Config {
        advertise_address: advertise,
        advertise_port: options.https_listen_port,
        service_cluster_ip_ranges: vec![settings.service_cidr],
        service_node_port_range: node_ports,
        service_accounts: ServiceAccountOptions::new(format!(
            "https://kubernetes.default.svc.{}",
            settings.cluster_domain
        )),
        service_account_signing_key_pem: keys.service_account_key.clone(),
        serving_certificate: Arc::new(certificates.serving),
        client_authorities: roots.clone(),
        authorities_pem: ca_pem.to_owned(),
        kubelet_client: KubeletClient { certificate: Arc::new(certificates.to_kubelets), authorities: roots },
        bearer_tokens: join_tokens
            .into_iter()
            .map(|token| BearerToken { token, identity: bootstrap.clone() })
            .collect(),
        authentication: AuthenticationOptions::default(),
        admission: AdmissionOptions::default(),
        aggregation: AggregationOptions {
            client_certificate: Arc::new(certificates.to_aggregated),
            authorities_pem: keys.front_proxy.cert_pem().to_owned(),
            allowed_names: vec![FRONT_PROXY.to_owned()],
            files: ProxyClientFiles::default(),
        },
        authorization: AuthorizationOptions::default(),
        git_version: GIT_VERSION.to_owned(),
        limits: Limits::default(),
        runtime_config: RuntimeConfig::default(),
        protection: ProtectionOptions::default(),
    })
}

/// What the namespace controller and the garbage collector look after.
fn served(runtime_config: &RuntimeConfig) -> Vec<Served> {
    api::rows()
        .iter()
        .filter(|row| runtime_config.serves(row) && row.stored && row.resource == row.storage)
        .filter(|row| [Verb::List, Verb::Watch, Verb::Delete].iter().all(|verb| row.has_verb(*verb)))
        .map(|row| Served { resource: row.resource.clone(), kind: row.kind.clone(), namespaced: row.namespaced })
        .collect()
}

fn ipv4(net: IpNet) -> anyhow::Result<ipnet::Ipv4Net> {
    match net {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(_) => anyhow::bail!("--cluster-cidr must be an IPv4 network so far"),
    }
}

fn node_ports(range: &str) -> anyhow::Result<std::ops::RangeInclusive<u16>> {
    let parsed = range.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    parsed
        .filter(|range: &std::ops::RangeInclusive<u16>| !range.is_empty() && *range.start() > 0)
        .with_context(|| format!("--service-node-port-range: {range:?} is no range such as 30000-32767"))
}
