//! Tokens in Secrets of type `kubernetes.io/service-account-token`: without an end, good while Secret and
//! ServiceAccount are there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::living::{self, SECRETS, SERVICE_ACCOUNTS, Witness};
use super::{Answer, Authenticated, TokenKeys};
use crate::cache::Cache;
use crate::identity::Identity;

pub const ISSUER: &str = "kubernetes/serviceaccount";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Clone, Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    account_uid: String,
    #[serde(default)]
    sub: String,
}

/// Which Secrets' tokens are used: each is labelled with the day, so that those that nobody uses can be found
/// (upstream: legacy token tracking).
pub struct Uses(mpsc::Sender<Use>);

/// A Secret whose token was used.
pub struct Use {
    pub namespace: String,
    pub name: String,
    /// A merge patch that says so.
    pub patch: Value,
}

impl Uses {
    /// Secrets that wait for their label; the label of one that finds no place is written the next time.
    const WAITING_MAX: usize = 64;

    pub fn new() -> (Uses, mpsc::Receiver<Use>) {
        let (sender, receiver) = mpsc::channel(Uses::WAITING_MAX);
        (Uses(sender), receiver)
    }

    fn note(&self, namespace: &str, name: &str, uid: &str, noted: &str) {
        let now = Timestamp::now();
        let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
        let today = day(now);
        // Another server's clock may be ahead.
        let tomorrow = now.checked_add(SignedDuration::from_hours(24)).map(day).unwrap_or_default();
        if noted == today || noted == tomorrow {
            return;
        }
        let patch = serde_json::json!({"metadata": {"uid": uid, "labels": {LAST_USED: today}}});
        let used = Use { namespace: namespace.to_owned(), name: name.to_owned(), patch };
        if self.0.try_send(used).is_err() {
            tracing::debug!(namespace, name, "the use of a token is not noted for now");
        }
    }
}

/// What the token controller puts into a Secret.
pub fn sign(
    keys: &TokenKeys,
    namespace: &str,
    account: &str,
    account_uid: &str,
    secret: &str,
) -> Result<String, jsonwebtoken::errors::Error> {
    keys.sign(&Claims {
        iss: ISSUER.to_owned(),
        namespace: namespace.to_owned(),
        secret: secret.to_owned(),
        account: account.to_owned(),
        account_uid: account_uid.to_owned(),
        sub: format!("{}{namespace}:{account}", Identity::SERVICE_ACCOUNT_PREFIX),
    })
}

/// `implied` are the audiences of this API server: a token in a Secret names none.
pub fn authenticate(
    keys: &TokenKeys,
    cache: &Cache,
    token: &str,
    wanted: &[String],
    lookup: bool,
    uses: &Uses,
) -> Answer {
    let claims: Claims = keys.verify(token)?;
    let audiences = super::service_account::for_audiences(keys.audiences(), wanted)?;
    claims.check_names()?;
    let bound = if lookup { claims.check_bound(cache, token, uses)? } else { Vec::new() };
    let identity =
        Identity { uid: claims.account_uid.clone(), ..Identity::service_account(&claims.namespace, &claims.account) };
    Ok(Some(Authenticated { bound, ..Authenticated::new(identity, audiences) }))
}

impl Claims {
    fn check_names(&self) -> Result<(), String> {
        for (claim, value) in [
            ("sub", &self.sub),
            ("namespace", &self.namespace),
            ("secretName", &self.secret),
            ("serviceAccountName", &self.account),
            ("serviceAccountUID", &self.account_uid),
        ] {
            if value.is_empty() {
                return Err(format!("{claim} claim is missing"));
            }
        }
        let rest = self.sub.strip_prefix(Identity::SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'));
        if rest != Some((self.namespace.as_str(), self.account.as_str())) {
            return Err("sub claim is invalid".to_owned());
        }
        Ok(())
    }

    fn check_bound(&self, cache: &Cache, token: &str, uses: &Uses) -> Result<Vec<Witness>, String> {
        let invalidated = || "Token has been invalidated".to_owned();
        let secret = living::find(cache, SECRETS, &self.namespace, &self.secret).filter(|found| !found.is_deleted());
        let secret = secret.ok_or_else(invalidated)?;
        let object: Value = serde_json::from_slice(&secret.stored.value).map_err(|_| invalidated())?;
        let kept = object.pointer("/data/token").and_then(Value::as_str).unwrap_or_default();
        let kept = STANDARD.decode(kept).unwrap_or_default();
        if Sha256::digest(&kept) != Sha256::digest(token.as_bytes()) {
            return Err("Token does not match server's copy".to_owned());
        }
        let (namespace, account) = (&self.namespace, &self.account);
        let found = living::find(cache, SERVICE_ACCOUNTS, namespace, account)
            .ok_or_else(|| format!("serviceaccounts {account:?} not found"))?;
        if found.is_deleted() {
            return Err(format!("ServiceAccount {namespace}/{account} has been deleted"));
        }
        if found.uid() != self.account_uid {
            return Err(format!("ServiceAccount UID ({}) does not match claim ({})", found.uid(), self.account_uid));
        }
        if object.pointer("/metadata/labels").is_some_and(|labels| labels.get(INVALID_SINCE).is_some()) {
            return Err(format!(
                "the token in secret {namespace}/{} for service account {namespace}/{account} has been marked invalid. \
                 Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                self.secret
            ));
        }
        let noted = object.pointer("/metadata/labels").and_then(|labels| labels.get(LAST_USED)?.as_str());
        uses.note(namespace, &self.secret, secret.uid(), noted.unwrap_or_default());
        Ok(vec![secret.witness(), found.witness()])
    }
}
