//! How a machine becomes a node: it checks that it talks to the right cluster, asks for certificates with the join token,
//! and renews them with the certificates themselves from then on.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Client, Informers, Remote, RemoteConfig, Scope};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pki::{Issued, KeyAndRequest, Live, Profile, Token};
use task::Shutdown;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// How long a server may take to sign. It may have to come up first.
const SIGNING_MAX: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const RENEW_RETRY_PAUSE: Duration = Duration::from_secs(600);

/// What a node shows and trusts.
pub struct Credentials {
    pub ca_pem: String,
    /// The node's certificate as a client of the API server.
    pub client: Live,
    /// The kubelet's serving certificate.
    pub serving: Live,
}

/// Who joins what.
#[derive(Clone)]
pub struct Joining {
    pub servers: Vec<String>,
    pub token: Option<Token>,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Where the certificates are kept.
    pub dir: PathBuf,
}

/// The credentials of this node: those that it has, or new ones. They are renewed until `shutdown`.
pub async fn join(joining: Joining, shutdown: &Shutdown) -> anyhow::Result<Credentials> {
    let ca_pem = joining.authority(shutdown).await?;
    let client = match load(&joining.dir, "client")? {
        Some(live) => live,
        None => joining.first_client_certificate(&ca_pem).await?,
    };
    let as_node = joining.api(&ca_pem, Some(&client), None, shutdown)?;
    let serving = match load(&joining.dir, "serving")? {
        Some(live) => live,
        None => {
            let issued = joining.request(&as_node, SERVING_SIGNER).await?;
            save(&joining.dir, "serving", &issued)?;
            Live::new(&issued)?
        }
    };
    for (name, signer, live) in [("client", CLIENT_SIGNER, &client), ("serving", SERVING_SIGNER, &serving)] {
        let (joining, api, live, shutdown) = (joining.clone(), as_node.clone(), live.clone(), shutdown.clone());
        task::spawn("renew", async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(live.due_in()) => {}
                }
                let renewed = match joining.request(&api, signer).await {
                    Ok(issued) => save(&joining.dir, name, &issued).and_then(|()| Ok(live.replace(&issued)?)),
                    Err(error) => Err(error),
                };
                match renewed {
                    Ok(()) => tracing::info!(name, "certificate renewed"),
                    Err(error) => {
                        tracing::warn!(
                            name,
                            error = format!("{error:#}"),
                            "certificate not renewed; it is tried again"
                        );
                        tokio::time::sleep(RENEW_RETRY_PAUSE).await;
                    }
                }
            }
        });
    }
    Ok(Credentials { ca_pem, client, serving })
}

