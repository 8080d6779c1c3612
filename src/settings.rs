//! What every node of a cluster has to know of it. Servers publish it in the ConfigMap `kube-public/cluster-info`; agents
//! read it there, and keep a copy for when they boot while cut off.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use client::Client;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const KEY: &str = "cluster.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterSettings {
    pub cluster_cidr: IpNet,
    pub service_cidr: IpNet,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
}

impl ClusterSettings {
    /// Checks what the command line says.
    pub fn parse(
        cluster_cidr: &str,
        service_cidr: &str,
        cluster_dns: Option<IpAddr>,
        cluster_domain: &str,
    ) -> anyhow::Result<ClusterSettings> {
        let net = |flag: &str, text: &str| -> anyhow::Result<IpNet> {
            let net: IpNet =
                text.parse().with_context(|| format!("{flag}: {text:?} is no network such as 10.42.0.0/16"))?;
            Ok(net.trunc())
        };
        let cluster_cidr = net("--cluster-cidr", cluster_cidr)?;
        let service_cidr = net("--service-cidr", service_cidr)?;
        if !matches!((cluster_cidr, service_cidr), (IpNet::V4(_), IpNet::V4(_))) {
            bail!("--cluster-cidr and --service-cidr must be IPv4 networks so far");
        }
        if cluster_cidr.contains(&service_cidr) || service_cidr.contains(&cluster_cidr) {
            bail!("--cluster-cidr {cluster_cidr} and --service-cidr {service_cidr} overlap; choose networks apart");
        }
        if cluster_cidr.prefix_len() > 24 {
            bail!("--cluster-cidr {cluster_cidr} is too small: each node gets a /24 of it");
        }
        let cluster_dns = match cluster_dns {
            Some(address) if service_cidr.contains(&address) => address,
            Some(address) => bail!("--cluster-dns {address} is not in --service-cidr {service_cidr}"),
            None => service_cidr.hosts().nth(9).context("--service-cidr is too small for a tenth address")?,
        };
        Ok(ClusterSettings { cluster_cidr, service_cidr, cluster_dns, cluster_domain: cluster_domain.to_owned() })
    }

    /// The first address of the Services' network: the API server's.
    pub fn api_address(&self) -> Option<IpAddr> {
        self.service_cidr.hosts().next()
    }

    /// The settings as the servers publish them; from `copy` when no server can be asked.
    pub async fn fetch(client: &Client, copy: &Path) -> anyhow::Result<ClusterSettings> {
        match client.get::<ConfigMap>(NAMESPACE, NAME).await {
            Ok(map) => {
                let text =
                    map.data.as_ref().and_then(|data| data.get(KEY)).context("the cluster's settings are empty")?;
                let settings = serde_json::from_str(text).context("the cluster's settings are malformed")?;
                pki::write_public(copy, text)?;
                Ok(settings)
            }
            Err(failure) => match pki::read_secret(copy)? {
                Some(text) => {
                    tracing::warn!(%failure, "no server answers; starting with the settings of the last time");
                    Ok(serde_json::from_str(&text)?)
                }
                None => bail!("the cluster's settings cannot be read: {failure}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let parse = |cluster: &str, service: &str, dns: Option<&str>| {
            ClusterSettings::parse(cluster, service, dns.map(|dns| dns.parse().unwrap()), "cluster.local")
        };
        let settings = parse("10.42.0.0/16", "10.43.0.0/16", None).unwrap();
        assert_eq!(settings.cluster_dns.to_string(), "10.43.0.10");
        assert_eq!(settings.api_address().unwrap().to_string(), "10.43.0.1");
        for (cluster, service, dns, flag) in [
            ("10.42", "10.43.0.0/16", None, "--cluster-cidr"),
            ("10.42.0.0/16", "10.42.8.0/24", None, "overlap"),
            ("10.42.0.0/28", "10.43.0.0/16", None, "too small"),
            ("10.42.0.0/16", "10.43.0.0/16", Some("10.44.0.1"), "--cluster-dns"),
        ] {
            let error = format!("{:#}", parse(cluster, service, dns).unwrap_err());
            assert!(error.contains(flag), "{error}");
        }
    }
}
