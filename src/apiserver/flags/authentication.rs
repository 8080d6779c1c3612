//! Who are you: the flags of `src/apiserver/authn`.

use super::Flag;
use super::Set::{Duration, List, Repeated, Switch, Text};

pub(super) const FLAGS: &[Flag] = &[
    ("anonymous-auth", Switch(|config, on| config.authentication.anonymous = on)),
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
