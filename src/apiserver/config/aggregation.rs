//! Towards aggregated API servers.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;

/// How this server vouches for the users whose requests it passes on.
pub struct AggregationOptions {
    /// What it shows (upstream: `--proxy-client-cert-file`); may change while the server runs.
    pub client_certificate: Arc<dyn ResolvesClientCert>,
    /// Who signed that, PEM (upstream: `--requestheader-client-ca-file`). Not the cluster's own authority: whoever
    /// holds one of its certificates may name any user.
    pub authorities_pem: String,
    /// Common names of such certificates (upstream: `--requestheader-allowed-names`).
    pub allowed_names: Vec<String>,
    /// What it shows instead, if an administrator says so.
    pub files: ProxyClientFiles,
}

/// Upstream: `--proxy-client-cert-file` and `--proxy-client-key-file`, PEM. The certificate is signed by an authority of
/// `--requestheader-client-ca-file`.
#[derive(Clone, Debug, Default)]
pub struct ProxyClientFiles {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}
