//! The command line: what can be asked for, and where each value comes from.
//!
//! A flag beats its environment variable `CLUSTER_<FLAG>`, which beats the configuration file (see `config_file`), which
//! beats the default. Flags that k3s has too have the same name and meaning.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

pub const DEFAULT_DATA_DIR: &str = "/var/lib/cluster";
pub const DEFAULT_CONFIG_FILE: &str = "/etc/cluster/config.yaml";

/// A whole Kubernetes cluster in one executable.
#[derive(Debug, Parser)]
#[command(
    name = "cluster",
    version,
    about,
    args_override_self = true,
    after_help = "\
Examples:
  cluster server                                      a control plane and a node on this machine
  cluster agent --server https://10.0.0.1:6443 --token K10…   one more node
  cluster image import nginx.tar                      an image from a file, without a registry

Every flag can also stand in /etc/cluster/config.yaml (`node-name: shed`) or in the environment (CLUSTER_NODE_NAME=shed)."
)]
pub struct Command {
    #[command(subcommand)]
    pub face: Face,
}

#[derive(Debug, Subcommand)]
pub enum Face {
    /// Run the control plane and, unless told otherwise, a node
    Server(Box<ServerOptions>),
    /// Run a node that joins a server
    Agent(Box<AgentOptions>),
    /// Look after the images on this node
    Image(ImageOptions),
    /// Remove everything that cluster put on this machine
    Uninstall(UninstallOptions),
    /// Print the token with which a node joins
    Token(TokenOptions),
    /// Save the cluster to a file, and make it anew from one
    Snapshot(SnapshotOptions),
    /// Say whether the node on this machine is Ready, or the API server of one without a node
    Status(StatusOptions),
}

/// Where things are; every other path follows from these.
#[derive(Args, Clone, Debug)]
pub struct PathOptions {
    /// Directory for state that is kept
    #[arg(long, short = 'd', env = "CLUSTER_DATA_DIR", default_value = DEFAULT_DATA_DIR, global = true, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Directory for sockets and run-time files
    #[arg(long, env = "CLUSTER_RUN_DIR", default_value = "/run/cluster", global = true, value_name = "DIR")]
    pub run_dir: PathBuf,
}

/// Where further flags are; `config_file` reads them before anything else is done.
#[derive(Args, Clone, Debug)]
pub struct ConfigOptions {
    /// Configuration file; the files in <FILE>.d are read after it
    #[arg(long, short = 'c', env = "CLUSTER_CONFIG", default_value = DEFAULT_CONFIG_FILE, global = true, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub struct CommonOptions {
    #[command(flatten)]
    pub config: ConfigOptions,

    #[command(flatten)]
    pub paths: PathOptions,

    /// Log more: what each part does and why
    #[arg(long, env = "CLUSTER_DEBUG")]
    pub debug: bool,

    /// Write the log to this file instead of standard error
    #[arg(long, short = 'l', env = "CLUSTER_LOG", value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// What makes a node.
#[derive(Args, Clone, Debug)]
pub struct NodeOptions {
    /// Name of this node; the host's name by default
    #[arg(long, env = "CLUSTER_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Address of this node; the one that the default route uses by default
    #[arg(long, short = 'i', env = "CLUSTER_NODE_IP", value_name = "IP")]
    pub node_ip: Option<IpAddr>,

    /// Label to register the node with, may be repeated
    #[arg(long, env = "CLUSTER_NODE_LABEL", value_delimiter = ',', value_name = "KEY=VALUE")]
    pub node_label: Vec<String>,

    /// Taint to register the node with, may be repeated
    #[arg(long, env = "CLUSTER_NODE_TAINT", value_delimiter = ',', value_name = "KEY=VALUE:EFFECT")]
    pub node_taint: Vec<String>,

    /// Where the registries' mirrors and credentials are configured
    #[arg(long, env = "CLUSTER_PRIVATE_REGISTRY", default_value = "/etc/cluster/registries.yaml", value_name = "FILE")]
    pub private_registry: PathBuf,

    /// Name servers for names outside the cluster, in the form of resolv.conf(5)
    #[arg(long, env = "CLUSTER_RESOLV_CONF", default_value = "/etc/resolv.conf", value_name = "FILE")]
    pub resolv_conf: PathBuf,

