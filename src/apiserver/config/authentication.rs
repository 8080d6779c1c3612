//! Who are you: what authentication is told. Defaults are upstream's.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::Algorithm;

/// Tokens for ServiceAccounts, and tokens in general.
#[derive(Clone, Debug)]
pub struct ServiceAccountOptions {
    /// The `iss` of tokens, such as `https://kubernetes.default.svc.cluster.local`: the first stands in those that are
    /// made, all are taken. Never empty.
    pub issuers: Vec<String>,
    /// Audiences that tokens for this API server name; all are asked for by default. Empty means the issuers.
    pub api_audiences: Vec<String>,
    /// Where clients of other systems find the keys; by default at this server's address.
    pub jwks_uri: Option<String>,
    /// Files with further keys that verify tokens: PEM, public or private keys or certificates.
    pub key_files: Vec<PathBuf>,
    /// Tokens in Secrets are good only while these are there.
    pub lookup: bool,
    /// Tokens for Pods live a year, with a warning after an hour (upstream: `extend-token-expiration`).
    pub extend_token_expiration: bool,
    /// No token is made for longer than this, whatever is asked for.
    pub token_expiration_max: Option<Duration>,
}

impl ServiceAccountOptions {
    /// Tokens of one issuer, and upstream's defaults.
    pub fn new(issuer: impl Into<String>) -> ServiceAccountOptions {
        ServiceAccountOptions {
            issuers: vec![issuer.into()],
            api_audiences: Vec::new(),
            jwks_uri: None,
            key_files: Vec::new(),
            lookup: true,
            extend_token_expiration: true,
            token_expiration_max: None,
        }
    }
}

/// All other ways to say who one is.
#[derive(Clone, Debug)]
pub struct AuthenticationOptions {
    /// Requests that show nothing are made by `system:anonymous` (else they get 401). They are by default, unless the
    /// configuration file says otherwise.
    pub anonymous: Option<bool>,
    /// An AuthenticationConfiguration. Its issuers may change while the server runs.
    pub config_file: Option<PathBuf>,
    /// Users whom an OpenID Connect issuer knows.
    pub oidc: Option<OidcOptions>,
    /// Files with authorities whose client certificates identify users, beside those of the cluster.
    pub client_ca_file: Option<PathBuf>,
    /// Users by a file of tokens.
    pub token_file: Option<PathBuf>,
    /// Tokens in Secrets of `kube-system` with which nodes join (upstream leaves them out by default, k3s and kubeadm
    /// do not).
    pub bootstrap_tokens: bool,
    /// Users for whom a proxy vouches.
    pub request_header: Option<RequestHeaderOptions>,
    /// Users whom a program knows by their token.
    pub token_webhook: Option<TokenWebhookOptions>,
}

/// A program that answers TokenReviews (upstream: `--authentication-token-webhook-*`).
#[derive(Clone, Debug)]
pub struct TokenWebhookOptions {
    /// A kubeconfig.
    pub config_file: PathBuf,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// How long answers are kept.
    pub cache: Duration,
}

impl Default for TokenWebhookOptions {
    fn default() -> TokenWebhookOptions {
        let cache = Duration::from_secs(120);
        TokenWebhookOptions { config_file: PathBuf::new(), version: "v1beta1".to_owned(), cache }
    }
}

/// An OpenID Connect issuer (upstream: `--oidc-*`).
#[derive(Clone, Debug)]
pub struct OidcOptions {
    pub issuer_url: String,
    pub client_id: String,
    /// Authorities of the issuer's certificate; by default those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    pub username_claim: String,
    /// Empty means the issuer's URL and `#` (but for mail addresses), `-` means none.
    pub username_prefix: String,
    pub groups_claim: String,
    pub groups_prefix: String,
    /// Claims and the values that they must have.
    pub required_claims: Vec<(String, String)>,
    pub signing_algorithms: Vec<Algorithm>,
}

impl Default for OidcOptions {
    fn default() -> OidcOptions {
        OidcOptions {
            issuer_url: String::new(),
            client_id: String::new(),
            ca_file: None,
            username_claim: "sub".to_owned(),
            username_prefix: String::new(),
            groups_claim: String::new(),
            groups_prefix: String::new(),
            required_claims: Vec::new(),
            signing_algorithms: vec![Algorithm::RS256],
        }
    }
}

/// An authenticating proxy: who it may be and in which headers it names users.
#[derive(Clone, Debug)]
pub struct RequestHeaderOptions {
    /// Authorities of the proxy's certificate. They should sign nothing else.
    pub client_ca_file: PathBuf,
    /// Common names of the proxy's certificate; empty means any that those authorities signed.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_headers_prefix: Vec<String>,
}

impl RequestHeaderOptions {
    /// Any name, and no headers yet.
    pub fn new(client_ca_file: impl Into<PathBuf>) -> RequestHeaderOptions {
        RequestHeaderOptions {
            client_ca_file: client_ca_file.into(),
            allowed_names: Vec::new(),
            username_headers: Vec::new(),
            uid_headers: Vec::new(),
            group_headers: Vec::new(),
            extra_headers_prefix: Vec::new(),
        }
    }
}

impl Default for AuthenticationOptions {
    fn default() -> AuthenticationOptions {
        AuthenticationOptions {
            anonymous: None,
            config_file: None,
            oidc: None,
            client_ca_file: None,
            token_file: None,
            bootstrap_tokens: true,
            request_header: None,
            token_webhook: None,
        }
    }
}
