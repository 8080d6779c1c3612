//! The configuration of EventRateLimit.

use api::FieldError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{EventLimit, EventLimitKind};

/// Upstream: `eventratelimit.admission.k8s.io/v1alpha1`, `Configuration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    limits: Vec<Limit>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Limit {
    #[serde(rename = "type")]
    kind: String,
    qps: i32,
    burst: i32,
    cache_size: i32,
}

const CACHE_SIZE_DEFAULT: usize = 4096;

pub(super) fn read(configuration: Value) -> Result<Vec<EventLimit>, String> {
    let read: Configuration = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    if read.kind != "Configuration" || read.api_version != "eventratelimit.admission.k8s.io/v1alpha1" {
        return Err("EventRateLimit takes a Configuration of eventratelimit.admission.k8s.io/v1alpha1".to_owned());
    }
    let mut errors = Vec::new();
    if read.limits.is_empty() {
        errors.push(FieldError::invalid("limits", &json!([]), "must not be empty"));
    }
    let mut limits = Vec::new();
    for (index, limit) in read.limits.iter().enumerate() {
        let at = |field: &str| format!("limits[{index}].{field}");
        let kind = EventLimitKind::ALL.into_iter().find(|kind| kind.as_str() == limit.kind);
        if kind.is_none() {
            let supported = EventLimitKind::ALL.map(EventLimitKind::as_str);
            errors.push(FieldError::not_supported(at("type"), &json!(limit.kind), &supported));
        }
        for (field, number) in [("burst", limit.burst), ("qps", limit.qps)] {
            if number <= 0 {
                errors.push(FieldError::invalid(at(field), &json!(number), "must be positive"));
            }
        }
        if kind != Some(EventLimitKind::Server) && limit.cache_size < 0 {
            errors.push(FieldError::invalid(at("cacheSize"), &json!(limit.cache_size), "must not be negative"));
        }
        let buckets_max = usize::try_from(limit.cache_size).unwrap_or_default();
        limits.extend(kind.map(|kind| EventLimit {
            kind,
            per_second: u32::try_from(limit.qps).unwrap_or_default(),
            burst: u32::try_from(limit.burst).unwrap_or_default(),
            buckets_max: if buckets_max == 0 { CACHE_SIZE_DEFAULT } else { buckets_max },
        }));
    }
    if errors.is_empty() {
        return Ok(limits);
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        let of = |limits: Value| {
            let api_version = "eventratelimit.admission.k8s.io/v1alpha1";
            read(json!({"apiVersion": api_version, "kind": "Configuration", "limits": limits}))
        };
        let limits = of(json!([{"type": "User", "qps": 5, "burst": 10}])).unwrap();
        let expected =
            EventLimit { kind: EventLimitKind::User, per_second: 5, burst: 10, buckets_max: CACHE_SIZE_DEFAULT };
        assert_eq!(limits, [expected]);
        assert_eq!(of(json!([])).unwrap_err(), "limits: Invalid value: []: must not be empty");
        assert_eq!(
            of(json!([{"type": "Sun", "qps": 0, "burst": 1, "cacheSize": -1}])).unwrap_err(),
            "limits[0].type: Unsupported value: \"Sun\": supported values: \"Namespace\", \"Server\", \
             \"SourceAndObject\", \"User\", limits[0].qps: Invalid value: 0: must be positive, limits[0].cacheSize: \
             Invalid value: -1: must not be negative"
        );
    }
}