impl Joining {
    /// The cluster's CA bundle: known from before, or fetched and checked against the token.
    async fn authority(&self, shutdown: &Shutdown) -> anyhow::Result<String> {
        let path = self.dir.join("ca.crt");
        if let Some(known) = pki::read_secret(&path)? {
            if let Some(token) = &self.token {
                token.check_authority(known.as_bytes()).context("this machine has joined another cluster before")?;
            }
            return Ok(known);
        }
        let token = self.token.as_ref().context(
            "a token is needed to join: `cluster token` on the server prints it; pass it with --token or --token-file",
        )?;
        if token.ca_hash.is_none() {
            tracing::warn!("the token names no CA: whatever answers at the server's address is trusted");
        }
        let mut said = false;
        loop {
            for server in &self.servers {
                match client::fetch_unverified(server, "/cacerts").await {
                    Ok(bundle) => {
                        token.check_authority(&bundle)?;
                        let text = String::from_utf8(bundle.into()).context("the server's CA bundle is not text")?;
                        pki::write_public(&path, &text)?;
                        return Ok(text);
                    }
                    Err(error @ (client::RemoteError::BadAddress(_) | client::RemoteError::NoServers)) => bail!(error),
                    Err(error) if !said => tracing::warn!(%error, "the server cannot be reached; trying until it can"),
                    Err(_) => {}
                }
            }
            said = true;
            tokio::select! {
                () = shutdown.cancelled() => bail!("stopped before a server answered"),
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    async fn first_client_certificate(&self, ca_pem: &str) -> anyhow::Result<Live> {
        let token = self.token.as_ref().context(
            "the node's certificate is missing or has expired: join again with the token that `cluster token` on the \
             server prints",
        )?;
        let shutdown = Shutdown::new();
        let _stop = shutdown.clone().drop_guard();
        let api = self.api(ca_pem, None, Some(token), &shutdown)?;
        let issued = self.request(&api, CLIENT_SIGNER).await?;
        save(&self.dir, "client", &issued)?;
        Ok(Live::new(&issued)?)
    }

    fn api(
        &self,
        ca_pem: &str,
        certificate: Option<&Live>,
        token: Option<&Token>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Client> {
        let remote = remote(&self.servers, ca_pem, certificate, token)?;
        Ok(Client::new(remote.clone(), Informers::new(remote, shutdown.clone()), "cluster-agent"))
    }

    /// Has a certificate for a new key signed, and waits for it.
    async fn request(&self, api: &Client, signer: &str) -> anyhow::Result<Issued> {
        let serving = signer == SERVING_SIGNER;
        let mut profile = Profile::client(&format!("system:node:{}", self.node_name), &["system:nodes"]);
        if serving {
            profile.dns_names = vec![self.node_name.clone()];
            profile.addresses = vec![self.node_ip];
        }
        let wanted = KeyAndRequest::new(&profile)?;
        let usages = ["digital signature", "key encipherment", if serving { "server auth" } else { "client auth" }];
        let request = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(wanted.request_pem.into_bytes()),
                signer_name: signer.to_owned(),
                usages: Some(usages.map(str::to_owned).to_vec()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let created = match api.create(&request).await {
            Ok(created) => created,
            Err(failure) if failure.code == 401 => {
                bail!("the server refused the token: it is not this cluster's; `cluster token` on the server prints it")
            }
            Err(failure) => bail!("the server refused to sign a certificate: {failure}"),
        };
        let name = created.metadata.name.unwrap_or_default();
        let informer = api.informer::<CertificateSigningRequest>(Scope::fields(format!("metadata.name={name}")));
        let mut changes = informer.subscribe();
        let signed = async {
            loop {
                let Some(request) = changes.next().await.new else { continue };
                let Some(status) = &request.status else { continue };
                if let Some(condition) =
                    status.conditions.iter().flatten().find(|one| one.type_ == "Denied" || one.type_ == "Failed")
                {
                    let why = condition.message.clone().unwrap_or_default();
                    bail!("the certificate request {name} was refused: {why}");
                }
                if let Some(certificate) = status.certificate.as_ref().filter(|pem| !pem.0.is_empty()) {
                    return Ok(String::from_utf8(certificate.0.clone())?);
                }
            }
        };
        let cert_pem = tokio::time::timeout(SIGNING_MAX, signed).await.unwrap_or_else(|_| {
            bail!(
                "the certificate request was not approved within {} s: a node named {:?} may be in the cluster \
                 already (choose another name with --node-name), or approve it with \
                 `kubectl certificate approve {name}`",
                SIGNING_MAX.as_secs(),
                self.node_name
            )
        })?;
        Ok(Issued { cert_pem, key_pem: wanted.key_pem })
    }
}

/// The servers, as somebody with a certificate or a token sees them.
pub fn remote(
    servers: &[String],
    ca_pem: &str,
    certificate: Option<&Live>,
    token: Option<&Token>,
) -> anyhow::Result<Arc<Remote>> {
    let certificate = certificate.map(|live| Arc::new(live.clone()) as Arc<dyn rustls::client::ResolvesClientCert>);
    Ok(Arc::new(Remote::new(RemoteConfig {
        servers: servers.to_vec(),
        ca_pem: ca_pem.as_bytes().to_vec(),
        certificate,
        token: token.map(ToString::to_string),
        user_agent: format!("cluster/{}", env!("CARGO_PKG_VERSION")),
    })?))
}

/// A certificate from before, unless it is missing or has expired.
fn load(dir: &Path, name: &str) -> anyhow::Result<Option<Live>> {
    let cert = pki::read_secret(&dir.join(format!("{name}.crt")))?;
    let key = pki::read_secret(&dir.join(format!("{name}.key")))?;
    let (Some(cert_pem), Some(key_pem)) = (cert, key) else { return Ok(None) };
    // A crash between the two files leaves a pair that does not fit; it is as good as missing.
    Ok(Live::new(&Issued { cert_pem, key_pem }).ok().filter(Live::is_valid))
}

fn save(dir: &Path, name: &str, issued: &Issued) -> anyhow::Result<()> {
    pki::write_secret(&dir.join(format!("{name}.key")), &issued.key_pem)?;
    pki::write_public(&dir.join(format!("{name}.crt")), &issued.cert_pem)?;
    Ok(())
}
