//! Auditing: the flags of `src/apiserver/audit`.

use std::path::PathBuf;

use super::Flag;
use super::Set::{Duration, Switch, Text};
use super::protection::number;
use crate::audit::{Delivery, Format, Mode};
use crate::config::Config;

pub(super) const FLAGS: &[Flag] = &[
    ("audit-policy-file", Text(|config, path| set(&mut config.protection.audit.policy_file, file(path)))),
    ("audit-log-path", Text(|config, path| set(&mut config.protection.audit.log.file.path, path.into()))),
    ("audit-log-maxage", Text(|config, days| parse(days, &mut config.protection.audit.log.file.days_max))),
    ("audit-log-maxbackup", Text(|config, number| parse(number, &mut config.protection.audit.log.file.backups_max))),
    ("audit-log-maxsize", Text(|config, number| parse(number, &mut config.protection.audit.log.file.megabytes_max))),
    ("audit-log-compress", Switch(|config, on| config.protection.audit.log.file.compress = on)),
    (
        "audit-log-format",
        Text(|config, text| {
            let format = match text {
                "json" => Format::Json,
                "legacy" => Format::Legacy,
                _ => return Err("allowed formats are legacy,json".to_owned()),
            };
            set(&mut config.protection.audit.log.format, format)
        }),
    ),
    ("audit-log-version", Text(|_, text| version(text))),
    ("audit-log-mode", Text(|config, text| mode(text).map(|mode| log(config).mode = mode))),
    ("audit-log-batch-buffer-size", Text(|config, text| parse(text, &mut log(config).buffer_events_max))),
    ("audit-log-batch-max-size", Text(|config, text| parse(text, &mut log(config).batch_events_max))),
    ("audit-log-batch-max-wait", Duration(|config, time| log(config).batch_wait_max = time)),
    ("audit-log-batch-throttle-enable", Switch(|config, on| log(config).throttle = on)),
    ("audit-log-batch-throttle-qps", Text(|config, text| parse(text, &mut log(config).throttle_per_second))),
    ("audit-log-batch-throttle-burst", Text(|config, text| parse(text, &mut log(config).throttle_burst))),
    ("audit-log-truncate-enabled", Switch(|config, on| log(config).truncate = on)),
    ("audit-log-truncate-max-batch-size", Text(|config, text| parse(text, &mut log(config).batch_bytes_max))),
    ("audit-log-truncate-max-event-size", Text(|config, text| parse(text, &mut log(config).event_bytes_max))),
    (
        "audit-webhook-config-file",
        Text(|config, path| set(&mut config.protection.audit.webhook.config_file, file(path))),
    ),
    ("audit-webhook-initial-backoff", Duration(|config, time| config.protection.audit.webhook.initial_backoff = time)),
    ("audit-webhook-version", Text(|_, text| version(text))),
    ("audit-webhook-mode", Text(|config, text| mode(text).map(|mode| webhook(config).mode = mode))),
    ("audit-webhook-batch-buffer-size", Text(|config, text| parse(text, &mut webhook(config).buffer_events_max))),
    ("audit-webhook-batch-max-size", Text(|config, text| parse(text, &mut webhook(config).batch_events_max))),
    ("audit-webhook-batch-max-wait", Duration(|config, time| webhook(config).batch_wait_max = time)),
    ("audit-webhook-batch-throttle-enable", Switch(|config, on| webhook(config).throttle = on)),
    ("audit-webhook-batch-throttle-qps", Text(|config, text| parse(text, &mut webhook(config).throttle_per_second))),
    ("audit-webhook-batch-throttle-burst", Text(|config, text| parse(text, &mut webhook(config).throttle_burst))),
    ("audit-webhook-truncate-enabled", Switch(|config, on| webhook(config).truncate = on)),
    ("audit-webhook-truncate-max-batch-size", Text(|config, text| parse(text, &mut webhook(config).batch_bytes_max))),
    ("audit-webhook-truncate-max-event-size", Text(|config, text| parse(text, &mut webhook(config).event_bytes_max))),
];

fn log(config: &mut Config) -> &mut Delivery {
    &mut config.protection.audit.log.delivery
}

fn webhook(config: &mut Config) -> &mut Delivery {
    &mut config.protection.audit.webhook.delivery
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "batch" => Ok(Mode::Batch),
        "blocking" => Ok(Mode::Blocking),
        "blocking-strict" => Ok(Mode::BlockingStrict),
        _ => Err("allowed modes are batch,blocking,blocking-strict".to_owned()),
    }
}

fn version(text: &str) -> Result<(), String> {
    if text == "audit.k8s.io/v1" { Ok(()) } else { Err("the only known version is audit.k8s.io/v1".to_owned()) }
}

fn file(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| path.into())
}

fn set<T>(place: &mut T, value: T) -> Result<(), String> {
    *place = value;
    Ok(())
}

fn parse<T: std::str::FromStr>(text: &str, place: &mut T) -> Result<(), String> {
    set(place, number(text)?)
}
