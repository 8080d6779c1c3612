//! All objects of a kind, kept up to date, once per process (upstream's shared informer).
//!
//! One task per informer follows the API and is the only writer; everybody else reads `Arc`s and subscribes. The cache
//! lags behind the API by a watch event's way and never goes back.
//!
//! Objects are kept in the bytes that came, which in a server are those of the API server's watch cache, and decoded
//! when somebody asks for them ([`entry`]). So memory grows with the objects once, not with their decoded size.
//!
//! Limitations: `metadata.managedFields` is dropped to save memory; an update without them keeps them on the server.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use api::Resource;
use parking_lot::{Mutex, RwLock};
use task::Shutdown;
use tokio::sync::{Notify, watch};

use crate::Object;
use crate::backend::Backend;
use crate::follow::{Follow, Step};

mod entry;

pub use entry::Meta;
use entry::{Decoded, Entry};

/// An object's namespace (`""` for cluster-scoped ones) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<T: Object>(object: &T) -> Key {
        let meta = object.metadata();
        Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// What part of a kind an informer keeps. Informers with equal scopes are one informer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// `None` for all namespaces.
    pub namespace: Option<String>,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

impl Scope {
    /// Every object of the kind.
    pub fn all() -> Scope {
        Scope::default()
    }

    pub fn fields(selector: impl Into<String>) -> Scope {
        Scope { field_selector: Some(selector.into()), ..Scope::default() }
    }

    /// One object.
    pub fn one(namespace: impl Into<String>, name: &str) -> Scope {
        Scope { namespace: Some(namespace.into()), ..Scope::fields(format!("metadata.name={name}")) }
    }
}

/// An `Informer<T>` of some `T`, as long as somebody uses it.
type Running = Weak<dyn Any + Send + Sync>;

/// The informers of a process. Cheap to clone. An informer whose last user drops it stops.
#[derive(Clone)]
pub struct Informers {
    backend: Arc<dyn Backend>,
    shutdown: Shutdown,
    running: Arc<Mutex<HashMap<(TypeId, Scope), Running>>>,
}

impl Informers {
    /// Informers that read through `backend` until `shutdown`.
    pub fn new(backend: Arc<dyn Backend>, shutdown: Shutdown) -> Informers {
        Informers { backend, shutdown, running: Arc::default() }
    }

    pub fn get<T: Object>(&self, scope: Scope) -> Arc<Informer<T>> {
        let mut running = self.running.lock();
        let key = (TypeId::of::<T>(), scope);
        if let Some(informer) = running.get(&key).and_then(Weak::upgrade)
            && let Ok(informer) = informer.downcast::<Informer<T>>()
        {
            return informer;
        }
        running.retain(|_, informer| informer.strong_count() > 0);
        let informer = Arc::new(Informer::<T>::new(self.shutdown.child_token()));
        let follow = Follow::new(self.backend.clone(), Resource::of::<T>(), key.1.clone());
        let (shared, stop) = (informer.shared.clone(), informer.stop.clone());
        task::spawn("informer", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = feed(follow, shared) => {}
            }
        });
        let erased: Arc<dyn Any + Send + Sync> = informer.clone();
        running.insert(key, Arc::downgrade(&erased));
        informer
    }
}

/// The readers' side.
pub struct Informer<T> {
    shared: Arc<Shared<T>>,
    stop: Shutdown,
}

impl<T> Drop for Informer<T> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Shared<T> {
    objects: RwLock<BTreeMap<Key, Arc<Entry<T>>>>,
    decoded: Arc<Decoded<T>>,
    subscribers: Mutex<Vec<Weak<Pending<T>>>>,
    synced: watch::Sender<bool>,
}

impl<T: Object> Informer<T> {
    fn new(stop: Shutdown) -> Informer<T> {
        let shared = Shared {
            objects: RwLock::default(),
            decoded: Arc::default(),
            subscribers: Mutex::default(),
            synced: watch::Sender::new(false),
        };
        Informer { shared: Arc::new(shared), stop }
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.get_key(&Key::new(namespace, name))
    }

    pub fn get_key(&self, key: &Key) -> Option<Arc<T>> {
        let entry = self.shared.objects.read().get(key).cloned();
        entry.and_then(|entry| self.shared.decoded.get(&entry))
    }

