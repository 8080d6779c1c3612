//! An API server for tests: lists and watches objects that the test puts there.

use std::sync::{Arc, Mutex};

use api::{Answer, Call, Encoded, EventKind, Failure, WatchEvent, WatchResult};
use client::{Backend, Client, Informers};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use task::Shutdown;
use tokio::sync::mpsc;

#[derive(Clone, Default)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// With the plural of their kind.
    objects: Vec<(String, Value)>,
    watchers: Vec<(String, mpsc::UnboundedSender<WatchResult>)>,
}

impl ApiServer {
    pub fn client(&self, shutdown: Shutdown) -> Client {
        let backend: Arc<dyn Backend> = Arc::new(self.clone());
        Client::new(backend.clone(), Informers::new(backend, shutdown), "test")
    }

    /// Creates or replaces an object of kind `plural`.
    pub fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let known = state.objects.iter().position(|(of, known)| of == plural && same(known, &object));
        let kind = match known {
            Some(at) => {
                state.objects[at].1 = object.clone();
                EventKind::Modified
            }
            None => {
                state.objects.push((plural.to_owned(), object.clone()));
                EventKind::Added
            }
        };
        state.tell(plural, kind, &object);
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let wanted = json!({"metadata": {"namespace": namespace, "name": name}});
        let at = state.objects.iter().position(|(of, known)| of == plural && same(known, &wanted)).unwrap();
        let (_, object) = state.objects.remove(at);
        state.tell(plural, EventKind::Deleted, &object);
    }
}

impl State {
    fn tell(&mut self, plural: &str, kind: EventKind, object: &Value) {
        let event = || WatchEvent { kind, object: Encoded::whole(serde_json::to_vec(object).unwrap()) };
        self.watchers.retain(|(of, watcher)| of != plural || watcher.send(Ok(event())).is_ok());
    }
}

fn same(a: &Value, b: &Value) -> bool {
    ["namespace", "name"].iter().all(|field| a["metadata"][field] == b["metadata"][field])
}

impl Backend for ApiServer {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
        let state = self.state.lock().unwrap();
        let items: Vec<&Value> =
            state.objects.iter().filter(|(of, _)| *of == call.resource.plural).map(|(_, object)| object).collect();
        let list = json!({"metadata": {"resourceVersion": state.revision.to_string()}, "items": items});
        let body = serde_json::to_vec(&list).unwrap().into();
        Box::pin(async move { Ok(Answer { code: 200, body, warnings: vec![] }) })
    }

    fn watch(&self, call: Call) -> BoxStream<'static, WatchResult> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock().unwrap();
        // What came between the list and this watch. Deletions in between do not happen in tests.
        let since: u64 = call.options.resource_version.as_deref().unwrap_or("0").parse().unwrap();
        for (of, object) in &state.objects {
            let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            if *of == call.resource.plural && version > since {
                let object = Encoded::whole(serde_json::to_vec(object).unwrap());
                sender.send(Ok(WatchEvent { kind: EventKind::Modified, object })).unwrap();
            }
        }
        state.watchers.push((call.resource.plural.into_owned(), sender));
        futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()
    }
}