    /// Pods that this node runs at most
    #[arg(long, env = "CLUSTER_MAX_PODS", default_value_t = 110, value_name = "COUNT")]
    pub max_pods: u32,
}

#[derive(Args, Clone, Debug)]
pub struct ServerOptions {
    #[command(flatten)]
    pub common: CommonOptions,

    #[command(flatten)]
    pub node: NodeOptions,

    /// Secret with which nodes join; made up and kept at the first start by default
    #[arg(long, short = 't', env = "CLUSTER_TOKEN", value_name = "SECRET", hide_env_values = true)]
    pub token: Option<String>,

    /// Address that the API server listens on
    #[arg(long, env = "CLUSTER_BIND_ADDRESS", default_value = "0.0.0.0", value_name = "IP")]
    pub bind_address: IpAddr,

    /// Address under which other machines reach the API server; the node's by default
    #[arg(long, env = "CLUSTER_ADVERTISE_ADDRESS", value_name = "IP")]
    pub advertise_address: Option<IpAddr>,

    /// Port of the API server
    #[arg(long, env = "CLUSTER_HTTPS_LISTEN_PORT", default_value_t = 6443, value_name = "PORT")]
    pub https_listen_port: u16,

    /// Port of the etcd API on the loopback address; 0 serves none
    #[arg(long, env = "CLUSTER_ETCD_LISTEN_PORT", default_value_t = 2379, value_name = "PORT")]
    pub etcd_listen_port: u16,

    /// Further name or address for the API server's certificate, may be repeated
    #[arg(long, env = "CLUSTER_TLS_SAN", value_delimiter = ',', value_name = "NAME")]
    pub tls_san: Vec<String>,

    /// Network of the pods
    #[arg(long, env = "CLUSTER_CLUSTER_CIDR", default_value = "10.42.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: String,

    /// Network of the Services
    #[arg(long, env = "CLUSTER_SERVICE_CIDR", default_value = "10.43.0.0/16", value_name = "CIDR")]
    pub service_cidr: String,

    /// Ports that Services of type NodePort get
    #[arg(long, env = "CLUSTER_SERVICE_NODE_PORT_RANGE", default_value = "30000-32767", value_name = "FIRST-LAST")]
    pub service_node_port_range: String,

    /// Address of the cluster's name server; the tenth of the Services' network by default
    #[arg(long, env = "CLUSTER_CLUSTER_DNS", value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,

    /// Domain of the cluster's names
    #[arg(long, env = "CLUSTER_CLUSTER_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,

    /// Flag of kube-apiserver such as oidc-issuer-url=https://id.example.com, may be repeated
    #[arg(long, env = "CLUSTER_KUBE_APISERVER_ARG", value_name = "FLAG=VALUE")]
    pub kube_apiserver_arg: Vec<String>,

    /// Run the control plane only, no node
    #[arg(long, env = "CLUSTER_DISABLE_AGENT")]
    pub disable_agent: bool,

    /// Where the administrator's kubeconfig is written
    #[arg(
        long,
        short = 'o',
        env = "CLUSTER_WRITE_KUBECONFIG",
        default_value = "/etc/cluster/kubeconfig.yaml",
        value_name = "FILE"
    )]
    pub write_kubeconfig: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub struct AgentOptions {
    #[command(flatten)]
    pub common: CommonOptions,

    #[command(flatten)]
    pub node: NodeOptions,

    /// Server to join, such as https://10.0.0.1:6443; may be repeated
    #[arg(long, short = 's', env = "CLUSTER_SERVER", value_delimiter = ',', required = true, value_name = "URL")]
    pub server: Vec<String>,

    /// Token of the cluster: `cluster token` on the server prints it
    #[arg(long, short = 't', env = "CLUSTER_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// File that holds the token
    #[arg(long, env = "CLUSTER_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct ImageOptions {
    #[command(flatten)]
    pub config: ConfigOptions,

    #[command(flatten)]
    pub paths: PathOptions,

    #[command(subcommand)]
    pub action: ImageAction,
}

