//! The keys of an issuer: found by discovery, fetched when a token needs them, kept.
//!
//! Bounds: one fetch at a time, none sooner than a pause after the last, each within its time. Only requests whose
//! token cannot be verified without wait for one.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use pki::Trust;
use serde::Deserialize;
use serde_json::Value;
use task::Shutdown;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::webhook::{Caller, Endpoint};

const FETCH_MAX: Duration = Duration::from_secs(30);
/// Discovery is tried again after this long (upstream: 10 s).
const DISCOVERY_PAUSE: Duration = Duration::from_secs(10);
/// Tokens that name unknown keys must not make the server fetch all the time.
const FETCH_PAUSE: Duration = Duration::from_secs(5);
/// Keys of one issuer; more are not looked at.
const KEYS_MAX: usize = 256;

pub struct IssuerKeys {
    caller: Arc<Caller>,
    trust: Trust,
    issuer: String,
    discovery: String,
    jwks: ArcSwapOption<Endpoint>,
    keys: ArcSwapOption<Vec<(Jwk, DecodingKey)>>,
    fetched: Mutex<Option<Instant>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl IssuerKeys {
    pub fn new(caller: Arc<Caller>, trust: Trust, issuer: &str, discovery_url: &str) -> IssuerKeys {
        let discovery = match discovery_url {
            "" => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            url => url.to_owned(),
        };
        IssuerKeys {
            caller,
            trust,
            issuer: issuer.to_owned(),
            discovery,
            jwks: ArcSwapOption::empty(),
            keys: ArcSwapOption::empty(),
            fetched: Mutex::new(None),
        }
    }

    /// Discovery has succeeded.
    pub fn is_ready(&self) -> bool {
        self.jwks.load().is_some()
    }

    /// Tries discovery until it succeeds.
    pub async fn discover_until(&self, shutdown: &Shutdown) {
        while !self.is_ready() {
            match self.discover().await {
                Ok(endpoint) => self.jwks.store(Some(Arc::new(endpoint))),
                Err(error) => {
                    tracing::error!(issuer = self.issuer, error, "an issuer's discovery document is not to be had");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(DISCOVERY_PAUSE) => {}
                    }
                }
            }
        }
    }

    async fn discover(&self) -> Result<Endpoint, String> {
        let document: Discovery = self.get(&self.discovery).await?;
        if document.issuer != self.issuer {
            let (wanted, got) = (&self.issuer, &document.issuer);
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {wanted:?} got {got:?}"
            ));
        }
        Endpoint::url(&document.jwks_uri, self.trust.clone()).map_err(|error| error.to_string())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let endpoint = Endpoint::url(url, self.trust.clone()).map_err(|error| error.to_string())?;
        self.fetch(&endpoint).await
    }

    async fn fetch<T: serde::de::DeserializeOwned>(&self, endpoint: &Endpoint) -> Result<T, String> {
        let bytes = self.caller.get(endpoint, endpoint.path(), FETCH_MAX).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    /// Calls `verify` with the keys for a token, fitting ones only, and once more with fresh keys if none verifies it.
    pub async fn verify<T>(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
        verify: impl Fn(&DecodingKey) -> Option<T>,
    ) -> Result<T, String> {
        let endpoint = self.jwks.load_full().ok_or("oidc: authenticator not initialized")?;
        let seen = Instant::now();
        if let Some(found) = self.try_known(key_id, algorithm, &verify) {
            return Ok(found);
        }
        let unverified =
            || "oidc: verify token: failed to verify signature: failed to verify id token signature".to_owned();
        let mut fetched = self.fetched.lock().await;
        // Somebody else may have fetched them while we waited.
        if fetched.is_none_or(|at| at < seen) {
            if fetched.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
                return Err(unverified());
            }
            let set = self.fetch::<Value>(&endpoint).await;
            *fetched = Some(Instant::now());
            let set = set.map_err(|error| {
                format!("oidc: verify token: failed to verify signature: fetching keys oidc: get keys failed: {error}")
            })?;
            self.keys.store(Some(Arc::new(usable(&set))));
        }
        drop(fetched);
        self.try_known(key_id, algorithm, &verify).ok_or_else(unverified)
    }

    fn try_known<T>(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
        verify: impl Fn(&DecodingKey) -> Option<T>,
    ) -> Option<T> {
        let keys = self.keys.load();
        let fitting = keys.iter().flat_map(|keys| keys.iter()).filter(|(key, _)| {
            let named = key_id.is_none_or(|id| key.common.key_id.as_deref() == Some(id));
            named && fits(key, algorithm)
        });
        fitting.filter_map(|(_, key)| verify(key)).next()
    }
}

/// A key of a kind that we do not know does not spoil the others.
fn usable(set: &Value) -> Vec<(Jwk, DecodingKey)> {
    let keys = set.get("keys").and_then(Value::as_array).into_iter().flatten().take(KEYS_MAX);
    let keys = keys.filter(|key| key.get("use").is_none_or(|usage| usage == "sig"));
    keys.filter_map(|key| {
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let decoding = DecodingKey::from_jwk(&key).ok()?;
        Some((key, decoding))
    })
    .collect()
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    match (&key.algorithm, algorithm) {
        (
            AlgorithmParameters::RSA(_),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512,
        ) => true,
        (AlgorithmParameters::EllipticCurve(curve), Algorithm::ES256) => curve.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(curve), Algorithm::ES384) => curve.curve == EllipticCurve::P384,
        _ => false,
    }
}
