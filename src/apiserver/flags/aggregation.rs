//! Towards aggregated API servers: the flags of `src/apiserver/aggregator`.

use super::Set::{Switch, Text};
use super::{Flag, file};

pub(super) const FLAGS: &[Flag] = &[
    // Aggregated servers are always reached at the endpoints of their Services; upstream by default at the address of
    // the Service, which is the same for whoever is asked.
    ("enable-aggregator-routing", Switch(|_, _| {})),
    (
        "proxy-client-cert-file",
        Text(|config, path| {
            config.aggregation.files.certificate = Some(file(path)?);
            Ok(())
        }),
    ),
    (
        "proxy-client-key-file",
        Text(|config, path| {
            config.aggregation.files.key = Some(file(path)?);
            Ok(())
        }),
    ),
];
