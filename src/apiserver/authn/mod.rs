//! Who makes a request: client certificate, ServiceAccount token, join token, or nobody.

mod certificate;
mod tokens;

use std::sync::Arc;

use api::{Failure, Reason};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

pub use certificate::{AnyClientCertificate, CertificateAuthenticator};
pub use tokens::{BoundTo, Named, TokenKeys, TokenRequest};

use crate::cache::Cache;
use crate::config::BearerToken;
use crate::identity::Identity;

/// What the connection says about its peer.
#[derive(Clone, Default)]
pub enum Peer {
    #[default]
    Unknown,
    Certificate(Arc<Identity>),
    /// A certificate that no authority of ours signed, or that is out of date.
    BadCertificate,
}

pub struct Authenticator {
    cache: Arc<Cache>,
    tokens: TokenKeys,
    bearer: Vec<BearerToken>,
    anonymous: bool,
}

impl Authenticator {
    pub fn new(cache: Arc<Cache>, tokens: TokenKeys, bearer: Vec<BearerToken>, anonymous: bool) -> Authenticator {
        Authenticator { cache, tokens, bearer, anonymous }
    }

    pub fn tokens(&self) -> &TokenKeys {
        &self.tokens
    }

    /// The identity behind a request, or 401.
    pub fn identify(&self, peer: &Peer, headers: &HeaderMap, now_seconds: i64) -> Result<Identity, Failure> {
        if let Peer::Certificate(identity) = peer {
            return Ok(identity.as_ref().clone());
        }
        if let Some(token) = bearer_token(headers) {
            return self.by_token(token, &[], now_seconds).map_err(|reason| {
                tracing::debug!(%reason, "a bearer token is refused");
                unauthorized()
            });
        }
        if matches!(peer, Peer::BadCertificate) || headers.contains_key(AUTHORIZATION) || !self.anonymous {
            return Err(unauthorized());
        }
        Ok(Identity::anonymous())
    }

    /// The identity that a token stands for; `audiences` empty means this API server.
    pub fn by_token(&self, token: &str, audiences: &[String], now_seconds: i64) -> Result<Identity, String> {
        if let Some(known) = self.bearer.iter().find(|known| same(&known.token, token)) {
            return Ok(known.identity.clone());
        }
        let claims = self.tokens.verify(token, audiences, now_seconds)?;
        claims.check_bound(&self.cache)?;
        Ok(claims.identity())
    }
}

fn unauthorized() -> Failure {
    Failure::new(Reason::Unauthorized, "Unauthorized")
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares digests, so that the time says nothing about where the tokens differ.
fn same(known: &str, shown: &str) -> bool {
    Sha256::digest(known.as_bytes()) == Sha256::digest(shown.as_bytes())
}
