//! Users whom OpenID Connect issuers know: JWTs, verified with the issuer's keys and mapped to users.
//!
//! Limitations: no ES512, no distributed claims, no egress selectors.

pub mod config;
mod keys;
mod mapping;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, Validation};
use pki::Trust;
use serde_json::Value;
use task::Shutdown;

use super::{Answer, Authenticated, tokens};
use crate::config::{Error, OidcOptions};
use crate::reload;
use crate::webhook::Caller;
use config::{AnonymousConfig, AuthenticationConfiguration, JwtAuthenticator};
use keys::IssuerKeys;
use mapping::{Claims, Mappings};

/// Changed issuers are taken over when all are found, or not at all (upstream: 1 min).
const TAKE_OVER_MAX: Duration = Duration::from_secs(60);
/// A token may be used this long before it is valid, as clocks differ (upstream's library: 5 min).
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 300.0;

/// All issuers; they may change while the server runs.
pub struct Issuers(Arc<ArcSwap<Generation>>);

/// The issuers of one configuration. Their tasks end with it.
struct Generation {
    issuers: Vec<Arc<Issuer>>,
    shutdown: Shutdown,
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

struct Issuer {
    url: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: IssuerKeys,
    mappings: Mappings,
}

/// What authentication is told by a file.
pub struct Configured {
    pub issuers: Issuers,
    pub anonymous: Option<AnonymousConfig>,
}

/// From an AuthenticationConfiguration or flags; `disallowed` are the issuers of ServiceAccount tokens. A file is
/// followed until shutdown.
pub fn start(
    file: Option<&std::path::Path>,
    flags: Option<&OidcOptions>,
    disallowed: &[String],
    caller: &Arc<Caller>,
    shutdown: &Shutdown,
) -> Result<Configured, Error> {
    match (file, flags) {
        (Some(_), Some(_)) => Err(Error::Flags("authentication-config file and oidc-* flags are mutually exclusive")),
        (Some(path), None) => {
            let refused = |reason: String| Error::File { path: path.to_owned(), reason };
            let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
            let config = AuthenticationConfiguration::parse(&text, disallowed).map_err(refused)?;
            let first = Generation::of(&config.jwt, &all_algorithms(), caller, shutdown).map_err(refused)?;
            let current = Arc::new(ArcSwap::from_pointee(first));
            let follower = Follower {
                current: current.clone(),
                caller: caller.clone(),
                disallowed: disallowed.to_vec(),
                anonymous: config.anonymous.clone(),
                shutdown: shutdown.clone(),
            };
            let (path, stop, follower) = (path.to_owned(), shutdown.clone(), Arc::new(follower));
            task::spawn("authentication-config", async move {
                reload::follow(path, text, stop, |text| follower.clone().take_over(text)).await;
            });
            Ok(Configured { issuers: Issuers(current), anonymous: config.anonymous })
        }
        (None, flags) => {
            let (mut jwt, mut algorithms) = (Vec::new(), vec![Algorithm::RS256]);
            if let Some(flags) = flags {
                if flags.issuer_url.is_empty() || flags.client_id.is_empty() {
                    let why =
                        "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set";
                    return Err(Error::Flags(why));
                }
                let authority = match &flags.ca_file {
                    Some(path) => std::fs::read_to_string(path)
                        .map_err(|error| Error::File { path: path.clone(), reason: error.to_string() })?,
                    None => String::new(),
                };
                let issuer = JwtAuthenticator::of_flags(flags, authority);
                issuer.check(&[], disallowed).map_err(|(field, why)| Error::Oidc(format!("{field}: {why}")))?;
                jwt.push(issuer);
                algorithms.clone_from(&flags.signing_algorithms);
            }
            let generation = Generation::of(&jwt, &algorithms, caller, shutdown).map_err(Error::Oidc)?;
            Ok(Configured { issuers: Issuers(Arc::new(ArcSwap::from_pointee(generation))), anonymous: None })
        }
    }
}

/// Algorithms by their names in tokens; `None` for those that are not taken.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    all_algorithms().into_iter().find(|algorithm| format!("{algorithm:?}") == name)
}

fn all_algorithms() -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512};
    vec![RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512]
}

impl Issuers {
    /// Whose token it is. The first issuer that refuses it decides.
    pub async fn authenticate(&self, token: &str, issuer: &str, audiences: &[String], now_seconds: i64) -> Answer {
        // The generation is held as long as it is asked.
        let generation = self.0.load_full();
        // http://openid.net/specs/openid-connect-core-1_0.html#GoogleIss
        let issuer = if issuer == "accounts.google.com" { "https://accounts.google.com" } else { issuer };
        let Some(known) = generation.issuers.iter().find(|known| known.url == issuer) else { return Ok(None) };
        let claims = known.claims(token, now_seconds).await?;
        let identity = known.mappings.identity(claims)?;
        Ok(Some(Authenticated::new(identity, audiences.to_vec())))
    }
}

