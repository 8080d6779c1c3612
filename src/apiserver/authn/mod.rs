//! Who makes a request. Upstream's order: front proxy, client certificate, bearer token, nobody. The first that
//! knows somebody decides; one that refuses is only heard when nobody else knows anybody.

mod bearer;
mod bootstrap_token;
mod certificate;
mod figures;
mod front_proxy;
mod known;
mod legacy;
mod living;
mod oidc;
mod service_account;
#[cfg(test)]
mod tests;
mod token_file;
mod token_keys;
mod tokens;
mod webhook;

use std::sync::Arc;
use std::time::Instant;

use api::{Failure, Reason};
use http::HeaderMap;
use task::Shutdown;

pub use certificate::{AnyClientCertificate, CertificateAuthenticator, Peer, authorities};
use figures::{Ended, Figures};
pub use legacy::{Use, sign as sign_legacy};
use living::Witness;
pub use oidc::algorithm;
pub use service_account::{BoundTo, Named, TokenRequest, sign};
pub use token_file::TokenFileError;
pub use token_keys::TokenKeys;
pub use tokens::Tokens;

use crate::cache::Cache;
use crate::config::{AuthorizationMode, Config, Error, RequestHeaderOptions};
use crate::identity::Identity;
use crate::metrics::Text;
use crate::webhook::Caller;

/// Whom a token stands for, and for which of the wanted audiences it does.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub identity: Arc<Identity>,
    pub audiences: Vec<String>,
    /// What it follows from.
    bound: Vec<Witness>,
}

/// `None` is no opinion: the next one is asked. The text of a refusal is shown in a TokenReview only.
pub type Answer = Result<Option<Authenticated>, String>;

pub struct Authenticator {
    tokens: Tokens,
    front_proxy: Option<RequestHeaderOptions>,
    anonymous: Anonymous,
    figures: Figures,
}

/// Whether requests that show nothing are taken.
struct Anonymous {
    enabled: bool,
    /// Only these paths, if there are any (upstream: `anonymous.conditions`).
    paths: Vec<String>,
}

impl Authenticated {
    fn new(identity: Identity, audiences: Vec<String>) -> Authenticated {
        Authenticated { identity: Arc::new(identity.authenticated()), audiences, bound: Vec::new() }
    }
}

impl Authenticator {
    /// Reads the files that the configuration names. One of issuers is followed until shutdown.
    pub fn new(
        cache: Arc<Cache>,
        config: &Config,
        caller: &Arc<Caller>,
        shutdown: &Shutdown,
    ) -> Result<Authenticator, Error> {
        let options = &config.authentication;
        let keys = TokenKeys::new(&config.service_account_signing_key_pem, &config.service_accounts)?;
        let file = options.config_file.as_deref();
        let configured = oidc::start(file, options.oidc.as_ref(), keys.issuers(), caller, shutdown)?;
        let mut anonymous = match (configured.anonymous, options.anonymous) {
            (Some(_), Some(_)) => {
                let why = "anonymous-auth cannot be set when anonymous is configured in the authentication-config file";
                return Err(Error::Flags(why));
            }
            (Some(config), None) => {
                let paths = config.conditions.into_iter().map(|condition| condition.path);
                Anonymous { enabled: config.enabled, paths: paths.collect() }
            }
            (None, flag) => Anonymous { enabled: flag.unwrap_or(true), paths: Vec::new() },
        };
        if anonymous.enabled && config.authorization.modes.contains(&AuthorizationMode::AlwaysAllow) {
            tracing::warn!("anonymous requests are not allowed with the AlwaysAllow authorizer");
            anonymous.enabled = false;
        }
        let tokens = Tokens::new(cache, keys, configured.issuers, config, caller)?;
        Ok(Authenticator {
            tokens,
            front_proxy: options.request_header.clone(),
            anonymous,
            figures: Figures::default(),
        })
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The identity behind a request, or 401.
    pub async fn identify(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
        now: jiff::Timestamp,
    ) -> Result<Arc<Identity>, Failure> {
        let began = Instant::now();
        let found = self.find(peer, headers, path, now).await;
        let ended = match &found {
            Ok(identity) => Ended::Success(&identity.name),
            Err(refusals) if refusals.is_empty() => Ended::Failure,
            Err(_) => Ended::Error,
        };
        self.figures.identified(ended, began.elapsed());
        found.map_err(|refusals| {
            if !refusals.is_empty() {
                tracing::debug!(reasons = ?refusals, "a request is refused");
            }
            Failure::new(Reason::Unauthorized, "Unauthorized")
        })
    }

    /// The error is what was wrong with what was shown, if anything was.
    async fn find(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
        now: jiff::Timestamp,
    ) -> Result<Arc<Identity>, Vec<String>> {
        let mut refusals = Vec::new();

        // Somebody for whom a proxy vouches?
        if let Some(options) = &self.front_proxy {
            match peer.is_front_proxy(now.as_second()) {
                Ok(true) => {
                    if let Some(identity) = front_proxy::identify(options, headers) {
                        return Ok(Arc::new(identity.authenticated()));
                    }
                }
                Ok(false) => {}
                Err(reason) => refusals.push(reason),
            }
        }

        // Somebody with a certificate?
        match peer.user(now.as_second()) {
            Ok(Some(identity)) => {
                self.figures.certificate(peer.remaining_seconds(now.as_second()));
                return Ok(identity);
            }
            Ok(None) => {}
            Err(reason) => refusals.push(reason),
        }

        // Somebody with a token, in the header or among the protocols of a WebSocket?
        let from_protocol = match bearer::of_web_socket(headers) {
            Ok(token) => token,
            Err(reason) => {
                refusals.push(reason);
                None
            }
        };
        for token in bearer::of_header(headers).into_iter().chain(from_protocol.as_deref()) {
            match self.tokens.authenticate(token, &[], now).await {
                Ok(Some(found)) => return Ok(found.identity),
                Ok(None) => refusals.push(INVALID_TOKEN.to_owned()),
                Err(reason) => refusals.push(reason),
            }
        }

        // Nobody, then. Who shows something of no use is not taken for nobody.
        if refusals.is_empty() && self.anonymous.may_ask(path) {
            return Ok(Arc::new(Identity::anonymous()));
        }
        Err(refusals)
    }

    /// For `/metrics`.
    pub fn write_figures(&self, out: &mut Text) {
        self.figures.write(out);
        self.tokens.write_figures(out);
    }

    /// Takes what says who somebody is out of a request, so that it goes no further than here.
    pub fn forget(&self, headers: &mut HeaderMap) {
        bearer::forget(headers);
        if let Some(options) = &self.front_proxy {
            front_proxy::forget(options, headers);
        }
    }
}

/// What upstream says of a token that nobody knows.
pub const INVALID_TOKEN: &str = "invalid bearer token";

impl Anonymous {
    fn may_ask(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|one| one == path))
    }
}
