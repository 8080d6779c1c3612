//! An issuer on loopback, and what its tokens are worth.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::testing::Fixture;
use crate::webhook::testing::{Program, answer};

const NOW: i64 = 1_000_000;

struct FakeIssuer {
    program: Program,
    keys: Arc<Mutex<Vec<(EncodingKey, Jwk)>>>,
    fetches: Arc<AtomicUsize>,
}

fn key() -> (EncodingKey, Jwk) {
    let key = EncodingKey::from_ec_pem(pki::new_signing_key().unwrap().as_bytes()).unwrap();
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).unwrap());
    (key, jwk)
}

impl FakeIssuer {
    async fn start() -> FakeIssuer {
        let (keys, fetches) = (Arc::new(Mutex::new(vec![key()])), Arc::new(AtomicUsize::new(0)));
        let (published, counted) = (keys.clone(), fetches.clone());
        let program = Program::start("issuer", move |request: Request<Bytes>| {
            let host = request.uri().authority().map(ToString::to_string);
            let host = host.unwrap_or_else(|| request.headers()["host"].to_str().unwrap().to_owned());
            let answered = match request.uri().path() {
                "/.well-known/openid-configuration" => {
                    json!({"issuer": format!("https://{host}"), "jwks_uri": format!("https://{host}/keys")})
                }
                "/keys" => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let keys: Vec<Jwk> = published.lock().iter().map(|(_, jwk)| jwk.clone()).collect();
                    json!({"keys": keys})
                }
                _ => return std::future::ready(answer(404, "")),
            };
            std::future::ready(answer(200, answered.to_string()))
        })
        .await;
        FakeIssuer { program, keys, fetches }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.program.port)
    }

    fn config(&self, rest: &str) -> String {
        let pem: String = self.program.authority.cert_pem().lines().map(|line| format!("      {line}\n")).collect();
        let mappings = if rest.contains("claimMappings") {
            ""
        } else {
            "  claimMappings: {username: {claim: sub, prefix: 'oidc:'}, groups: {claim: groups, prefix: ''}}\n"
        };
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {}\n    \
             audiences: [cluster]\n    certificateAuthority: |\n{pem}{mappings}{rest}",
            self.url()
        )
    }

    /// A token with these claims besides issuer, audience and times, signed with the newest key.
    fn token(&self, more: Value) -> String {
        let mut claims = json!({"iss": self.url(), "aud": "cluster", "exp": NOW + 60, "sub": "alice"});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let keys = self.keys.lock();
        let (key, jwk) = keys.last().unwrap();
        let header = Header { kid: jwk.common.key_id.clone(), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, key).unwrap()
    }

    async fn issuers(&self, t: &Fixture, rest: &str) -> (Issuers, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authentication.yaml");
        std::fs::write(&path, self.config(rest)).unwrap();
        let caller = Arc::new(Caller::new(t.server.cache().clone(), "v1.36.2"));
        let configured = start(Some(&path), None, &[], &caller, &Shutdown::new()).unwrap();
        assert!(configured.issuers.0.load().ready().await);
        (configured.issuers, directory)
    }

    async fn ask(&self, issuers: &Issuers, more: Value) -> Result<crate::Identity, String> {
        let token = self.token(more);
        let issuer = tokens::issuer(&token).unwrap();
        let found = issuers.authenticate(&token, &issuer, &["us".to_owned()], NOW).await?;
        Ok(found.unwrap().identity.as_ref().clone())
    }
}