impl Generation {
    fn of(
        jwt: &[JwtAuthenticator],
        algorithms: &[Algorithm],
        caller: &Arc<Caller>,
        shutdown: &Shutdown,
    ) -> Result<Generation, String> {
        let mut issuers = Vec::new();
        for (at, config) in jwt.iter().enumerate() {
            let issuer = Issuer::new(config, algorithms, caller);
            issuers.push(Arc::new(issuer.map_err(|(field, why)| format!("jwt[{at}].{field}: {why}"))?));
        }
        let shutdown = shutdown.child_token();
        for issuer in &issuers {
            let (issuer, stop) = (issuer.clone(), shutdown.clone());
            task::spawn("oidc-discovery", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = issuer.keys.discover_until(&stop) => {}
                }
            });
        }
        Ok(Generation { issuers, shutdown })
    }

    /// All issuers were found.
    async fn ready(&self) -> bool {
        const LOOK: Duration = Duration::from_millis(200);
        let all = async {
            while !self.issuers.iter().all(|issuer| issuer.keys.is_ready()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(TAKE_OVER_MAX, all).await.is_ok()
    }
}

struct Follower {
    current: Arc<ArcSwap<Generation>>,
    caller: Arc<Caller>,
    disallowed: Vec<String>,
    anonymous: Option<AnonymousConfig>,
    shutdown: Shutdown,
}

impl Follower {
    /// `false` if it may succeed later.
    async fn take_over(self: Arc<Follower>, text: String) -> bool {
        let made = AuthenticationConfiguration::parse(&text, &self.disallowed).and_then(|config| {
            if config.anonymous != self.anonymous {
                return Err("anonymous: Forbidden: changed from initial configuration file".to_owned());
            }
            Generation::of(&config.jwt, &all_algorithms(), &self.caller, &self.shutdown)
        });
        let generation = match made {
            Ok(generation) => generation,
            Err(error) => {
                tracing::error!(error, "the changed authentication configuration is not taken over");
                return true;
            }
        };
        if !generation.ready().await {
            tracing::error!("an issuer of the changed authentication configuration is not found; it is tried again");
            return false;
        }
        self.current.store(Arc::new(generation));
        tracing::info!("the authentication configuration was read anew");
        true
    }
}

impl Issuer {
    fn new(
        config: &JwtAuthenticator,
        algorithms: &[Algorithm],
        caller: &Arc<Caller>,
    ) -> Result<Issuer, (String, String)> {
        let issuer = &config.issuer;
        let trust = match issuer.certificate_authority.as_str() {
            "" => Trust::System,
            pem => Trust::Bundle(pem.as_bytes().to_vec()),
        };
        if let Err(error) = trust.client() {
            let why = format!("Invalid value: \"<omitted>\": {error}");
            return Err(("issuer.certificateAuthority".to_owned(), why));
        }
        Ok(Issuer {
            url: issuer.url.clone(),
            audiences: issuer.audiences.clone(),
            algorithms: algorithms.to_vec(),
            keys: IssuerKeys::new(caller.clone(), trust, &issuer.url, &issuer.discovery_url),
            mappings: Mappings::compile(config)?,
        })
    }

    /// The claims of a token that this issuer signed for one of the audiences, in its time.
    async fn claims(&self, token: &str, now_seconds: i64) -> Result<Claims, String> {
        if token.len() > tokens::TOKEN_BYTES_MAX {
            return Err("oidc: the token is too long".to_owned());
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|error| format!("oidc: verify token: oidc: malformed jwt: {error}"))?;
        if !self.algorithms.contains(&header.alg) {
            let names: Vec<String> = self.algorithms.iter().map(|one| format!("{one:?}")).collect();
            return Err(format!(
                "oidc: verify token: oidc: id token signed with unsupported algorithm, expected {names:?} got {:?}",
                header.alg
            ));
        }
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = self
            .keys
            .verify(header.kid.as_deref(), header.alg, |key| {
                jsonwebtoken::decode::<Claims>(token, key, &validation).ok().map(|decoded| decoded.claims)
            })
            .await?;
        self.check(&claims, now_seconds)?;
        Ok(claims)
    }

    fn check(&self, claims: &Claims, now_seconds: i64) -> Result<(), String> {
        let refused = |why: String| Err(format!("oidc: verify token: {why}"));
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(audience)) => vec![audience],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !audiences.iter().any(|audience| self.audiences.iter().any(|wanted| wanted == audience)) {
            return refused(format!("oidc: expected audience in {:?} got {audiences:?}", self.audiences));
        }
        let time = |claim: &str| claims.get(claim).and_then(Value::as_f64);
        let now = now_seconds as f64;
        if time("exp").unwrap_or_default() < now {
            return refused("oidc: token is expired".to_owned());
        }
        if time("nbf").is_some_and(|from| now + NOT_BEFORE_LEEWAY_SECONDS < from) {
            return refused("oidc: current time before the nbf (not before) time".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
