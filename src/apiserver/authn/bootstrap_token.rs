//! Bootstrap tokens: Secrets of type `bootstrap.kubernetes.io/token` in `kube-system`, with which nodes join.
//!
//! What does not fit is no opinion, as upstream: nobody learns whether there is a Secret for the token's public part.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

use super::living::Witness;
use crate::cache::Cache;
use crate::identity::Identity;

const SECRETS: &[u8] = b"/registry/secrets/";
const KIND: &str = "bootstrap.kubernetes.io/token";
const DEFAULT_GROUP: &str = "system:bootstrappers";
const USER_PREFIX: &str = "system:bootstrap:";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 16;

#[derive(Deserialize)]
struct Secret {
    metadata: Metadata,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    data: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

pub fn authenticate(cache: &Cache, token: &str, now: Timestamp) -> Option<(Identity, Witness)> {
    let (id, secret) = split(token)?;
    let (resource, path) = (cache.resource(SECRETS)?, format!("kube-system/bootstrap-token-{id}"));
    let stored = resource.get(&path)?;
    let found: Secret = serde_json::from_slice(&stored.value).ok()?;
    match check(&found, id, secret, now) {
        Ok(identity) => Some((identity, Witness::new(resource, path, stored.mod_revision))),
        Err(why) => {
            tracing::debug!(id, why, "a bootstrap token is refused");
            None
        }
    }
}

/// `id.secret`, of lower-case letters and digits.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |text: &str, bytes: usize| {
        text.len() == bytes && text.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit())
    };
    (fits(id, ID_BYTES) && fits(secret, SECRET_BYTES)).then_some((id, secret))
}

fn check(found: &Secret, id: &str, secret: &str, now: Timestamp) -> Result<Identity, &'static str> {
    let data = |key: &str| {
        let bytes = found.data.get(key).and_then(|encoded| STANDARD.decode(encoded).ok()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    if found.metadata.deletion_timestamp.is_some() {
        return Err("is deleted and awaiting removal");
    }
    if found.kind != KIND {
        return Err("the Secret is of another type");
    }
    if Sha256::digest(data("token-secret").as_bytes()) != Sha256::digest(secret.as_bytes()) {
        return Err("has invalid value for key token-secret");
    }
    if data("token-id") != id {
        return Err("has invalid value for key token-id");
    }
    let expiration = data("expiration");
    if !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |until| until <= now) {
        return Err("has expired");
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("is not marked usage-bootstrap-authentication=true");
    }
    let mut groups = vec![DEFAULT_GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').filter(|group| !group.is_empty()) {
        if !is_bootstrap_group(group) {
            return Err("has invalid value for key auth-extra-groups");
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Ok(Identity { name: format!("{USER_PREFIX}{id}"), groups, ..Identity::default() })
}

/// `system:bootstrappers:` and up to 256 characters of `[a-z0-9:-]`, the last a letter or digit.
fn is_bootstrap_group(group: &str) -> bool {
    const REST_BYTES_MAX: usize = 256;
    let plain = |one: u8| one.is_ascii_lowercase() || one.is_ascii_digit();
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        rest.len() <= REST_BYTES_MAX
            && rest.bytes().all(|one| plain(one) || one == b':' || one == b'-')
            && rest.bytes().next_back().is_some_and(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(changes: &[(&str, &str)]) -> Secret {
        let mut data = HashMap::from([
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token"),
            ("expiration", "2026-12-01T00:00:00Z"),
        ]);
        data.extend(changes.iter().copied());
        let data: HashMap<&str, String> = data.into_iter().map(|(key, text)| (key, STANDARD.encode(text))).collect();
        serde_json::from_value(json!({"metadata": {"name": "x"}, "type": KIND, "data": data})).unwrap()
    }

    #[test]
    fn a_bootstrap_token_is_taken_if_everything_fits() {
        let now: Timestamp = "2026-11-30T00:00:00Z".parse().unwrap();
        let try_it = |changes: &[(&str, &str)], at| check(&secret(changes), "abcdef", "0123456789abcdef", at);
        let identity = try_it(&[], now).unwrap();
        assert_eq!(identity.name, "system:bootstrap:abcdef");
        assert_eq!(identity.groups, ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"]);
        assert!(try_it(&[("expiration", "")], now).is_ok());
        let later: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        assert_eq!(try_it(&[], later), Err("has expired"));
        for (key, value) in [
            ("expiration", "tomorrow"),
            ("token-secret", "0123456789abcdeg"),
            ("token-id", "bbcdef"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
        ] {
            assert!(try_it(&[(key, value)], now).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn only_what_looks_like_a_bootstrap_token_is_looked_up() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for token in ["abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "ab/../.0123456789abcdef", ".", ""]
        {
            assert_eq!(split(token), None, "{token}");
        }
    }
}
