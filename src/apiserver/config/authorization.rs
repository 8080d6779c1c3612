//! May they: what authorisation is told. Defaults are k3s', since a cluster without rules is of no use.

use std::path::PathBuf;
use std::time::Duration;

/// One authorizer (upstream: `--authorization-mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    /// What [`AuthorizationOptions::webhook`] says.
    Webhook,
}

#[derive(Clone, Debug)]
pub struct AuthorizationOptions {
    /// Asked in this order.
    pub modes: Vec<AuthorizationMode>,
    pub webhook: WebhookOptions,
    /// An AuthorizationConfiguration, instead of the modes. It may change while the server runs.
    pub config_file: Option<PathBuf>,
    /// Modes or the webhook were chosen: then there may be no file.
    pub chosen: bool,
}

/// A program that answers reviews (upstream: `--authorization-webhook-*`).
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// A kubeconfig.
    pub config_file: Option<PathBuf>,
    /// `v1` or `v1beta1`.
    pub version: String,
    pub cache_authorized: Duration,
    pub cache_unauthorized: Duration,
}

impl Default for AuthorizationOptions {
    fn default() -> AuthorizationOptions {
        AuthorizationOptions {
            modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac],
            webhook: WebhookOptions {
                config_file: None,
                version: "v1beta1".to_owned(),
                cache_authorized: Duration::from_secs(300),
                cache_unauthorized: Duration::from_secs(30),
            },
            config_file: None,
            chosen: false,
        }
    }
}