#[derive(Debug, Subcommand)]
pub enum ImageAction {
    /// Import images from tar files as `docker save` or OCI tools write them, plain or compressed
    #[command(after_help = "Example:\n  cluster image import nginx.tar busybox.tar.zst")]
    Import {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the images on this node
    List,
    /// Pull an image from its registry
    #[command(after_help = "Example:\n  cluster image pull docker.io/library/nginx:1.29")]
    Pull { image: String },
    /// Remove images
    Remove {
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Args, Debug)]
pub struct UninstallOptions {
    #[command(flatten)]
    pub config: ConfigOptions,

    #[command(flatten)]
    pub paths: PathOptions,

    /// Leave the data directory and the configuration
    #[arg(long)]
    pub keep_data: bool,
}

#[derive(Args, Debug)]
pub struct TokenOptions {
    #[command(flatten)]
    pub config: ConfigOptions,

    #[command(flatten)]
    pub paths: PathOptions,
}

#[derive(Args, Debug)]
pub struct SnapshotOptions {
    #[command(flatten)]
    pub config: ConfigOptions,

    #[command(flatten)]
    pub paths: PathOptions,

    #[command(subcommand)]
    pub action: SnapshotAction,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotAction {
    /// Save the cluster that runs here, with its keys, to a file sealed with a passphrase
    #[command(after_help = "\
Examples:
  cluster snapshot save --passphrase-file /root/passphrase
  CLUSTER_SNAPSHOT_PASSPHRASE=… cluster snapshot save /mnt/usb/shed.clusterbackup")]
    Save {
        /// File to write; one in the folder of snapshots, named after this host and the time, by default
        file: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseOptions,
        #[command(flatten)]
        folder: FolderOptions,
    },
    /// List the snapshots in the folder
    List {
        #[command(flatten)]
        folder: FolderOptions,
    },
    /// Make this machine the server of a cluster that was saved; nothing may have run here before
    #[command(
        after_help = "Example:\n  cluster snapshot restore shed.clusterbackup --passphrase-file /root/passphrase"
    )]
    Restore {
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseOptions,
    },
    /// Remove old snapshots of this cluster from the folder
    #[command(after_help = "Example:\n  cluster snapshot prune --etcd-snapshot-retention 3")]
    Prune {
        /// Snapshots that are kept
        #[arg(long, env = "CLUSTER_ETCD_SNAPSHOT_RETENTION", default_value_t = 5, value_name = "COUNT")]
        etcd_snapshot_retention: usize,
        #[command(flatten)]
        folder: FolderOptions,
    },
}

#[derive(Args, Clone, Debug)]
pub struct PassphraseOptions {
    /// File whose first line is the passphrase; without it, CLUSTER_SNAPSHOT_PASSPHRASE of the environment is
    #[arg(long, env = "CLUSTER_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub struct FolderOptions {
    /// Folder of the snapshots; server/snapshots in the data directory by default
    #[arg(long, env = "CLUSTER_ETCD_SNAPSHOT_DIR", value_name = "DIR")]
    pub etcd_snapshot_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct StatusOptions {
    #[command(flatten)]
    pub config: ConfigOptions,

    #[command(flatten)]
    pub paths: PathOptions,
}

impl PathOptions {
    pub fn server(&self) -> PathBuf {
        self.data_dir.join("server")
    }

    /// The store's directory.
    pub fn db(&self) -> PathBuf {
        self.server().join("db")
    }

    pub fn tls(&self) -> PathBuf {
        self.server().join("tls")
    }

    pub fn agent(&self) -> PathBuf {
        self.data_dir.join("agent")
    }

    /// The runtime's CRI socket.
    pub fn cri_socket(&self) -> PathBuf {
        self.run_dir.join("runtime.sock")
    }

    /// The socket for `cluster image` and `cluster status`.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// Both directories absolute, so that they mean the same to the shims that outlive us.
    pub fn absolute(&self) -> std::io::Result<PathOptions> {
        let absolute = |path: &Path| std::path::absolute(path);
        Ok(PathOptions { data_dir: absolute(&self.data_dir)?, run_dir: absolute(&self.run_dir)? })
    }
}
