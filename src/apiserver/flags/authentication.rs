//! Who are you: the flags of `src/apiserver/authn`.

use std::path::PathBuf;

use http::HeaderName;

use super::Set::{Duration, List, Repeated, Switch, Text};
use super::{Flag, file, review_version};
use crate::authn::algorithm;
use crate::config::{Config, OidcOptions, RequestHeaderOptions, TokenWebhookOptions};

pub(super) const FLAGS: &[Flag] = &[
    ("anonymous-auth", Switch(|config, on| config.authentication.anonymous = Some(on))),
    ("authentication-config", Text(|config, path| set(&mut config.authentication.config_file, file(path)?))),
    ("authentication-token-webhook-cache-ttl", Duration(|config, life| webhook(config).cache = life)),
    (
        "authentication-token-webhook-config-file",
        Text(|config, path| {
            webhook(config).config_file = file(path)?;
            Ok(())
        }),
    ),
    (
        "authentication-token-webhook-version",
        Text(|config, version| {
            webhook(config).version = review_version(version)?;
            Ok(())
        }),
    ),
    ("client-ca-file", Text(|config, path| set(&mut config.authentication.client_ca_file, file(path)?))),
    ("enable-bootstrap-token-auth", Switch(|config, on| config.authentication.bootstrap_tokens = on)),
    ("oidc-ca-file", Text(|config, path| set(&mut oidc(config).ca_file, file(path)?))),
    ("oidc-client-id", Text(|config, id| text(&mut oidc(config).client_id, id))),
    ("oidc-groups-claim", Text(|config, claim| text(&mut oidc(config).groups_claim, claim))),
    ("oidc-groups-prefix", Text(|config, prefix| text(&mut oidc(config).groups_prefix, prefix))),
    ("oidc-issuer-url", Text(|config, url| text(&mut oidc(config).issuer_url, url))),
    (
        "oidc-required-claim",
        Repeated(|config, claims| {
            let pairs = claims.iter().map(|claim| {
                let pair = claim.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
                pair.ok_or_else(|| "it should be claim=value".to_owned())
            });
            oidc(config).required_claims = pairs.collect::<Result<_, _>>()?;
            Ok(())
        }),
    ),
    (
        "oidc-signing-algs",
        List(|config, names| {
            let algorithm =
                |name: &String| algorithm(name).ok_or_else(|| format!("oidc: unsupported signing alg: {name:?}"));
            oidc(config).signing_algorithms = names.iter().map(algorithm).collect::<Result<_, _>>()?;
            Ok(())
        }),
    ),
    ("oidc-username-claim", Text(|config, claim| text(&mut oidc(config).username_claim, claim))),
    ("oidc-username-prefix", Text(|config, prefix| text(&mut oidc(config).username_prefix, prefix))),
    ("requestheader-allowed-names", List(|config, names| proxy(config, |proxy| proxy.allowed_names = names))),
    (
        "requestheader-client-ca-file",
        Text(|config, path| {
            let path = file(path)?;
            proxy(config, |proxy| proxy.client_ca_file = path)
        }),
    ),
    (
        "requestheader-extra-headers-prefix",
        List(|config, prefixes| proxy(config, |proxy| proxy.extra_headers_prefix = prefixes)),
    ),
    (
        "requestheader-group-headers",
        List(|config, names| {
            let names = headers(names)?;
            proxy(config, |proxy| proxy.group_headers = names)
        }),
    ),
    (
        "requestheader-uid-headers",
        List(|config, names| {
            let names = headers(names)?;
            proxy(config, |proxy| proxy.uid_headers = names)
        }),
    ),
    (
        "requestheader-username-headers",
        List(|config, names| {
            let names = headers(names)?;
            proxy(config, |proxy| proxy.username_headers = names)
        }),
    ),
    (
        "service-account-extend-token-expiration",
        Switch(|config, on| {
            config.service_accounts.extend_token_expiration = on;
        }),
    ),
    (
        "service-account-key-file",
        Repeated(|config, paths| {
            config.service_accounts.key_files = paths.iter().map(|path| file(path)).collect::<Result<_, _>>()?;
            Ok(())
        }),
    ),
    ("service-account-lookup", Switch(|config, on| config.service_accounts.lookup = on)),
    ("token-auth-file", Text(|config, path| set(&mut config.authentication.token_file, file(path)?))),
    (
        "api-audiences",
        List(|config, audiences| {
            config.service_accounts.api_audiences = audiences;
            Ok(())
        }),
    ),
    (
        "service-account-issuer",
        Repeated(|config, issuers| {
            if issuers.iter().any(String::is_empty) {
                return Err("an issuer must not be empty".to_owned());
            }
            config.service_accounts.issuers = issuers;
            Ok(())
        }),
    ),
    (
        "service-account-jwks-uri",
        Text(|config, uri| {
            if !uri.starts_with("https://") {
                return Err("it requires https scheme".to_owned());
            }
            config.service_accounts.jwks_uri = Some(uri.to_owned());
            Ok(())
        }),
    ),
    (
        "service-account-max-token-expiration",
        Duration(|config, max| config.service_accounts.token_expiration_max = (!max.is_zero()).then_some(max)),
    ),
];

fn set(place: &mut Option<PathBuf>, path: PathBuf) -> Result<(), String> {
    *place = Some(path);
    Ok(())
}

/// The flags of the front proxy come in any order; without `requestheader-client-ca-file` the server does not start.
fn proxy(config: &mut Config, change: impl FnOnce(&mut RequestHeaderOptions)) -> Result<(), String> {
    change(config.authentication.request_header.get_or_insert_with(|| RequestHeaderOptions::new("")));
    Ok(())
}

fn text(place: &mut String, text: &str) -> Result<(), String> {
    text.clone_into(place);
    Ok(())
}

fn oidc(config: &mut Config) -> &mut OidcOptions {
    config.authentication.oidc.get_or_insert_default()
}

fn webhook(config: &mut Config) -> &mut TokenWebhookOptions {
    config.authentication.token_webhook.get_or_insert_default()
}

fn headers(names: Vec<String>) -> Result<Vec<String>, String> {
    match names.iter().find(|name| name.parse::<HeaderName>().is_err()) {
        Some(name) => Err(format!("{name:?} is no name of a header")),
        None => Ok(names),
    }
}
