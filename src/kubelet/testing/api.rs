//! An API server that only pretends: objects in memory, watches, deletion with grace, status patches.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Answer, Call, Encoded, EventKind, Failure, Verb, WatchEvent, WatchResult};
use client::{Backend, Client, Informers};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use task::Shutdown;
use tokio::sync::broadcast;

/// Plural name, namespace, name.
type Key = (String, String, String);

#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(Key, u64, EventKind, Value)>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    revision: u64,
}

impl Default for FakeApi {
    fn default() -> FakeApi {
        FakeApi { state: Arc::default(), events: broadcast::channel(1024).0 }
    }
}

impl FakeApi {
    pub fn client(&self, shutdown: Shutdown) -> Client {
        let backend: Arc<dyn Backend> = Arc::new(self.clone());
        Client::new(backend.clone(), Informers::new(backend, shutdown), "kubelet")
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().objects.get(&key).cloned()
    }

    pub fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|((kind, _, _), _)| kind == plural).map(|(_, object)| object.clone()).collect()
    }

    pub fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.state.lock();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (plural.to_owned(), text("namespace"), text("name"));
        state.revision += 1;
        let revision = state.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{revision}"));
        }
        let kind = if state.objects.contains_key(&key) { EventKind::Modified } else { EventKind::Added };
        state.objects.insert(key.clone(), object.clone());
        let _ = self.events.send((key, revision, kind, object));
    }

    fn remove(&self, key: &Key) {
        let mut state = self.state.lock();
        state.revision += 1;
        let revision = state.revision;
        if let Some(object) = state.objects.remove(key) {
            let _ = self.events.send((key.clone(), revision, EventKind::Deleted, object));
        }
    }

    /// As `kubectl delete`: the object goes when its kubelet says so, or at once without grace.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str, grace_seconds: i64) {
        let Some(mut object) = self.get(plural, namespace, name) else { return };
        if grace_seconds == 0 || plural != "pods" {
            return self.remove(&(plural.to_owned(), namespace.to_owned(), name.to_owned()));
        }
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
        self.put(plural, object);
    }

    fn answer(&self, call: Call) -> Result<Value, Failure> {
        let plural = call.resource.plural.to_string();
        let (namespace, name) = (call.namespace.unwrap_or_default(), call.name.unwrap_or_default());
        let missing = || Failure::not_found("", &plural, &name);
        match call.verb {
            Verb::Get => self.get(&plural, &namespace, &name).ok_or_else(missing),
            Verb::List => {
                let fits = selector(call.options.field_selector.as_deref(), &namespace);
                let items: Vec<Value> = self.all(&plural).into_iter().filter(|one| fits(one)).collect();
                let revision = self.state.lock().revision.to_string();
                Ok(json!({"metadata": {"resourceVersion": revision}, "items": items}))
            }
            Verb::Create => {
                let object = call.body.unwrap_or_default();
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if self.get(&plural, &namespace, &name).is_some() {
                    return Err(Failure::already_exists("", &plural, &name));
                }
                self.put(&plural, object);
                self.get(&plural, &namespace, &name).ok_or_else(missing)
            }
            Verb::Patch => {
                let mut object = self.get(&plural, &namespace, &name).ok_or_else(missing)?;
                let patch = call.body.unwrap_or_default();
                let uid = &patch["metadata"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return Err(Failure::conflict("", &plural, &name, "Precondition failed: UID in precondition"));
                }
                merge(&mut object, &patch);
                self.put(&plural, object.clone());
                Ok(object)
            }
            Verb::Delete => {
                let grace = call.body.unwrap_or_default()["gracePeriodSeconds"].as_i64().unwrap_or(30);
                self.delete(&plural, &namespace, &name, grace);
                Ok(json!({"kind": "Status"}))
            }
            verb => Err(Failure::bad_request(format!("{verb:?} is not pretended"))),
        }
    }
}

/// A merge patch that knows lists of conditions.
fn merge(target: &mut Value, patch: &Value) {
    let (Some(target), Some(patch)) = (target.as_object_mut(), patch.as_object()) else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(_) => merge(target.entry(key.clone()).or_insert_with(|| json!({})), value),
            Value::Array(list) if key == "conditions" => {
                let known = target.entry(key.clone()).or_insert_with(|| json!([])).as_array_mut().unwrap();
                for one in list {
                    known.retain(|old| old["type"] != one["type"]);
                    known.push(one.clone());
                }
            }
            Value::Array(list) => {
                let plain: Vec<Value> = list.iter().filter(|one| one.get("$patch").is_none()).cloned().collect();
                target.insert(key.clone(), Value::Array(plain));
            }
            value => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

fn selector(fields: Option<&str>, namespace: &str) -> impl Fn(&Value) -> bool + Send + 'static {
    let wanted = fields.and_then(|text| text.split_once('=')).map(|(path, value)| (path.to_owned(), value.to_owned()));
    let namespace = namespace.to_owned();
    move |object| {
        let in_namespace = namespace.is_empty() || object["metadata"]["namespace"] == json!(namespace);
        in_namespace
            && wanted.as_ref().is_none_or(|(path, value)| {
                object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str) == Some(value)
            })
    }
}

impl Backend for FakeApi {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
        let outcome = self.answer(call);
        Box::pin(async move {
            let body = serde_json::to_vec(&outcome?).unwrap().into();
            Ok(Answer { code: 200, body, warnings: vec![] })
        })
    }

    fn watch(&self, call: Call) -> BoxStream<'static, WatchResult> {
        let plural = call.resource.plural.to_string();
        let from: u64 = call.options.resource_version.as_deref().unwrap_or("0").parse().unwrap_or(0);
        let fits = selector(call.options.field_selector.as_deref(), call.namespace.as_deref().unwrap_or_default());
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        if self.state.lock().revision > from {
            // What lies between the list and now is not kept: list again.
            let gone = Failure::expired("too old resource version");
            return futures::stream::iter([Err(gone)]).boxed();
        }
        events
            .filter_map(move |event| {
                let kept = event
                    .ok()
                    .filter(|((kind, _, _), revision, _, object)| *kind == plural && *revision > from && fits(object));
                let kept = kept.map(|(_, _, kind, object)| {
                    Ok(WatchEvent { kind, object: Encoded::whole(serde_json::to_vec(&object).unwrap()) })
                });
                async move { kept }
            })
            .boxed()
    }
}
