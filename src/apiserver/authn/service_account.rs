//! ServiceAccount tokens: JWTs that name a ServiceAccount and, mostly, the Pod they were made for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::living::{self, Living, NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Witness};
use super::{Answer, Authenticated, TokenKeys};
use crate::cache::Cache;
use crate::identity::Identity;

/// Clocks may differ by this much, and what is deleted may be used as long (upstream: `jwt.DefaultLeeway`).
const LEEWAY_SECONDS: i64 = 60;

/// What a ServiceAccount token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    pub nbf: i64,
    pub sub: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    pub serviceaccount: Named,
    /// When the token should have been replaced although it is taken for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Whose life the token shares besides its ServiceAccount's.
#[derive(Clone, Debug, Default)]
pub struct BoundTo {
    pub pod: Option<Named>,
    pub node: Option<Named>,
    pub secret: Option<Named>,
}

/// What to put into a token.
pub struct TokenRequest<'a> {
    pub namespace: &'a str,
    pub service_account: Named,
    pub audiences: Vec<String>,
    pub bound: BoundTo,
    pub seconds: i64,
    /// After how many seconds it should be replaced, if that is not when it expires.
    pub warn_after_seconds: Option<i64>,
    pub now_seconds: i64,
    pub id: String,
}

/// A signed token. The error's text is for the server's log only.
pub fn sign(keys: &TokenKeys, request: TokenRequest<'_>) -> Result<String, jsonwebtoken::errors::Error> {
    let TokenRequest { namespace, service_account, audiences, bound, seconds, now_seconds, id, .. } = request;
    keys.sign(&Claims {
        aud: audiences,
        exp: now_seconds.saturating_add(seconds),
        iat: now_seconds,
        iss: keys.issuer().to_owned(),
        jti: id,
        sub: format!("{}{namespace}:{}", Identity::SERVICE_ACCOUNT_PREFIX, service_account.name),
        kubernetes: KubernetesClaims {
            namespace: namespace.to_owned(),
            node: bound.node,
            pod: bound.pod,
            secret: bound.secret,
            serviceaccount: service_account,
            warnafter: request.warn_after_seconds.map(|after| now_seconds.saturating_add(after)),
        },
        nbf: now_seconds,
    })
}

/// Whose token it is, if one of our issuers made it for one of the `wanted` audiences, and what it is bound to lives.
pub fn authenticate(keys: &TokenKeys, cache: &Cache, token: &str, wanted: &[String], now_seconds: i64) -> Answer {
    let claims: Claims = keys.verify(token)?;
    let audiences = for_audiences(&claims.aud, wanted)?;
    claims.check_times(now_seconds)?;
    let bound = claims.check_bound(cache, now_seconds)?;
    if claims.kubernetes.warnafter.is_some_and(|after| after < now_seconds) {
        let late_seconds = now_seconds - claims.kubernetes.warnafter.unwrap_or_default();
        tracing::debug!(subject = claims.sub, late_seconds, "a token is used that should have been replaced");
    }
    Ok(Some(Authenticated { bound, ..Authenticated::new(claims.identity(), audiences) }))
}

/// The audiences of a token that are wanted; an error if there is none.
pub fn for_audiences(named: &[String], wanted: &[String]) -> Result<Vec<String>, String> {
    let both: Vec<String> = named.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
    if both.is_empty() {
        return Err(format!("token audiences {named:?} is invalid for the target audiences {wanted:?}"));
    }
    Ok(both)
}

impl Claims {
    fn check_times(&self, now_seconds: i64) -> Result<(), String> {
        if now_seconds.saturating_sub(LEEWAY_SECONDS) > self.exp {
            return Err("service account token has expired".to_owned());
        }
        let soon = now_seconds.saturating_add(LEEWAY_SECONDS);
        if soon < self.nbf {
            return Err("service account token is not valid yet".to_owned());
        }
        if soon < self.iat {
            return Err("service account token is issued in the future".to_owned());
        }
        Ok(())
    }