    /// Everything, in the order of namespace and name. Decodes what is not at hand: where there may be many objects,
    /// [`Informer::list_where`] is better.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.list_where(None, |_| true)
    }

    /// Everything in a namespace, in the order of names.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<T>> {
        self.list_where(Some(namespace), |_| true)
    }

    /// The objects, of one namespace or of all, whose metadata `wanted` agrees to; only those are decoded.
    pub fn list_where(&self, namespace: Option<&str>, wanted: impl Fn(&Meta) -> bool) -> Vec<Arc<T>> {
        let objects = self.shared.objects.read();
        let from = Key::new(namespace.unwrap_or_default(), "");
        let entries: Vec<Arc<Entry<T>>> = objects
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| namespace.is_none_or(|namespace| key.namespace == namespace))
            .filter(|(_, entry)| wanted(&entry.meta))
            .map(|(_, entry)| entry.clone())
            .collect();
        drop(objects);
        entries.iter().filter_map(|entry| self.shared.decoded.get(entry)).collect()
    }

    pub fn len(&self) -> usize {
        self.shared.objects.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What changes from now on, beginning with everything that is there, as additions.
    pub fn subscribe(&self) -> Changes<T> {
        let pending = Arc::new(Pending { state: Mutex::default(), woken: Notify::new() });
        // Under the lock of the objects, so that nothing falls between the first ones and the later ones.
        let objects = self.shared.objects.read();
        self.shared.subscribers.lock().push(Arc::downgrade(&pending));
        for (key, entry) in objects.iter() {
            pending.push(key, None, Some(entry.clone()));
        }
        drop(objects);
        Changes { pending, decoded: self.shared.decoded.clone() }
    }
}

/// What happened to an object since the subscriber last heard of it.
#[derive(Debug)]
pub struct Change<T> {
    pub key: Key,
    /// As the subscriber last saw it; `None` if it did not know it.
    pub old: Option<Arc<T>>,
    /// As it is now; `None` if it is gone. Both are there, with different uids, when it was replaced meanwhile.
    pub new: Option<Arc<T>>,
}

/// A subscription. Changes of one object that come faster than they are read are one change.
pub struct Changes<T> {
    pending: Arc<Pending<T>>,
    decoded: Arc<Decoded<T>>,
}

struct Pending<T> {
    state: Mutex<PendingState<T>>,
    woken: Notify,
}

type OldAndNew<T> = (Option<Arc<Entry<T>>>, Option<Arc<Entry<T>>>);

struct PendingState<T> {
    order: VecDeque<Key>,
    changes: HashMap<Key, OldAndNew<T>>,
}

impl<T> Default for PendingState<T> {
    fn default() -> Self {
        PendingState { order: VecDeque::new(), changes: HashMap::new() }
    }
}

impl<T> Pending<T> {
    fn push(&self, key: &Key, old: Option<Arc<Entry<T>>>, new: Option<Arc<Entry<T>>>) {
        let mut state = self.state.lock();
        if let Some((_, known)) = state.changes.get_mut(key) {
            *known = new;
            return;
        }
        state.order.push_back(key.clone());
        state.changes.insert(key.clone(), (old, new));
        drop(state);
        self.woken.notify_one();
    }

    fn pop(&self) -> Option<(Key, OldAndNew<T>)> {
        let mut state = self.state.lock();
        loop {
            let key = state.order.pop_front()?;
            if let Some(change) = state.changes.remove(&key) {
                return Some((key, change));
            }
        }
    }
}

impl<T: Object> Changes<T> {
    /// Waits for a change. Cancel-safe.
    pub async fn next(&mut self) -> Change<T> {
        loop {
            if let Some(change) = self.try_next() {
                return change;
            }
            self.pending.woken.notified().await;
        }
    }

    /// A change that is already there.
    pub fn try_next(&mut self) -> Option<Change<T>> {
        loop {
            let (key, (old, new)) = self.pending.pop()?;
            let decode = |entry: Option<Arc<Entry<T>>>| entry.and_then(|entry| self.decoded.get(&entry));
            let (old, new) = (decode(old), decode(new));
            if old.is_some() || new.is_some() {
                return Some(Change { key, old, new });
            }
        }
    }
}

/// The writer's side.
async fn feed<T: Object>(mut follow: Follow, shared: Arc<Shared<T>>) {
    loop {
        let applied = match follow.next().await {
            Step::All(objects) => {
                objects.into_iter().map(Entry::new).collect::<Result<BTreeMap<_, _>, _>>().map(|objects| {
                    shared.replace(objects);
                    shared.synced.send_replace(true);
                })
            }
            Step::Put(object) => Entry::new(object).map(|(key, entry)| shared.apply(key, Some(entry))),
            Step::Gone(object) => Entry::<T>::new(object).map(|(key, _)| shared.apply(key, None)),
        };
        if let Err(error) = applied {
            tracing::error!(kind = T::KIND, %error, "the API server sent an object that is none");
        }
    }
}

impl<T: Object> Shared<T> {
    fn apply(&self, key: Key, new: Option<Arc<Entry<T>>>) {
        let mut objects = self.objects.write();
        let old = match &new {
            Some(entry) => objects.insert(key.clone(), entry.clone()),
            None => objects.remove(&key),
        };
        self.tell(&key, old, new);
    }

    fn replace(&self, found: BTreeMap<Key, Arc<Entry<T>>>) {
        let mut objects = self.objects.write();
        let gone: Vec<Key> = objects.keys().filter(|key| !found.contains_key(key)).cloned().collect();
        for key in gone {
            let old = objects.remove(&key);
            self.tell(&key, old, None);
        }
        for (key, entry) in found {
            let same = objects.get(&key).is_some_and(|known| known.resource_version == entry.resource_version);
            if !same {
                let old = objects.insert(key.clone(), entry.clone());
                self.tell(&key, old, Some(entry));
            }
        }
    }