#[tokio::test]
async fn a_token_is_taken_from_its_issuer_for_its_audience_in_its_time() {
    let t = Fixture::start().await;
    let issuer = FakeIssuer::start().await;
    let (issuers, _directory) = issuer.issuers(&t, "").await;
    let user = issuer.ask(&issuers, json!({"groups": ["dev", "ops"], "jti": "7"})).await.unwrap();
    assert_eq!(user.name, "oidc:alice");
    assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=7"]);
    assert_eq!(issuer.ask(&issuers, json!({"groups": "dev"})).await.unwrap().groups[0], "dev", "one group as a string");
    for (claims, expected) in [
        (json!({"aud": ["other"]}), "oidc: expected audience in [\"cluster\"] got [\"other\"]"),
        (json!({"exp": NOW - 1}), "oidc: token is expired"),
        (json!({"nbf": NOW + 301}), "oidc: current time before the nbf (not before) time"),
        (json!({"sub": 5}), "oidc: parse username claims \"sub\""),
        (json!({"groups": [5]}), "oidc: parse groups claim \"groups\""),
    ] {
        let refused = issuer.ask(&issuers, claims.clone()).await.unwrap_err();
        assert!(refused.contains(expected), "{claims}: {refused}");
    }
    let mut forged = issuer.token(json!({}));
    forged.replace_range(forged.len() - 2.., "AA");
    assert!(issuers.authenticate(&forged, &issuer.url(), &[], NOW).await.is_err());
    assert!(issuers.authenticate(&forged, "https://other", &[], NOW).await.unwrap().is_none());
    assert!(issuer.fetches.load(Ordering::SeqCst) <= 2, "keys are kept, and wrong signatures do not fetch them again");
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_fetched() {
    let t = Fixture::start().await;
    let issuer = FakeIssuer::start().await;
    let (issuers, _directory) = issuer.issuers(&t, "").await;
    issuer.keys.lock().push(key());
    assert_eq!(issuer.ask(&issuers, json!({})).await.unwrap().name, "oidc:alice");
    issuer.keys.lock().push(key());
    let refused = issuer.ask(&issuers, json!({})).await.unwrap_err();
    assert!(refused.contains("failed to verify id token signature"), "not again so soon: {refused}");
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn expressions_map_claims_and_rules_refuse_users() {
    let t = Fixture::start().await;
    let issuer = FakeIssuer::start().await;
    let rest = "  claimMappings:\n    username: {expression: 'claims.org + \":\" + claims.sub'}\n    \
                groups: {expression: 'claims.roles.split(\",\")'}\n    uid: {claim: id}\n    \
                extra: [{key: example.com/tier, valueExpression: 'claims.?tier.orValue(\"\")'}]\n  \
                claimValidationRules:\n  - {claim: hd, requiredValue: example.com}\n  \
                - {expression: 'claims.exp - claims.iat <= 3600', message: lives too long}\n  \
                userValidationRules:\n  - {expression: '!user.username.startsWith(\"system:\")', message: reserved}\n";
    let (issuers, _directory) = issuer.issuers(&t, rest).await;
    let claims =
        json!({"org": "acme", "roles": "dev,ops", "id": "u1", "tier": "gold", "hd": "example.com", "iat": NOW});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let user = issuer.ask(&issuers, claims.clone()).await.unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("acme:alice", "u1"));
    assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(user.extra["example.com/tier"], ["gold"]);
    let user = issuer.ask(&issuers, with("tier", "".into())).await.unwrap();
    assert!(!user.extra.contains_key("example.com/tier"), "an empty value is none");
    for (claims, expected) in [
        (
            with("hd", "other.com".into()),
            "oidc: required claim hd value does not match. Got = other.com, want = example.com",
        ),
        (with("iat", 0.into()), "failed: lives too long"),
        (with("org", "system".into()), "failed: reserved"),
        (json!({"hd": "example.com"}), "oidc: error evaluating username claim expression: no such key: org"),
    ] {
        let refused = issuer.ask(&issuers, claims).await.unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_over_when_its_issuers_are_found() {
    let t = Fixture::start().await;
    let (first, second) = (FakeIssuer::start().await, FakeIssuer::start().await);
    let (issuers, _directory) = first.issuers(&t, "").await;
    let follower = Arc::new(Follower {
        current: issuers.0.clone(),
        caller: Arc::new(Caller::new(t.server.cache().clone(), "v1.36.2")),
        disallowed: Vec::new(),
        anonymous: None,
        shutdown: Shutdown::new(),
    });
    for refused in ["jwt: 5".to_owned(), format!("{}anonymous: {{enabled: false}}\n", second.config(""))] {
        assert!(follower.clone().take_over(refused).await, "it is not tried again");
        assert!(first.ask(&issuers, json!({})).await.is_ok());
    }
    assert!(follower.take_over(second.config("")).await);
    assert!(second.ask(&issuers, json!({})).await.is_ok());
    let token = first.token(json!({}));
    assert!(issuers.authenticate(&token, &first.url(), &[], NOW).await.unwrap().is_none(), "it is known no more");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_field() {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    let refused = |rest: &str| {
        let disallowed = ["https://kubernetes.default.svc".to_owned()];
        let parsed = AuthenticationConfiguration::parse(&format!("{head}{rest}"), &disallowed);
        let compiled = parsed.and_then(|config| {
            let mut all = config.jwt.iter().map(Mappings::compile);
            all.find_map(Result::err).map_or(Ok(()), |(field, why)| Err(format!("{field}: {why}")))
        });
        compiled.err().unwrap_or_default()
    };
    let issuer = |url: &str, rest: &str| {
        format!("jwt: [{{issuer: {{url: '{url}', audiences: [a]}}, claimMappings: {{{rest}}}}}]")
    };
    let name = "username: {claim: sub, prefix: ''}";
    assert_eq!(refused(&issuer("https://a", name)), "");
    for (rest, expected) in [
        (issuer("http://a", name), "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https"),
        (issuer("https://a?b", name), "URL must not contain a query"),
        (issuer("https://kubernetes.default.svc", name), "URL must not overlap with disallowed issuers"),
        (issuer("https://a", ""), "claimMappings.username: Required value: claim or expression is required"),
        (issuer("https://a", "username: {claim: sub}"), "jwt[0].claimMappings.username.prefix: Required value"),
        (issuer("https://a", "username: {expression: 'claims.'}"), "claimMappings.username.expression: Invalid value"),
        (issuer("https://a", "username: {expression: '1'}"), "must evaluate to string"),
        (issuer("https://a", "username: {expression: claims.email}"), "claims.email_verified must be used"),
        (
            issuer(
                "https://a",
                "username: {claim: sub, prefix: ''}, extra: [{key: k8s.io/a, valueExpression: claims.a}]",
            ),
            "are reserved for Kubernetes use",
        ),
        ("anonymous: {enabled: false, conditions: [{path: /livez}]}".to_owned(), "anonymous.conditions: Invalid value"),
        ("jwd: []".to_owned(), "jwd"),
    ] {
        let error = refused(&rest);
        assert!(error.contains(expected), "{rest}: {error}");
    }
}

#[test]
fn flags_prefix_names_by_their_issuer_unless_told_otherwise() {
    let prefix = |claim: &str, prefix: &str| {
        let options = OidcOptions {
            issuer_url: "https://id".into(),
            username_claim: claim.into(),
            username_prefix: prefix.into(),
            ..OidcOptions::default()
        };
        JwtAuthenticator::of_flags(&options, String::new()).claim_mappings.username.prefix.unwrap()
    };
    assert_eq!(prefix("sub", ""), "https://id#");
    assert_eq!(prefix("email", ""), "");
    assert_eq!(prefix("sub", "-"), "");
    assert_eq!(prefix("sub", "x:"), "x:");
}
