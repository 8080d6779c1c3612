//! EventRateLimit: how many Events come in, in all, from a namespace, from a user, or from a source about an object.

use std::collections::{BTreeMap, HashMap};

use api::{Failure, Fields, Reason};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;
use crate::config::{EventLimit, EventLimitKind};

pub struct EventRateLimit {
    limits: Vec<(EventLimit, Mutex<Buckets>)>,
}

impl EventRateLimit {
    pub fn new(limits: &[EventLimit]) -> EventRateLimit {
        EventRateLimit { limits: limits.iter().map(|limit| (*limit, Mutex::default())).collect() }
    }
}

impl Plugin for EventRateLimit {
    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let resource = &attributes.row.resource;
        let is_event = resource.group.is_empty() && resource.plural == "events";
        if !is_event || attributes.dry_run || !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let now = Instant::now();
        let mut reached = Vec::new();
        for (limit, buckets) in &self.limits {
            let key = key(limit.kind, attributes, object);
            if !buckets.lock().take(limit, &key, now) {
                reached.push(format!("limit reached on type {} for key {key}", limit.kind.as_str()));
            }
        }
        let text = match reached.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        Err(Failure::new(Reason::TooManyRequests, format!("Too many requests: {text}")))
    }
}

/// Whose bucket it is.
fn key(kind: EventLimitKind, attributes: &Attributes<'_>, event: Option<&Value>) -> String {
    match kind {
        EventLimitKind::Server => String::new(),
        EventLimitKind::Namespace => attributes.namespace.to_owned(),
        EventLimitKind::User => attributes.user.name.clone(),
        EventLimitKind::SourceAndObject => {
            let Some(event) = event else { return String::new() };
            let (source, about) = (event.part("source"), event.part("involvedObject"));
            let about = ["kind", "namespace", "name", "uid", "apiVersion"].map(|field| about.text(field)).concat();
            format!("{}{}{about}", source.text("component"), source.text("host"))
        }
    }
}

/// Token buckets, of which those that were used last are kept.
#[derive(Default)]
struct Buckets {
    by_key: HashMap<String, Bucket>,
    /// Keys by when they were used.
    used: BTreeMap<u64, String>,
    uses: u64,
}

struct Bucket {
    tokens: f64,
    at: Instant,
    use_number: u64,
}

impl Buckets {
    fn take(&mut self, limit: &EventLimit, key: &str, now: Instant) -> bool {
        self.uses += 1;
        let number = self.uses;
        if let Some(bucket) = self.by_key.get_mut(key) {
            self.used.remove(&bucket.use_number);
            self.used.insert(number, key.to_owned());
            bucket.use_number = number;
            let gained = now.duration_since(bucket.at).as_secs_f64() * f64::from(limit.per_second);
            bucket.tokens = (bucket.tokens + gained).min(f64::from(limit.burst));
            bucket.at = now;
            let has = bucket.tokens >= 1.0;
            if has {
                bucket.tokens -= 1.0;
            }
            return has;
        }
        if self.by_key.len() >= limit.buckets_max
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        self.used.insert(number, key.to_owned());
        let bucket = Bucket { tokens: f64::from(limit.burst) - 1.0, at: now, use_number: number };
        self.by_key.insert(key.to_owned(), bucket);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_namespace_has_so_many_events() {
        let limit = EventLimit { kind: EventLimitKind::Namespace, per_second: 1, burst: 2, buckets_max: 4096 };
        let t = Fixture::with(|config| {
            config.admission.enabled = vec!["EventRateLimit".to_owned()];
            config.admission.event_limits = vec![limit];
        });
        let t = t.await;
        let event = |name: &str| {
            let about = json!({"namespace": "default", "kind": "Pod", "name": "p"});
            json!({"metadata": {"name": name}, "involvedObject": about})
        };
        t.create("", "events", event("a")).await.unwrap();
        t.create("", "events", event("b")).await.unwrap();
        let failure = t.create("", "events", event("c")).await.unwrap_err();
        assert_eq!(failure.code, 429);
        assert_eq!(failure.message, "Too many requests: limit reached on type Namespace for key default");
    }

    #[test]
    fn buckets_fill_again_and_are_bounded() {
        let limit = EventLimit { kind: EventLimitKind::User, per_second: 2, burst: 1, buckets_max: 2 };
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        assert!(buckets.take(&limit, "a", now));
        assert!(!buckets.take(&limit, "a", now + Duration::from_millis(400)));
        assert!(buckets.take(&limit, "a", now + Duration::from_millis(500)));
        for key in ["b", "c", "d"] {
            assert!(buckets.take(&limit, key, now + Duration::from_millis(500)));
        }
        assert_eq!((buckets.by_key.len(), buckets.used.len()), (2, 2));
        assert!(buckets.take(&limit, "a", now + Duration::from_millis(500)), "forgotten, so it begins anew");
    }
}
