//! ServiceAccount tokens: JWTs that name a ServiceAccount and, mostly, the Pod they were made for.

use std::collections::{BTreeMap, HashSet};

use jsonwebtoken::jwk::{Jwk, JwkSet, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::{Cache, Stored};
use crate::config::{Error, ServiceAccountOptions};
use crate::identity::Identity;

/// A token longer than this is not looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The key that signs, and what verifies.
pub struct TokenKeys {
    /// The first stands in new tokens.
    issuers: Vec<String>,
    audiences: Vec<String>,
    signing: EncodingKey,
    verifying: DecodingKey,
    algorithm: Algorithm,
    key_id: String,
    jwks: JwkSet,
}

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
    pub now_seconds: i64,
    pub id: String,
}

impl TokenKeys {
    pub fn new(pem: &str, options: &ServiceAccountOptions) -> Result<TokenKeys, Error> {
        let refused = |error: jsonwebtoken::errors::Error| Error::SigningKey { reason: error.to_string() };
        let (signing, algorithm) = match EncodingKey::from_ec_pem(pem.as_bytes()) {
            Ok(key) => (key, Algorithm::ES256),
            Err(_) => (EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(refused)?, Algorithm::RS256),
        };
        let mut jwk = Jwk::from_encoding_key(&signing, algorithm).map_err(refused)?;
        let key_id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(refused)?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        let verifying = DecodingKey::from_jwk(&jwk).map_err(refused)?;
        let issuers = options.issuers.clone();
        let mut audiences = options.api_audiences.clone();
        if audiences.is_empty() {
            audiences.clone_from(&issuers);
        }
        Ok(TokenKeys { issuers, audiences, signing, verifying, algorithm, key_id, jwks: JwkSet { keys: vec![jwk] } })
    }

    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// The audiences of this API server; never empty.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// What `/openid/v1/jwks` answers.
    pub fn jwks(&self) -> &JwkSet {
        &self.jwks
    }

    /// As the discovery document names it.
    pub fn algorithm(&self) -> &'static str {
        if self.algorithm == Algorithm::ES256 { "ES256" } else { "RS256" }
    }

    /// A signed token. The outer error text is for the server's log only.
    pub fn sign(&self, request: TokenRequest<'_>) -> Result<String, jsonwebtoken::errors::Error> {
        let TokenRequest { namespace, service_account, audiences, bound, seconds, now_seconds, id } = request;
        let claims = Claims {
            aud: audiences,
            exp: now_seconds.saturating_add(seconds),
            iat: now_seconds,
            iss: self.issuer().to_owned(),
            jti: id,
            sub: format!("{}{namespace}:{}", Identity::SERVICE_ACCOUNT_PREFIX, service_account.name),
            kubernetes: KubernetesClaims {
                namespace: namespace.to_owned(),
                node: bound.node,
                pod: bound.pod,
                secret: bound.secret,
                serviceaccount: service_account,
                warnafter: None,
            },
            nbf: now_seconds,
        };
        let header = Header { typ: None, kid: Some(self.key_id.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, &claims, &self.signing)
    }

    /// Checks signature, issuer, times and audience (`audiences` empty: this API server's).
    pub fn verify(&self, token: &str, audiences: &[String], now_seconds: i64) -> Result<Claims, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long".to_owned());
        }
        let mut validation = Validation::new(self.algorithm);
        // Times and audience are checked below, against the clock that is handed in.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims = HashSet::new();
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation)
            .map_err(|error| error.to_string())?
            .claims;
        if !self.issuers.contains(&claims.iss) {
            return Err(format!("issued by {}", claims.iss));
        }
        if claims.exp <= now_seconds {
            return Err("the token has expired".to_owned());
        }
        if claims.nbf > now_seconds {
            return Err("the token is not valid yet".to_owned());
        }
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        if !claims.aud.iter().any(|audience| wanted.contains(audience)) {
            return Err(format!("the token is for {:?}", claims.aud));
        }
        Ok(claims)
    }
}

impl Claims {
    /// The ServiceAccount and what the token is bound to must still be the same objects.
    pub fn check_bound(&self, cache: &Cache) -> Result<(), String> {
        let claims = &self.kubernetes;
        let account = alive(cache, "/registry/serviceaccounts/", &claims.namespace, &claims.serviceaccount)?;
        drop(account);
        if let Some(pod) = &claims.pod {
            alive(cache, "/registry/pods/", &claims.namespace, pod)?;
        }
        if let Some(secret) = &claims.secret {
            alive(cache, "/registry/secrets/", &claims.namespace, secret)?;
        }
        if let (Some(node), None) = (&claims.node, &claims.pod) {
            alive(cache, "/registry/minions/", "", node)?;
        }
        Ok(())
    }

    pub fn identity(&self) -> Identity {
        let claims = &self.kubernetes;
        let mut identity = Identity::service_account(&claims.namespace, &claims.serviceaccount.name);
        identity.uid = claims.serviceaccount.uid.clone();
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
            add("node-uid", node.uid.clone());
        }
        identity.extra = extra;
        identity
    }
}

fn alive(cache: &Cache, prefix: &str, namespace: &str, named: &Named) -> Result<std::sync::Arc<Stored>, String> {
    let path = if namespace.is_empty() { named.name.clone() } else { format!("{namespace}/{}", named.name) };
    let stored = cache
        .resource(prefix.as_bytes())
        .and_then(|resource| resource.get(&path))
        .ok_or_else(|| format!("{prefix}{path} is gone"))?;
    let object: Value = serde_json::from_slice(&stored.value).map_err(|error| error.to_string())?;
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    if uid == named.uid { Ok(stored) } else { Err(format!("{prefix}{path} is another one now")) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            now_seconds: 1_000,
            id: "id".into(),
        };
        keys.sign(request).unwrap()
    }

    #[test]
    fn a_token_is_taken_only_in_its_time_for_its_audience_and_from_its_issuer() {
        let keys_here = keys("https://here");
        let token = token(&keys_here);
        let claims = keys_here.verify(&token, &[], 1_500).unwrap();
        assert_eq!(claims.sub, "system:serviceaccount:shop:web");
        let identity = claims.identity();
        assert_eq!(identity.extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
        assert!(identity.is_in("system:serviceaccounts:shop"));
        assert!(keys_here.verify(&token, &[], 1_600).unwrap_err().contains("expired"));
        assert!(keys_here.verify(&token, &[], 999).unwrap_err().contains("not valid yet"));
        assert!(keys_here.verify(&token, &["vault".to_owned()], 1_500).is_err());
        assert!(keys("https://here").verify(&token, &[], 1_500).is_err(), "another key");
        let mut forged = token.clone();
        forged.pop();
        assert!(keys_here.verify(&forged, &[], 1_500).is_err());
    }
}
