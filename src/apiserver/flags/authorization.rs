//! May they: the flags of `src/apiserver/authz`.

use super::Set::{Duration, List, Text};
use super::{Flag, file, review_version};
use crate::config::{AuthorizationMode, AuthorizationOptions};

pub(super) const FLAGS: &[Flag] = &[
    (
        "authorization-config",
        Text(|config, path| {
            config.authorization.config_file = Some(file(path)?);
            Ok(())
        }),
    ),
    (
        "authorization-mode",
        List(|config, names| {
            let mut modes = Vec::new();
            for name in &names {
                let mode = mode(name)?;
                if modes.contains(&mode) {
                    return Err(format!("{name} is specified more than once"));
                }
                modes.push(mode);
            }
            if modes.is_empty() {
                return Err("at least one authorization-mode must be passed".to_owned());
            }
            chosen(&mut config.authorization).modes = modes;
            Ok(())
        }),
    ),
    (
        "authorization-webhook-cache-authorized-ttl",
        Duration(|config, life| chosen(&mut config.authorization).webhook.cache_authorized = life),
    ),
    (
        "authorization-webhook-cache-unauthorized-ttl",
        Duration(|config, life| chosen(&mut config.authorization).webhook.cache_unauthorized = life),
    ),
    (
        "authorization-webhook-config-file",
        Text(|config, path| {
            chosen(&mut config.authorization).webhook.config_file = Some(file(path)?);
            Ok(())
        }),
    ),
    (
        "authorization-webhook-version",
        Text(|config, version| {
            chosen(&mut config.authorization).webhook.version = review_version(version)?;
            Ok(())
        }),
    ),
];

fn chosen(options: &mut AuthorizationOptions) -> &mut AuthorizationOptions {
    options.chosen = true;
    options
}

fn mode(name: &str) -> Result<AuthorizationMode, String> {
    match name {
        "AlwaysAllow" => Ok(AuthorizationMode::AlwaysAllow),
        "AlwaysDeny" => Ok(AuthorizationMode::AlwaysDeny),
        "Node" => Ok(AuthorizationMode::Node),
        "RBAC" => Ok(AuthorizationMode::Rbac),
        "Webhook" => Ok(AuthorizationMode::Webhook),
        "ABAC" => Err("ABAC is not supported; use RBAC".to_owned()),
        _ => Err(format!("{name:?} is not a valid mode")),
    }
}
