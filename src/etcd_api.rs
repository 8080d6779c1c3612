//! The etcd API of this server, on loopback, for `etcdctl` and other programs made for etcd. Whoever shows a certificate
//! of its own authority may do anything to the cluster, so the one for people is root's alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use pki::{Authority, Issued, Live, Profile};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use store::Store;
use task::Shutdown;
use tokio::net::TcpListener;

/// Certificate and key for `etcdctl`, beside the authority's.
const CLIENT: &str = "etcd-client";

/// What the API is served with.
pub struct EtcdApi {
    pub authority: Arc<Authority>,
    pub serving: Live,
    /// Where the client's certificate is kept.
    pub dir: PathBuf,
    pub port: u16,
    pub cluster_id: u64,
    pub quota_bytes: u64,
}

/// Where it listens.
pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// What its own certificate says.
pub fn serving_profile(node: &str) -> Profile {
    let addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    Profile::server("etcd-server", vec!["localhost".to_owned(), node.to_owned()], addresses)
}

impl EtcdApi {
    /// Starts serving, until `shutdown`.
    pub async fn start(self, store: Store, shutdown: &Shutdown) -> anyhow::Result<()> {
        let address = address(self.port);
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let tls = Arc::new(self.tls()?);
        let about = etcd::About {
            cluster_id: self.cluster_id,
            client_url: format!("https://{address}"),
            quota_bytes: self.quota_bytes,
        };
        let stop = shutdown.clone();
        task::spawn("etcd", async move {
            if let Err(error) = etcd::serve(listener, tls, store, about, stop).await {
                tracing::error!(%error, "the etcd API has ended");
            }
        });
        let stop = shutdown.clone();
        task::spawn("renew", async move {
            tokio::select! {
                () = self.keep_client() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }

    fn tls(&self) -> anyhow::Result<rustls::ServerConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.cert_pem().as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(self.serving.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// Keeps the client's certificate fresh for as long as this runs.
    async fn keep_client(&self) {
        loop {
            let live = match self.fresh_client() {
                Ok(live) => live,
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "there is no certificate for etcdctl");
                    return;
                }
            };
            tokio::time::sleep(live.due_in()).await;
        }
    }

    fn fresh_client(&self) -> anyhow::Result<Live> {
        let (certificate, key) = (self.dir.join(format!("{CLIENT}.crt")), self.dir.join(format!("{CLIENT}.key")));
        if let (Some(cert_pem), Some(key_pem)) = (pki::read_secret(&certificate)?, pki::read_secret(&key)?)
            && let Ok(live) = Live::new(&Issued { cert_pem, key_pem })
            && !live.is_due()
        {
            return Ok(live);
        }
        let issued = self.authority.issue(&Profile::client("root", &[]))?;
        pki::write_secret(&key, &issued.key_pem)?;
        pki::write_public(&certificate, &issued.cert_pem)?;
        Ok(Live::new(&issued)?)
    }
}
