//! An API server alone, for trying clients on it: `serve DIRECTORY ADDRESS:PORT [FLAG=VALUE]...`, with flags of
//! kube-apiserver. It keeps its store in the directory and writes `admin.kubeconfig` there. Meant for a network namespace of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use apiserver::{
    AdmissionOptions, AggregationOptions, ApiServer, AuthenticationOptions, AuthorizationOptions, Config,
    KubeletClient, Limits, ProtectionOptions, ProxyClientFiles, RuntimeConfig, ServiceAccountOptions,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::{Authority, Issued, Live, Profile};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use task::Shutdown;
use tokio::signal::unix::{SignalKind, signal};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve DIRECTORY ADDRESS:PORT [FLAG=VALUE]...".into());
    };
    let (directory, address): (&Path, SocketAddr) = (Path::new(&directory), address.parse()?);
    let shutdown = Shutdown::new();
    let authority = Authority::load_or_create(directory, "ca", "example")?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    let mut config = config(&authority, address)?;
    let flags: Vec<String> = arguments.collect();
    config.apply_flags(flags.iter().map(String::as_str))?;
    let stopping = task::delayed(&shutdown, config.protection.shutdown_delay);
    let store = store::Store::open(store::Config::new(directory.join("db"), "example"), stopping.clone()).await?;
    let server = ApiServer::start(config, store, stopping.clone()).await?;
    server.stop_is_announced_by(shutdown.clone());
    let admin = authority.issue(&Profile::client("admin", &["system:masters"]))?;
    std::fs::write(directory.join("admin.kubeconfig"), kubeconfig(&authority, &admin, address))?;
    let told = shutdown.clone();
    task::spawn("signal", async move {
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            terminate.recv().await;
            told.cancel();
        }
    });
    server.serve(listener, stopping).await;
    Ok(())
}

fn config(authority: &Authority, address: SocketAddr) -> Result<Config, Failed> {
    let names = vec!["kubernetes.default.svc".to_owned()];
    let serving = Live::new(&authority.issue(&Profile::server("apiserver", names, vec![address.ip()]))?)?;
    let client = authority.issue(&Profile::client("kube-apiserver-kubelet-client", &[]))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes())?)?;
    let roots = Arc::new(roots);
    let front_proxy = Authority::create("front-proxy")?;
    let proxy_client = front_proxy.issue(&Profile::client("front-proxy-client", &[]))?;
    Ok(Config {
        advertise_address: address.ip(),
        advertise_port: address.port(),
        service_cluster_ip_ranges: vec!["10.43.0.0/16".parse()?],
        service_node_port_range: 30000..=32767,
        service_accounts: ServiceAccountOptions::new("https://kubernetes.default.svc.cluster.local"),
        service_account_signing_key_pem: pki::new_signing_key()?,
        serving_certificate: Arc::new(serving),
        client_authorities: roots.clone(),
        authorities_pem: authority.cert_pem().to_owned(),
        kubelet_client: KubeletClient { certificate: Arc::new(Live::new(&client)?), authorities: roots },
        bearer_tokens: Vec::new(),
        authentication: AuthenticationOptions::default(),
        admission: AdmissionOptions::default(),
        aggregation: AggregationOptions {
            client_certificate: Arc::new(Live::new(&proxy_client)?),
            authorities_pem: front_proxy.cert_pem().to_owned(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            files: ProxyClientFiles::default(),
        },
        authorization: AuthorizationOptions::default(),
        git_version: "v1.36.2+cluster".to_owned(),
        limits: Limits::default(),
        runtime_config: RuntimeConfig::default(),
        protection: ProtectionOptions::default(),
    })
}

fn kubeconfig(authority: &Authority, admin: &Issued, address: SocketAddr) -> String {
    let data = |pem: &str| STANDARD.encode(pem);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
         clusters: [{{name: it, cluster: {{server: 'https://{address}', certificate-authority-data: {}}}}}]\n\
         users: [{{name: it, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
         contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n",
        data(authority.cert_pem()),
        data(&admin.cert_pem),
        data(&admin.key_pem),
    )
}