    /// Called under the write lock of the objects, so that subscribers hear of changes in their order.
    fn tell(&self, key: &Key, old: Option<Arc<Entry<T>>>, new: Option<Arc<Entry<T>>>) {
        self.subscribers.lock().retain(|subscriber| match subscriber.upgrade() {
            Some(pending) => {
                pending.push(key, old.clone(), new.clone());
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Answer, Call, Encoded, EventKind, Failure, WatchEvent, WatchResult};
    use futures::StreamExt;
    use futures::future::BoxFuture;
    use futures::stream::BoxStream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    /// Answers each list with the next of `lists` and each watch with what is sent meanwhile.
    struct Script {
        lists: Vec<serde_json::Value>,
        listed: AtomicUsize,
        watches: Mutex<VecDeque<mpsc::UnboundedReceiver<WatchResult>>>,
    }

    impl Backend for Script {
        fn call(&self, _: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
            let list = &self.lists[self.listed.fetch_add(1, Ordering::SeqCst).min(self.lists.len() - 1)];
            let body = serde_json::to_vec(list).unwrap().into();
            Box::pin(async move { Ok(Answer { code: 200, body, warnings: vec![] }) })
        }

        fn watch(&self, _: Call) -> BoxStream<'static, WatchResult> {
            match self.watches.lock().pop_front() {
                Some(mut receiver) => futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed(),
                None => futures::stream::pending().boxed(),
            }
        }
    }

    fn map(name: &str, version: u32) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
               "metadata": {"namespace": "default", "name": name, "resourceVersion": version.to_string()}})
    }

    fn list(version: u32, items: Vec<serde_json::Value>) -> serde_json::Value {
        json!({"metadata": {"resourceVersion": version.to_string()}, "items": items})
    }

    fn event(kind: EventKind, object: serde_json::Value) -> WatchResult {
        Ok(WatchEvent { kind, object: Encoded::whole(serde_json::to_vec(&object).unwrap()) })
    }

    #[tokio::test(start_paused = true)]
    async fn follows_through_a_broken_and_an_expired_watch() {
        let (first, first_watch) = mpsc::unbounded_channel();
        let (second, second_watch) = mpsc::unbounded_channel();
        let script = Script {
            lists: vec![list(5, vec![map("a", 1), map("b", 2)]), list(20, vec![map("c", 15)])],
            listed: AtomicUsize::new(0),
            watches: Mutex::new([first_watch, second_watch].into()),
        };
        let informers = Informers::new(Arc::new(script), CancellationToken::new());
        let informer = informers.get::<ConfigMap>(Scope::all());
        assert!(Arc::ptr_eq(&informer, &informers.get::<ConfigMap>(Scope::all())), "one per kind");
        informer.synced().await;
        let mut changes = informer.subscribe();
        assert_eq!(changes.next().await.key.name, "a");
        assert_eq!(changes.next().await.key.name, "b");

        first.send(event(EventKind::Modified, map("a", 6))).unwrap();
        let change = changes.next().await;
        assert_eq!(change.old.unwrap().metadata.resource_version.as_deref(), Some("1"));
        assert_eq!(change.new.unwrap().metadata.resource_version.as_deref(), Some("6"));
        first.send(event(EventKind::Deleted, map("b", 7))).unwrap();
        let change = changes.next().await;
        assert_eq!((change.key.name.as_str(), change.new.is_none()), ("b", true));
        drop(first);

        second.send(Err(Failure::expired("too old"))).unwrap();
        let gone = changes.next().await;
        assert_eq!((gone.key.name.as_str(), gone.new.is_none()), ("a", true));
        let change = changes.next().await;
        assert_eq!(change.key.name, "c");
        assert_eq!(informer.list_in("default").len(), 1);
        assert!(informer.list_in("other").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_of_one_object_are_one_change() {
        let pending = Arc::new(Pending::<ConfigMap> { state: Mutex::default(), woken: Notify::new() });
        let mut changes = Changes { pending: pending.clone(), decoded: Arc::default() };
        let object = |version| {
            Entry::<ConfigMap>::new(Encoded::whole(serde_json::to_vec(&map("a", version)).unwrap())).unwrap().1
        };
        let key = Key::new("default", "a");
        pending.push(&key, None, Some(object(1)));
        pending.push(&key, Some(object(1)), Some(object(2)));
        let change = changes.next().await;
        assert!(change.old.is_none());
        assert_eq!(change.new.unwrap().metadata.resource_version.as_deref(), Some("2"));
        pending.push(&key, None, Some(object(3)));
        pending.push(&key, Some(object(3)), None);
        assert!(changes.try_next().is_none(), "came and went unseen");
    }
}
