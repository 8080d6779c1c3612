//! Namespaces that are being deleted: deletes everything in them, pods first, says what is left, then lets them go.
//!
//! What is left is watched, and the namespace looked at again when it is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Call, Encoded, Resource, Verb};
use client::{Client, Failure, Follow, Informer, Queue, Scope, Step};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use task::Shutdown;

use crate::Served;
use crate::shared::owned::gone_is_fine;
use crate::shared::served::{self, Resources};

mod conditions;

use conditions::Progress;

const FINALIZER: &str = "kubernetes";
/// Objects of one resource that are looked at for finalizers.
const LOOKED_AT_MAX: u64 = 500;

struct Namespaces {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    resources: Resources,
    queue: Queue<String>,
    /// Namespaces whose contents are watched until they are gone; cancelled when they are looked at.
    watched: Mutex<HashMap<String, Shutdown>>,
    shutdown: Shutdown,
}

/// `built_in` are resources that can be listed, watched and deleted.
pub async fn run(client: Client, built_in: Vec<Served>, shutdown: Shutdown) -> Result<(), Failure> {
    let resources = served::follow(&client, built_in, &shutdown);
    let queue = Queue::new();
    let controller = Arc::new(Namespaces {
        namespaces: client.informer(Scope::all()),
        client,
        resources,
        queue: queue.clone(),
        watched: Mutex::default(),
        shutdown: shutdown.clone(),
    });
    controller.namespaces.synced().await;
    // Nothing is empty before it is known what could be in it.
    if controller.resources.clone().wait_for(Option::is_some).await.is_err() {
        return Ok(());
    }
    let reconciler = controller.clone();
    client::run_workers("namespace", queue.clone(), 2, shutdown.clone(), move |name: String| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&name).await }
    });
    let mut namespaces = controller.namespaces.subscribe();
    let mut resources = controller.resources.clone();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            // What is served no more is left nowhere.
            Ok(()) = resources.changed() => {
                let watched: Vec<String> = controller.watched.lock().keys().cloned().collect();
                watched.into_iter().for_each(|name| queue.add(name));
            }
            change = namespaces.next() => {
                if change.new.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
                    queue.add(change.key.name);
                }
            }
        }
    }
}

impl Namespaces {
    async fn reconcile(&self, name: &str) -> Result<Option<Duration>, Failure> {
        if let Some(watch) = self.watched.lock().remove(name) {
            watch.cancel();
        }
        let Some(namespace) = self.namespaces.get("", name) else { return Ok(None) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|one| one == FINALIZER) {
            return Ok(None);
        }
        let resources = self.resources.borrow().clone().unwrap_or_default();
        let is_pods = |served: &&Served| served.resource.group.is_empty() && served.resource.plural == "pods";
        let (pods, others): (Vec<&Served>, Vec<&Served>) =
            resources.iter().filter(|served| served.namespaced).partition(is_pods);
        let mut progress = Progress::default();
        let (mut failure, mut left) = (None, Vec::new());
        // Pods may need the rest while they end (KEP-5080).
        for served in [pods, others] {
            if !progress.remaining.is_empty() {
                break;
            }
            for Served { resource, .. } in served {
                match self.empty(name, resource, &mut progress).await {
                    Ok(true) => {}
                    Ok(false) => left.push(resource.clone()),
                    Err(error) => {
                        progress.failures.push(error.to_string());
                        failure.get_or_insert(error);
                    }
                }
            }
        }
        let namespace = self.tell(&namespace, &progress).await?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !left.is_empty() {
            self.look_again_without(name, left);
            return Ok(None);
        }
        let mut finalized = namespace;
        finalized.spec.get_or_insert_default().finalizers =
            Some(finalizers.into_iter().filter(|one| one != FINALIZER).collect());
        gone_is_fine(self.client.update_subresource(&finalized, "finalize").await)?;
        Ok(None)
    }

