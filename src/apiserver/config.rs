//! What the API server is told when it starts.

mod admission;
mod aggregation;
mod authentication;
mod authorization;
mod protection;
mod runtime;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::client::ResolvesClientCert;
use rustls::server::ResolvesServerCert;

pub use admission::{
    AdmissionOptions, EventLimit, EventLimitKind, ImagePolicy, Labels, LimitedResource, NodeSelectors,
    PodSecurityOptions, Tolerations,
};
pub(crate) use admission::{PLUGINS, node_labels};
pub use aggregation::{AggregationOptions, ProxyClientFiles};
pub use authentication::{
    AuthenticationOptions, OidcOptions, RequestHeaderOptions, ServiceAccountOptions, TokenWebhookOptions,
};
pub use authorization::{AuthorizationMode, AuthorizationOptions};
pub use protection::ProtectionOptions;
pub use runtime::RuntimeConfig;

use crate::identity::Identity;

/// Everything that differs from one cluster to another.
pub struct Config {
    /// Where clients inside the cluster reach this server: the endpoint of the Service `kubernetes`.
    pub advertise_address: IpAddr,
    /// Port of that endpoint.
    pub advertise_port: u16,
    /// Services get their addresses from here, first the first host address for `kubernetes`; one per family.
    pub service_cluster_ip_ranges: Vec<IpNet>,
    pub service_node_port_range: RangeInclusive<u16>,
    pub service_accounts: ServiceAccountOptions,
    /// The private key that signs ServiceAccount tokens: PEM, PKCS#8; RSA (RS256) or ECDSA P-256 (ES256).
    pub service_account_signing_key_pem: String,
    /// The serving certificate, which may change while the server runs.
    pub serving_certificate: Arc<dyn ResolvesServerCert>,
    /// Authorities whose client certificates identify users: common name is the user, organisations the groups.
    pub client_authorities: Arc<RootCertStore>,
    /// What `/cacerts` answers: the authorities that sign serving certificates, PEM.
    pub authorities_pem: String,
    /// How this server shows itself to kubelets.
    pub kubelet_client: KubeletClient,
    /// Bearer tokens that stand for an identity, such as the one with which nodes join.
    pub bearer_tokens: Vec<BearerToken>,
    pub authentication: AuthenticationOptions,
    pub admission: AdmissionOptions,
    pub aggregation: AggregationOptions,
    pub authorization: AuthorizationOptions,
    /// What `/version` says, such as `v1.36.2+cluster1`.
    pub git_version: String,
    pub limits: Limits,
    /// Which groups, versions and resources are served.
    pub runtime_config: RuntimeConfig,
    pub protection: ProtectionOptions,
}

/// A token and who shows it. Compared in constant time.
#[derive(Clone)]
pub struct BearerToken {
    pub token: String,
    pub identity: Identity,
}

/// TLS towards kubelets.
pub struct KubeletClient {
    /// The client certificate, which may change while the server runs.
    pub certificate: Arc<dyn ResolvesClientCert>,
    /// Authorities that sign the kubelets' serving certificates.
    pub authorities: Arc<RootCertStore>,
}

/// Bounds on what clients may make the server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that change something, at the same time (upstream: `--max-mutating-requests-inflight`).
    pub mutating_in_flight_max: usize,
    /// Other requests but watches and streams (upstream: `--max-requests-inflight`).
    pub reading_in_flight_max: usize,
    /// How long a request waits for its turn before its client is told to come again (429). How many wait is a matter
    /// of the priority levels.
    pub wait_max: Duration,
    pub connections_max: usize,
    /// Watches and streams together.
    pub long_running_max: usize,
    pub body_bytes_max: usize,
    /// From the first byte of a request to the end of its body.
    pub body_read_max: Duration,
    /// From the first byte of a request to the end of its headers.
    pub header_read_max: Duration,
    /// How long any request but watches and streams may take (upstream: `--request-timeout`).
    pub request_max: Duration,
    /// How likely an HTTP/2 request is to be the last of its connection (upstream: `--goaway-chance`).
    pub goaway_chance: f64,
    /// Watches without `timeoutSeconds` end after this long, or up to twice this long (`--min-request-timeout`).
    pub watch_min: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            mutating_in_flight_max: 200,
            reading_in_flight_max: 400,
            wait_max: Duration::from_secs(15),
            connections_max: 20_000,
            long_running_max: 20_000,
            body_bytes_max: 3 * 1024 * 1024,
            body_read_max: Duration::from_secs(30),
            header_read_max: Duration::from_secs(30),
            request_max: Duration::from_secs(60),
            goaway_chance: 0.0,
            watch_min: Duration::from_secs(1800),
        }
    }
}
/// The API server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the key that signs ServiceAccount tokens is of no use: {reason}")]
    SigningKey { reason: String },
    #[error("{} is of no use: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("users cannot be read")]
    TokenFile(#[from] crate::authn::TokenFileError),
    #[error("the webhook of {} cannot be called", path.display())]
    Webhook { path: PathBuf, source: crate::webhook::EndpointError },
    #[error("{0}")]
    Flags(&'static str),
    #[error("oidc: {0}")]
    Oidc(String),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("TLS towards others cannot be set up")]
    Trust(#[from] pki::Error),
    #[error("TLS cannot be set up for client certificates")]
    ClientCertificates(#[from] rustls::server::VerifierBuilderError),
    #[error("the store refuses")]
    Store(#[from] store::Error),
    #[error("the system's object {object} cannot be made")]
    Bootstrap { object: String, source: api::Failure },
    #[error("auditing cannot be set up")]
    Audit(#[from] crate::audit::OptionsError),
    #[error("encryption at rest cannot be set up")]
    Encryption(#[from] crate::encryption::StartError),
    #[error("the watch cache cannot be filled")]
    Fill(#[from] crate::cache::FillError),
    #[error("no address range for Services")]
    NoServiceRange,
}