    /// The ServiceAccount and what the token is bound to must still be the same objects.
    fn check_bound(&self, cache: &Cache, now_seconds: i64) -> Result<Vec<Witness>, String> {
        let claims = &self.kubernetes;
        let (namespace, account) = (&claims.namespace, &claims.serviceaccount);
        let gone_before = now_seconds.saturating_sub(LEEWAY_SECONDS);
        let deleted = |found: &Living| found.deleted_before(gone_before);
        let found = living::find(cache, SERVICE_ACCOUNTS, namespace, &account.name)
            .ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
        if found.uid() != account.uid {
            return Err(format!("service account UID ({}) does not match claim ({})", found.uid(), account.uid));
        }
        if deleted(&found) {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        let mut bound = vec![found.witness()];
        let node = claims.node.as_ref().filter(|_| claims.pod.is_none());
        for (prefix, namespace, kind, what, named) in [
            (SECRETS, namespace.as_str(), "secret", "secret ref", claims.secret.as_ref()),
            (PODS, namespace.as_str(), "pod", "pod ref", claims.pod.as_ref()),
            (NODES, "", "node", "node ref", node),
        ] {
            let Some(named) = named else { continue };
            let found = living::find(cache, prefix, namespace, &named.name).filter(|found| !deleted(found));
            let found = found.ok_or_else(|| "service account token has been invalidated".to_owned())?;
            if found.uid() != named.uid {
                let uid = found.uid();
                return Err(format!("{kind} UID ({uid}) does not match service account {what} claim ({})", named.uid));
            }
            bound.push(found.witness());
        }
        Ok(bound)
    }

    fn identity(&self) -> Identity {
        let claims = &self.kubernetes;
        let mut extra = BTreeMap::new();
        let mut add = |key: &str, value: String| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        if !self.jti.is_empty() {
            add("credential-id", format!("JTI={}", self.jti));
        }
        if let Some(pod) = &claims.pod {
            add("pod-name", pod.name.clone());
            add("pod-uid", pod.uid.clone());
        }
        if let Some(node) = &claims.node {
            add("node-name", node.name.clone());
            if !node.uid.is_empty() {
                add("node-uid", node.uid.clone());
            }
        }
        let uid = claims.serviceaccount.uid.clone();
        Identity { uid, extra, ..Identity::service_account(&claims.namespace, &claims.serviceaccount.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceAccountOptions;

    fn keys(issuer: &str) -> TokenKeys {
        TokenKeys::new(&pki::new_signing_key().unwrap(), &ServiceAccountOptions::new(issuer)).unwrap()
    }

    fn token(keys: &TokenKeys) -> String {
        let request = TokenRequest {
            namespace: "shop",
            service_account: Named { name: "web".into(), uid: "u1".into() },
            audiences: keys.audiences().to_vec(),
            bound: BoundTo { pod: Some(Named { name: "web-0".into(), uid: "u2".into() }), ..BoundTo::default() },
            seconds: 600,
            warn_after_seconds: Some(60),
            now_seconds: 1_000,
            id: "id".into(),
        };
        sign(keys, request).unwrap()
    }

    #[test]
    fn a_token_is_taken_only_in_its_time_and_for_its_audience() {
        let here = keys("https://here");
        let token = token(&here);
        let claims: Claims = here.verify(&token).unwrap();
        assert_eq!(claims.sub, "system:serviceaccount:shop:web");
        assert_eq!((claims.iss.as_str(), claims.kubernetes.warnafter), ("https://here", Some(1_060)));
        let identity = claims.identity();
        assert_eq!(identity.extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
        assert!(identity.is_in("system:serviceaccounts:shop"));
        assert!(claims.check_times(1_660).is_ok(), "clocks differ");
        assert!(claims.check_times(1_661).unwrap_err().contains("expired"));
        assert!(claims.check_times(939).unwrap_err().contains("not valid yet"));
        assert!(for_audiences(&claims.aud, &["vault".to_owned()]).is_err());
        assert_eq!(for_audiences(&claims.aud, here.audiences()).unwrap(), ["https://here"]);
    }

    #[test]
    fn nobody_else_signs() {
        let here = keys("https://here");
        let token = token(&here);
        assert!(keys("https://here").verify::<Claims>(&token).is_err(), "another key");
        let mut forged = token.clone();
        forged.pop();
        assert!(here.verify::<Claims>(&forged).is_err());
        assert!(here.verify::<Claims>(&"a".repeat(20_000)).is_err());
        let none = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.";
        assert!(here.verify::<Claims>(none).is_err());
    }

    #[test]
    fn a_rotated_key_still_verifies_from_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let old_pem = pki::new_signing_key().unwrap();
        let path = directory.path().join("old.key");
        std::fs::write(&path, &old_pem).unwrap();
        let old = TokenKeys::new(&old_pem, &ServiceAccountOptions::new("https://here")).unwrap();
        let mut options = ServiceAccountOptions::new("https://here");
        options.key_files = vec![path];
        let new = TokenKeys::new(&pki::new_signing_key().unwrap(), &options).unwrap();
        assert!(new.verify::<Claims>(&token(&old)).is_ok());
        assert!(new.verify::<Claims>(&token(&new)).is_ok());
        assert!(old.verify::<Claims>(&token(&new)).is_err());
        assert_eq!(new.jwks().keys.len(), 2);
    }
}
