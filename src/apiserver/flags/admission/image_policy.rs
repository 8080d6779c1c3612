//! The configuration of ImagePolicyWebhook.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::config::ImagePolicy;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    image_policy: Policy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    kube_config_file: PathBuf,
    #[serde(default, rename = "allowTTL")]
    allow_ttl: i64,
    #[serde(default, rename = "denyTTL")]
    deny_ttl: i64,
    #[serde(default)]
    retry_backoff: i64,
    #[serde(default)]
    default_allow: bool,
}

const LIFE_RANGE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30 * 60)];
const PAUSE_RANGE: [Duration; 2] = [Duration::from_nanos(1), Duration::from_secs(5 * 60)];

pub(super) fn read(configuration: Value) -> Result<ImagePolicy, String> {
    let Configuration { image_policy: read } =
        serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    let seconds = Duration::from_secs;
    Ok(ImagePolicy {
        kubeconfig: read.kube_config_file,
        allowed_life: time(read.allow_ttl, seconds(1), LIFE_RANGE, seconds(5 * 60))?,
        denied_life: time(read.deny_ttl, seconds(1), LIFE_RANGE, seconds(30))?,
        retry_pause: time(read.retry_backoff, Duration::from_millis(1), PAUSE_RANGE, Duration::from_millis(500))?,
        fails_open: read.default_allow,
    })
}

/// Zero stands for the default, and -1 for none.
fn time(number: i64, unit: Duration, [min, max]: [Duration; 2], default: Duration) -> Result<Duration, String> {
    match number {
        0 => return Ok(default),
        -1 => return Ok(Duration::ZERO),
        _ => {}
    }
    let value = u32::try_from(number).ok().map(|number| unit.saturating_mul(number));
    match value.filter(|value| (min..=max).contains(value)) {
        Some(value) => Ok(value),
        None => Err(format!("valid value is between {min:?} and {max:?}, got {number}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_have_defaults_and_bounds() {
        let of = |policy: Value| read(json!({"imagePolicy": policy}));
        let policy = of(json!({"kubeConfigFile": "/k", "allowTTL": 50, "denyTTL": -1, "defaultAllow": true})).unwrap();
        assert_eq!(policy.allowed_life, Duration::from_secs(50));
        assert_eq!(policy.denied_life, Duration::ZERO);
        assert_eq!(policy.retry_pause, Duration::from_millis(500));
        assert!(policy.fails_open);
        let error = of(json!({"kubeConfigFile": "/k", "allowTTL": 3600})).unwrap_err();
        assert_eq!(error, "valid value is between 1s and 1800s, got 3600");
    }
}
