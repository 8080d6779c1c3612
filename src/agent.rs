//! Starts a node that joins a server.

use anyhow::Context;
use client::{Client, Informers};
use task::Shutdown;

use crate::instance::Instance;
use crate::join::{self, Joining};
use crate::node::{self, NodeConfig};
use crate::options::AgentOptions;
use crate::preflight::{self, Wanted};
use crate::settings::ClusterSettings;

/// Runs until `shutdown`.
pub async fn run(options: AgentOptions, shutdown: Shutdown) -> anyhow::Result<()> {
    preflight::check(Wanted { api: None, etcd: None, node: true }).map_err(|lacks| anyhow::anyhow!("{lacks}"))?;
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?)
        }
        (None, None) => None,
    };
    let token = token.map(|text| pki::Token::parse(&text)).transpose()?;
    let paths = options.common.paths.absolute()?;
    let name = node::name(&options.node)?;
    let ip = network::node_address(options.node.node_ip).await?;
    let _instance = Instance::take(&paths)?;

    let joining = Joining {
        servers: options.server.clone(),
        token,
        node_name: name.clone(),
        node_ip: ip,
        dir: paths.agent().join("tls"),
    };
    let credentials = join::join(joining, &shutdown).await?;
    tracing::info!(node = name, "joined");
    let remote = join::remote(&options.server, &credentials.ca_pem, Some(&credentials.client), None)?;
    let client = Client::new(remote.clone(), Informers::new(remote, shutdown.clone()), "kubelet");
    let settings = ClusterSettings::fetch(&client, &paths.agent().join("settings.json")).await?;
    let config = NodeConfig {
        name,
        ip,
        paths,
        options: options.node,
        settings,
        ca_pem: credentials.ca_pem,
        serving: credentials.serving,
        saver: None,
    };
    node::start(config, client, &shutdown).await?;
    shutdown.cancelled().await;
    Ok(())
}
