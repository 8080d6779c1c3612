//! Writes Events: what a component did and why, for `kubectl describe` and `kubectl events`.
//!
//! Recording never waits and never fails: events queue up to a bound and are dropped beyond it. The same event about
//! the same object is counted in one Event object instead of repeated, and an object that causes many different ones
//! is held to a rate, as upstream's correlator does (a burst of 25, then one in five minutes).

use std::collections::HashMap;
use std::time::Duration;

use api::Failure;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Object;
use crate::calls::{Client, Patch};

const QUEUED_MAX: usize = 1000;
/// Series and rates remembered at a time; the oldest go first.
const REMEMBERED_MAX: usize = 4096;
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// A series that was silent for this long begins anew, as a new Event.
const SERIES_SILENCE: Duration = Duration::from_secs(600);

/// The object an event is about.
#[derive(Clone, Debug)]
pub struct Involved(ObjectReference);

impl Involved {
    pub fn new<T: Object>(object: &T) -> Involved {
        let meta = object.metadata();
        Involved(ObjectReference {
            api_version: Some(T::API_VERSION.to_owned()),
            kind: Some(T::KIND.to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        })
    }

    /// About a part of the object, such as `spec.containers{web}`.
    pub fn field(mut self, path: impl Into<String>) -> Involved {
        self.0.field_path = Some(path.into());
        self
    }
}

/// Records the events of one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Entry>,
}

struct Entry {
    involved: Involved,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// `component` as in upstream's events: `kubelet`, `default-scheduler`, `deployment-controller`. `host` is the node's
    /// name for what runs on a node.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Recorder {
        let (queue, entries) = mpsc::channel(QUEUED_MAX);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        task::spawn("events", Writer { client, source, series: HashMap::new(), rates: HashMap::new() }.run(entries));
        Recorder { queue }
    }

    pub fn normal(&self, involved: Involved, reason: &str, message: impl Into<String>) {
        self.record(involved, "Normal", reason, message.into());
    }

    pub fn warning(&self, involved: Involved, reason: &str, message: impl Into<String>) {
        self.record(involved, "Warning", reason, message.into());
    }

    fn record(&self, involved: Involved, kind: &'static str, reason: &str, message: String) {
        const MESSAGE_BYTES_MAX: usize = 1024;
        let mut message = message;
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
            message.truncate(end);
        }
        let entry = Entry { involved, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.queue.try_send(entry).is_err() {
            tracing::debug!(reason, "event dropped: too many at once");
        }
    }
}

type SeriesKey = (Option<String>, Option<String>, &'static str, String, String);

struct Series {
    namespace: String,
    name: String,
    count: i32,
    last: Instant,
}

struct Rate {
    tokens: f64,
    at: Instant,
}

struct Writer {
    client: Client,
    source: EventSource,
    series: HashMap<SeriesKey, Series>,
    rates: HashMap<Option<String>, Rate>,
}

impl Writer {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        while let Some(entry) = entries.recv().await {
            let now = Instant::now();
            if !self.allowed(&entry, now) {
                continue;
            }
            if let Err(failure) = self.write(&entry, now).await {
                // An event in a namespace that is going away is no loss.
                tracing::debug!(reason = entry.reason, %failure, "event not written");
            }
        }
    }

    fn allowed(&mut self, entry: &Entry, now: Instant) -> bool {
        if self.rates.len() >= REMEMBERED_MAX {
            self.rates.retain(|_, rate| now.duration_since(rate.at) < REFILL);
        }
        let rate = self.rates.entry(entry.involved.0.uid.clone()).or_insert(Rate { tokens: BURST, at: now });
        let refilled = now.duration_since(rate.at).as_secs_f64() / REFILL.as_secs_f64();
        rate.tokens = (rate.tokens + refilled).min(BURST);
        rate.at = now;
        if rate.tokens < 1.0 {
            return false;
        }
        rate.tokens -= 1.0;
        true
    }

    async fn write(&mut self, entry: &Entry, now: Instant) -> Result<(), Failure> {
        let about = &entry.involved.0;
        let key =
            (about.uid.clone(), about.field_path.clone(), entry.kind, entry.reason.clone(), entry.message.clone());
        if let Some(series) = self.series.get_mut(&key)
            && now.duration_since(series.last) < SERIES_SILENCE
        {
            series.count += 1;
            series.last = now;
            let patch = json!({"count": series.count, "lastTimestamp": Time(entry.at)});
            match self.client.patch::<Event>(&series.namespace, &series.name, Patch::Merge(patch)).await {
                Err(failure) if failure.is_not_found() => {}
                outcome => return outcome.map(drop),
            }
        }
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), entry.at.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.clone()),
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            type_: Some(entry.kind.to_owned()),
            reason: Some(entry.reason.clone()),
            message: Some(entry.message.clone()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(Time(entry.at)),
            last_timestamp: Some(Time(entry.at)),
            count: Some(1),
            ..Event::default()
        };
        self.client.create(&event).await?;
        if self.series.len() >= REMEMBERED_MAX {
            self.series.retain(|_, series| now.duration_since(series.last) < SERIES_SILENCE);
        }
        if self.series.len() < REMEMBERED_MAX {
            self.series.insert(key, Series { namespace, name, count: 1, last: now });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::informer::Informers;
    use api::{Answer, Call, Verb, WatchResult};
    use futures::StreamExt;
    use futures::future::BoxFuture;
    use futures::stream::BoxStream;
    use k8s_openapi::api::core::v1::Pod;
    use std::sync::Arc;
    use task::Shutdown;

    struct Calls(mpsc::UnboundedSender<Call>);

    impl Backend for Calls {
        fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
            let mut body = call.body.clone().unwrap_or_default();
            if call.verb == Verb::Patch {
                body = json!({"apiVersion": "v1", "kind": "Event", "metadata": {}, "involvedObject": {}});
            }
            self.0.send(call).unwrap();
            let body = serde_json::to_vec(&body).unwrap().into();
            Box::pin(async move { Ok(Answer { code: 200, body, warnings: vec![] }) })
        }

        fn watch(&self, _: Call) -> BoxStream<'static, WatchResult> {
            futures::stream::pending().boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repetitions_are_counted_and_floods_are_stopped() {
        let (sender, mut calls) = mpsc::unbounded_channel();
        let backend = Arc::new(Calls(sender));
        let client = Client::new(backend.clone(), Informers::new(backend, Shutdown::new()), "kubelet");
        let recorder = Recorder::new(client, "kubelet", Some("node"));
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "x", "uid": "1"}})).unwrap();
        recorder.normal(Involved::new(&pod), "Pulled", "again");
        recorder.normal(Involved::new(&pod), "Pulled", "again");
        assert_eq!(calls.recv().await.unwrap().verb, Verb::Create);
        let repeated = calls.recv().await.unwrap();
        assert_eq!((repeated.verb, &repeated.body.unwrap()["count"]), (Verb::Patch, &json!(2)));
        for number in 0..100 {
            recorder.warning(Involved::new(&pod), "Failed", format!("flood {number}"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut written = 0;
        while calls.try_recv().is_ok() {
            written += 1;
        }
        assert_eq!(written, 23, "25 in a burst, 2 of them used before");
    }
}
