//! Who are you: what authentication is told. Defaults are upstream's.

use std::time::Duration;

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
            token_expiration_max: None,
        }
    }
}

/// All other ways to say who one is.
#[derive(Clone, Debug)]
pub struct AuthenticationOptions {
    /// Requests that show nothing are made by `system:anonymous` (else they get 401).
    pub anonymous: bool,
}

impl Default for AuthenticationOptions {
    fn default() -> AuthenticationOptions {
        AuthenticationOptions { anonymous: true }
    }
}