    /// Writes how far the deletion is, where that is news; the namespace as it is then.
    async fn tell(&self, namespace: &Namespace, progress: &Progress) -> Result<Namespace, Failure> {
        let mut status = namespace.status.clone().unwrap_or_default();
        let known = status.conditions.take().unwrap_or_default();
        let conditions = progress.conditions(&known, Timestamp::now());
        if conditions == known {
            return Ok(namespace.clone());
        }
        status.conditions = Some(conditions);
        self.client.update_status(&Namespace { status: Some(status), ..namespace.clone() }).await
    }

    /// Looks at a namespace again when it has no objects of these resources any more.
    fn look_again_without(&self, name: &str, resources: Vec<Resource>) {
        let stop = self.shutdown.child_token();
        if let Some(before) = self.watched.lock().insert(name.to_owned(), stop.clone()) {
            before.cancel();
        }
        let scope = Scope { namespace: Some(name.to_owned()), ..Scope::default() };
        let follow = |resource| gone(Follow::new(self.client.backend().clone(), resource, scope.clone()));
        let all_gone = futures::future::join_all(resources.into_iter().map(follow));
        let (queue, name) = (self.queue.clone(), name.to_owned());
        task::spawn("namespace-contents", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = all_gone => queue.add(name),
            }
        });
    }

    /// Deletes all objects of a resource in a namespace, and counts those that are still there afterwards; true if there
    /// are none.
    async fn empty(&self, namespace: &str, resource: &Resource, progress: &mut Progress) -> Result<bool, Failure> {
        let call = |verb| Call { namespace: Some(namespace.to_owned()), ..Call::new(verb, resource.clone()) };
        let mut list = call(Verb::List);
        list.options.limit = Some(1);
        if items(&self.client.raw(list.clone()).await?).is_empty() {
            return Ok(true);
        }
        let mut delete = call(Verb::DeleteCollection);
        delete.body = Some(json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}));
        gone_is_fine(self.client.raw(delete).await)?;
        list.options.limit = Some(LOOKED_AT_MAX);
        let left = self.client.raw(list).await?;
        let (seen, rest) = (items(&left), left["metadata"]["remainingItemCount"].as_u64().unwrap_or(0));
        if !seen.is_empty() {
            let name = format!("{}.{}", resource.plural, resource.group);
            progress.remaining.insert(name, seen.len() as u64 + rest);
        }
        for finalizer in seen.iter().flat_map(|object| object["metadata"]["finalizers"].as_array()).flatten() {
            *progress.finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(seen.is_empty())
    }
}

/// Ends when there are no objects any more.
async fn gone(mut follow: Follow) {
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }
    let name = |object: &Encoded| object.metadata::<Metadata>().ok().map(|metadata| metadata.name);
    let mut there: HashSet<String> = HashSet::new();
    loop {
        match follow.next().await {
            Step::All(objects) => there = objects.iter().filter_map(name).collect(),
            Step::Put(object) => there.extend(name(&object)),
            Step::Gone(object) => drop(name(&object).map(|name| there.remove(&name))),
        }
        if there.is_empty() {
            return;
        }
    }
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use api::{Answer, EventKind, WatchEvent, WatchResult};
    use client::Backend;
    use futures::StreamExt;
    use futures::future::BoxFuture;
    use futures::stream::BoxStream;

    use super::*;

    /// Has the objects `a` and `b`, which go one after the other.
    struct Going;

    fn object(name: &str) -> Value {
        json!({"metadata": {"name": name, "resourceVersion": "2"}})
    }

    impl Backend for Going {
        fn call(&self, _: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": [object("a"), object("b")]});
            Box::pin(async move { Ok(Answer { code: 200, body: list.to_string().into(), warnings: vec![] }) })
        }

        fn watch(&self, _: Call) -> BoxStream<'static, WatchResult> {
            futures::stream::iter(["a", "b"])
                .then(|name| async move {
                    tokio::time::sleep(Duration::from_secs(7)).await;
                    Ok(WatchEvent { kind: EventKind::Deleted, object: Encoded::whole(object(name).to_string()) })
                })
                .chain(futures::stream::pending())
                .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_watched_is_gone_with_the_last_of_it() {
        let began = tokio::time::Instant::now();
        gone(Follow::new(Arc::new(Going), Resource::new("", "v1", "pods"), Scope::all())).await;
        assert_eq!(began.elapsed(), Duration::from_secs(14));
    }
}
