//! Which pods there shall be on this node, and a worker for each.
//!
//! Pods come from the API (`spec.nodeName` is this node) and from files (static pods). Until the API has answered, the
//! pods that are kept on disk stand in for it. A pod that is on the node and in neither is brought to its end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Scope};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use task::Shutdown;

use super::worker::{Inbox, Worker};
use super::{Context, static_pods, store};
use crate::containers::names;
use crate::objects::PodExt;

/// How long the API may take to list the pods before those on disk are run.
const API_TIMEOUT: Duration = Duration::from_secs(5);
const WORKER_RESTART_PAUSE: Duration = Duration::from_secs(1);

pub struct Pods {
    context: Arc<Context>,
    workers: Mutex<HashMap<String, Entry>>,
    shutdown: Shutdown,
}

struct Entry {
    pod: Arc<Pod>,
    inbox: Arc<Inbox>,
}

impl Pods {
    pub fn new(context: Arc<Context>, shutdown: Shutdown) -> Arc<Pods> {
        Arc::new(Pods { context, workers: Mutex::default(), shutdown })
    }

    /// Every pod that has a worker.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.workers.lock().values().map(|entry| entry.pod.clone()).collect()
    }

    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let workers = self.workers.lock();
        let mut found = workers.values().map(|entry| &entry.pod);
        found.find(|pod| pod.ns() == namespace && pod.name() == name).cloned()
    }

    pub(super) fn node_name(&self) -> &str {
        &self.context.config.node_name
    }

    /// Wakes workers by the runtime's events until shutdown.
    pub async fn follow_events(self: Arc<Pods>) {
        let (runtime, shutdown) = (self.context.runtime.clone(), self.shutdown.clone());
        super::events::follow(runtime, self, shutdown).await;
    }

    /// The pod's worker looks again.
    pub fn wake(&self, uid: &str) {
        if let Some(entry) = self.workers.lock().get(uid) {
            entry.inbox.wake();
        }
    }

    pub fn wake_all(&self) {
        for entry in self.workers.lock().values() {
            entry.inbox.wake();
        }
    }

    /// Follows the sources until shutdown. Containers go on running then.
    pub async fn run(self: Arc<Pods>) {
        let informer: Arc<Informer<Pod>> =
            self.context.client.informer(Scope::fields(format!("spec.nodeName={}", self.context.config.node_name)));
        let shutdown = self.shutdown.clone();
        if let Some(dir) = self.context.config.static_pods_dir.clone() {
            // Read before anything is taken for an orphan.
            for pod in static_pods::read(&dir, self.node_name()).into_values() {
                self.set(Arc::new(pod));
            }
            let pods = self.clone();
            task::spawn("static-pods", static_pods::follow(dir, pods, shutdown.clone()));
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            synced = tokio::time::timeout(API_TIMEOUT, informer.synced()) => if synced.is_err() {
                tracing::warn!("the API server does not answer; the pods that were here last are run");
                for pod in store::load(&self.pods_dir()) {
                    if !pod.is_static() {
                        self.set(Arc::new(pod));
                    }
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = informer.synced() => {}
                }
            },
        }
        let mut changes = informer.subscribe();
        while let Some(change) = changes.try_next() {
            self.apply(change.old, change.new);
        }
        self.remove_unknown(&informer).await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = changes.next() => self.apply(change.old, change.new),
            }
        }
    }

    fn pods_dir(&self) -> std::path::PathBuf {
        self.context.config.data_dir.join("pods")
    }

    fn apply(self: &Arc<Pods>, old: Option<Arc<Pod>>, new: Option<Arc<Pod>>) {
        if let Some(old) = old.filter(|old| new.as_ref().is_none_or(|new| new.uid() != old.uid())) {
            self.remove(old.uid());
        }
        // A mirror pod only shows a static one, which has its own worker.
        if let Some(new) = new.filter(|new| !new.is_mirror()) {
            self.set(new);
        }
    }

    /// The pod shall be here as it is now.
    pub(super) fn set(self: &Arc<Pods>, pod: Arc<Pod>) {
        let mut workers = self.workers.lock();
        match workers.get_mut(pod.uid()) {
            Some(entry) => {
                let is_changed = entry.pod.metadata.generation != pod.metadata.generation
                    || entry.pod.metadata.deletion_timestamp != pod.metadata.deletion_timestamp;
                entry.pod = pod.clone();
                entry.inbox.update(pod.clone());
                drop(workers);
                if is_changed {
                    self.save(&pod);
                }
            }
            None => {
                let inbox = Arc::new(Inbox::default());
                workers.insert(pod.uid().to_owned(), Entry { pod: pod.clone(), inbox: inbox.clone() });
                drop(workers);
                self.save(&pod);
                self.start(pod, inbox);
            }
        }
    }

    /// The pod shall not be here any more.
    pub(super) fn remove(&self, uid: &str) {
        if let Some(entry) = self.workers.lock().get(uid) {
            entry.inbox.remove();
        }
    }

    fn save(&self, pod: &Pod) {
        if let Err(error) = store::save(&self.pods_dir(), pod) {
            tracing::warn!(pod = %pod.full(), %error, "pod not kept on disk");
        }
    }

    fn start(self: &Arc<Pods>, pod: Arc<Pod>, inbox: Arc<Inbox>) {
        let pods = self.clone();
        let uid = pod.uid().to_owned();
        // The worker is a task of its own below this one, so that its panic is seen here.
        task::spawn("pod", async move {
            let mut pod = pod;
            loop {
                let worker = Worker::new(pods.context.clone(), pod.clone(), inbox.clone());
                let worker = task::spawn("pod-worker", worker.run());
                let stop = worker.abort_handle();
                let ended = tokio::select! {
                    () = pods.shutdown.cancelled() => {
                        stop.abort();
                        return;
                    }
                    ended = worker => ended,
                };
                if matches!(ended, Ok(Some(()))) {
                    pods.workers.lock().remove(&uid);
                    return;
                }
                tokio::time::sleep(WORKER_RESTART_PAUSE).await;
                if let Some(entry) = pods.workers.lock().get(&uid) {
                    pod = entry.pod.clone();
                }
            }
        });
    }

    /// Ends what is on the node and belongs to no pod: they were deleted while this process was away.
    async fn remove_unknown(self: &Arc<Pods>, informer: &Informer<Pod>) {
        let known: HashSet<String> = informer.list().iter().map(|pod| pod.uid().to_owned()).collect();
        let stand_ins: Vec<String> = {
            let workers = self.workers.lock();
            let gone = workers.values().filter(|entry| !entry.pod.is_static() && !known.contains(entry.pod.uid()));
            gone.map(|entry| entry.pod.uid().to_owned()).collect()
        };
        for uid in stand_ins {
            self.remove(&uid);
        }
        let mut orphans: BTreeMap<String, Pod> = store::load(&self.pods_dir())
            .into_iter()
            .filter(|pod| !pod.is_static())
            .map(|pod| (pod.uid().to_owned(), pod))
            .collect();
        loop {
            match self.context.runtime.list_sandboxes(HashMap::new()).await {
                Ok(sandboxes) => {
                    for (uid, pod) in sandboxes.iter().filter_map(orphan) {
                        orphans.entry(uid).or_insert(pod);
                    }
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, "runtime not listed; it is asked again");
                    tokio::select! {
                        () = self.shutdown.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
        for (uid, pod) in orphans {
            if !self.workers.lock().contains_key(&uid) {
                tracing::info!(pod = %pod.full(), "the pod was deleted while this process was away");
                self.set(Arc::new(pod));
                self.remove(&uid);
            }
        }
        for uid in self.context.volumes.pods_on_disk() {
            if !self.workers.lock().contains_key(&uid)
                && let Err(error) = self.context.volumes.forget(&uid).await
            {
                tracing::warn!(uid, %error, "directory of a pod that is gone not removed");
            }
        }
    }
}

/// What a sandbox says of a pod that nobody else knows. Sandboxes of others, without a pod's labels, are left alone.
fn orphan(sandbox: &cri::v1::PodSandbox) -> Option<(String, Pod)> {
    let label = |name: &str| sandbox.labels.get(name).cloned();
    let uid = label(names::POD_UID)?;
    let pod = Pod {
        metadata: ObjectMeta {
            name: label(names::POD_NAME),
            namespace: label(names::POD_NAMESPACE),
            uid: Some(uid.clone()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    };
    Some((uid, pod))
}
