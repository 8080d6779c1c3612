//! Bearer tokens: everybody who can tell whose a token is, in upstream's order, behind a cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::figures::TokenFigures;
use super::known::{self, Known};
use super::living::Witness;
use super::oidc::Issuers;
use super::webhook::WebhookAuthenticator;
use super::{Answer, Authenticated, TokenKeys, bootstrap_token, legacy, service_account, token_file};
use crate::answers::Answers;
use crate::cache::Cache;
use crate::config::{BearerToken, Config, Error};
use crate::metrics::Text;
use crate::webhook::Caller;

/// How long a token that was good is taken without another look (upstream: `TokenSuccessCacheTTL`). There is no such
/// time for those that were not.
const SUCCESS_LIFE: Duration = Duration::from_secs(10);

/// A token longer than this is not looked at.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

pub struct Tokens {
    cache: Arc<Cache>,
    keys: TokenKeys,
    known: Vec<Known>,
    lookup: bool,
    uses: legacy::Uses,
    used: Mutex<Option<mpsc::Receiver<legacy::Use>>>,
    bootstrap: bool,
    issuers: Issuers,
    webhook: Option<WebhookAuthenticator>,
    answers: Answers<Authenticated>,
    figures: TokenFigures,
}

impl Tokens {
    /// Reads the files that the configuration names.
    pub fn new(
        cache: Arc<Cache>,
        keys: TokenKeys,
        issuers: Issuers,
        config: &Config,
        caller: &Arc<Caller>,
    ) -> Result<Tokens, Error> {
        let started_with = |BearerToken { token, identity }: &BearerToken| Known::new(token, identity.clone());
        let mut known: Vec<Known> = config.bearer_tokens.iter().map(started_with).collect();
        if let Some(path) = &config.authentication.token_file {
            known.extend(token_file::read(path)?);
        }
        let webhook = match &config.authentication.token_webhook {
            Some(options) => Some(WebhookAuthenticator::new(options, caller)?),
            None => None,
        };
        let (uses, used) = legacy::Uses::new();
        Ok(Tokens {
            cache,
            keys,
            known,
            lookup: config.service_accounts.lookup,
            uses,
            used: Mutex::new(Some(used)),
            bootstrap: config.authentication.bootstrap_tokens,
            issuers,
            webhook,
            answers: Answers::new(SUCCESS_LIFE),
            figures: TokenFigures::default(),
        })
    }

    /// Secrets whose tokens were used, for the one who labels them.
    pub fn take_used(&self) -> Option<mpsc::Receiver<legacy::Use>> {
        self.used.lock().take()
    }

    pub fn keys(&self) -> &TokenKeys {
        &self.keys
    }

    pub fn write_figures(&self, out: &mut Text) {
        self.figures.write(out);
    }

    /// Whose token it is; `audiences` empty means this API server.
    pub async fn authenticate(&self, token: &str, audiences: &[String], now: Timestamp) -> Answer {
        let began = Instant::now();
        let wanted = if audiences.is_empty() { self.keys.audiences() } else { audiences };
        let key = self.answers.key(token, wanted);
        // What a token is bound to may have changed since.
        if let Some(found) = self.answers.get(&key).filter(|found| found.bound.iter().all(Witness::holds)) {
            self.figures.hit(began.elapsed());
            return Ok(Some(found.as_ref().clone()));
        }
        let fetch = self.figures.fetch(began);
        let found = self.ask(token, wanted, now).await?;
        fetch.answered();
        if let Some(found) = &found {
            self.answers.put(key, Arc::new(found.clone()));
        }
        Ok(found)
    }

    async fn ask(&self, token: &str, wanted: &[String], now: Timestamp) -> Answer {
        let mut refusals: Vec<String> = Vec::new();
        let mut note = |answer: Answer| match answer {
            Ok(found) => found,
            Err(reason) => {
                if !refusals.contains(&reason) {
                    refusals.push(reason);
                }
                None
            }
        };
        let for_us = self.implied(wanted);

        // What the server was started with.
        if let Some(audiences) = &for_us
            && let Some(identity) = known::find(&self.known, token)
        {
            let (audiences, bound) = (audiences.clone(), Vec::new());
            return Ok(Some(Authenticated { identity, audiences, bound }));
        }

        // ServiceAccounts. Who issued a token decides who looks at it.
        let issuer = issuer(token);
        if issuer.as_deref() == Some(legacy::ISSUER)
            && let Some(found) =
                note(legacy::authenticate(&self.keys, &self.cache, token, wanted, self.lookup, &self.uses))
        {
            return Ok(Some(found));
        }
        if issuer.as_ref().is_some_and(|issuer| self.keys.issuers().contains(issuer))
            && let Some(found) =
                note(service_account::authenticate(&self.keys, &self.cache, token, wanted, now.as_second()))
        {
            return Ok(Some(found));
        }

        // Nodes that join.
        if let Some(audiences) = &for_us
            && self.bootstrap
            && let Some((identity, secret)) = bootstrap_token::authenticate(&self.cache, token, now)
        {
            return Ok(Some(Authenticated { bound: vec![secret], ..Authenticated::new(identity, audiences.clone()) }));
        }

        // Whom an issuer knows.
        if let (Some(audiences), Some(issuer)) = (&for_us, &issuer)
            && let Some(found) = note(self.issuers.authenticate(token, issuer, audiences, now.as_second()).await)
        {
            return Ok(Some(found));
        }

        // Whom another program knows.
        if let Some(webhook) = &self.webhook
            && let Some(found) = note(webhook.authenticate(token, wanted, self.keys.audiences()).await)
        {
            return Ok(Some(found));
        }

        match refusals.as_slice() {
            [] => Ok(None),
            [one] => Err(one.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }

    /// The audiences of tokens that name none: those of this API server that are wanted.
    fn implied(&self, wanted: &[String]) -> Option<Vec<String>> {
        let ours = self.keys.audiences().iter();
        let both: Vec<String> = ours.filter(|audience| wanted.contains(audience)).cloned().collect();
        (!both.is_empty()).then_some(both)
    }
}

/// Who a JWT says that it is from. Nobody has verified that.
pub fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    Some(claims.iss)
}
