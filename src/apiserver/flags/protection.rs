//! What the server takes upon itself: the flags of `src/apiserver/flowcontrol` and of its limits.

use super::Flag;
use super::Set::{Duration, Switch, Text};

pub(super) const FLAGS: &[Flag] = &[
    (
        "encryption-provider-config",
        Text(|config, path| {
            config.protection.encryption.config_file = (!path.is_empty()).then(|| path.into());
            Ok(())
        }),
    ),
    (
        "encryption-provider-config-automatic-reload",
        Switch(|config, on| config.protection.encryption.automatic_reload = on),
    ),
    (
        "goaway-chance",
        Text(|config, text| match number::<f64>(text)? {
            chance if (0.0..=0.02).contains(&chance) => {
                config.limits.goaway_chance = chance;
                Ok(())
            }
            _ => Err("--goaway-chance can not be less than 0 or greater than 0.02".to_owned()),
        }),
    ),
    (
        "max-mutating-requests-inflight",
        Text(|config, text| number(text).map(|number| config.limits.mutating_in_flight_max = number)),
    ),
    (
        "max-requests-inflight",
        Text(|config, text| number(text).map(|number| config.limits.reading_in_flight_max = number)),
    ),
    ("min-request-timeout", Text(|config, text| seconds(text).map(|time| config.limits.watch_min = time))),
    ("shutdown-delay-duration", Duration(|config, time| config.protection.shutdown_delay = time)),
    (
        "request-timeout",
        Duration(|config, time| {
            config.limits.request_max = time;
            // Upstream lets a request wait for a quarter of its time, and a minute at most.
            config.limits.wait_max = (time / 4).min(std::time::Duration::from_secs(60));
        }),
    ),
];

pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "it should be a number that is not negative".to_owned())
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    number(text).map(std::time::Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::audit::Mode;
    use crate::testing;

    #[test]
    fn flags_reach_what_they_are_for() {
        let mut config = testing::config("10.43.0.0/16");
        config
            .apply_flags([
                "max-requests-inflight=10",
                "max-mutating-requests-inflight=5",
                "request-timeout=40s",
                "min-request-timeout=60",
                "goaway-chance=0.01",
                "shutdown-delay-duration=5s",
                "audit-policy-file=/etc/policy.yaml",
                "audit-log-path=/var/log/audit.log",
                "audit-log-mode=blocking-strict",
                "audit-log-maxsize=10",
                "audit-webhook-batch-throttle-qps=2.5",
                "encryption-provider-config=/etc/encryption.yaml",
                "encryption-provider-config-automatic-reload",
            ])
            .unwrap();
        let (limits, protection) = (config.limits, config.protection);
        assert_eq!((limits.reading_in_flight_max, limits.mutating_in_flight_max), (10, 5));
        assert_eq!((limits.request_max, limits.wait_max), (Duration::from_secs(40), Duration::from_secs(10)));
        assert_eq!((limits.watch_min, limits.goaway_chance), (Duration::from_secs(60), 0.01));
        assert_eq!(protection.shutdown_delay, Duration::from_secs(5));
        assert_eq!(protection.audit.policy_file.unwrap().to_str(), Some("/etc/policy.yaml"));
        assert_eq!(
            (protection.audit.log.delivery.mode, protection.audit.log.file.megabytes_max),
            (Mode::BlockingStrict, 10)
        );
        assert_eq!(protection.audit.webhook.delivery.throttle_per_second, 2.5);
        assert!(protection.encryption.config_file.is_some() && protection.encryption.automatic_reload);
        for wrong in ["goaway-chance=0.5", "max-requests-inflight=-1", "audit-log-mode=loud", "audit-log-format=xml"] {
            assert!(testing::config("10.43.0.0/16").apply_flags([wrong]).is_err(), "{wrong}");
        }
    }
}
