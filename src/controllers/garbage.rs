//! The garbage collector: objects go when their owners have gone.
//!
//! Follows the metadata of every resource that can be deleted. [`graph`] knows who owns whom and says what is to be done
//! about an object; here it is done, after asking the API for what the graph cannot know for certain: that an owner
//! which was never seen does not exist.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Call, Encoded, Resource, Verb};
use client::{Client, Failure, Follow, Queue, Scope, Step};
use parking_lot::Mutex;
use serde_json::json;
use task::Shutdown;

use crate::Served;
use crate::shared::owned::gone_is_fine;
use crate::shared::served::{self, Resources};

mod graph;

use graph::{Fate, Graph, Identity, Metadata, Owned, Todo};

const WORKERS: usize = 4;

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    resources: Resources,
}

/// `built_in` are resources that can be listed, watched and deleted.
pub async fn run(client: Client, built_in: Vec<Served>, shutdown: Shutdown) -> Result<(), Failure> {
    let mut resources = served::follow(&client, built_in, &shutdown);
    let collector = Arc::new(Collector { client, graph: Mutex::new(Graph::default()), resources: resources.clone() });
    let queue: Queue<String> = Queue::new();
    let mut followed: HashMap<Resource, Shutdown> = HashMap::new();
    if resources.wait_for(Option::is_some).await.is_err() {
        return Ok(());
    }
    // Nothing is an orphan before everything was seen once.
    futures::future::join_all(collector.follow_all(&mut followed, &queue, &shutdown)).await;
    let (reconciler, looked_at) = (collector.clone(), queue.clone());
    client::run_workers("garbage", queue.clone(), WORKERS, shutdown.clone(), move |uid| {
        let (collector, queue) = (reconciler.clone(), looked_at.clone());
        async move { collector.reconcile(&uid, &queue).await }
    });
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            changed = resources.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                // What appears later is looked at as it comes: its objects did not exist before.
                drop(collector.follow_all(&mut followed, &queue, &shutdown));
            }
        }
    }
}

impl Collector {
    /// Follows what is served and not followed yet, and no longer what went. Yields what is sent when each of the new
    /// ones was seen once.
    fn follow_all(
        self: &Arc<Self>,
        followed: &mut HashMap<Resource, Shutdown>,
        queue: &Queue<String>,
        shutdown: &Shutdown,
    ) -> Vec<tokio::sync::oneshot::Receiver<()>> {
        let served = self.resources.borrow().clone().unwrap_or_default();
        followed.retain(|resource, stop| {
            let stays = served.iter().any(|one| one.resource == *resource);
            if !stays {
                stop.cancel();
                let woken = self.graph.lock().keep_only(resource, &HashSet::new());
                woken.into_iter().for_each(|uid| queue.add(uid));
            }
            stays
        });
        let mut filled = Vec::new();
        for resource in served.iter().map(|one| &one.resource) {
            if followed.contains_key(resource) {
                continue;
            }
            let stop = shutdown.child_token();
            followed.insert(resource.clone(), stop.clone());
            let (done, all) = tokio::sync::oneshot::channel();
            filled.push(all);
            let follow = Follow::new(self.client.backend().clone(), resource.clone(), Scope::all());
            let (collector, queue, resource) = (self.clone(), queue.clone(), resource.clone());
            task::spawn("garbage", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = collector.follow(resource, follow, queue, done) => {}
                }
            });
        }
        filled
    }

    async fn follow(
        &self,
        resource: Resource,
        mut follow: Follow,
        queue: Queue<String>,
        filled: tokio::sync::oneshot::Sender<()>,
    ) {
        let mut filled = Some(filled);
        loop {
            let step = follow.next().await;
            let woken = {
                let mut graph = self.graph.lock();
                let mut put = |object: &Encoded| match object.metadata::<Metadata>() {
                    Ok(metadata) => graph.put(&resource, &metadata),
                    Err(_) => Vec::new(),
                };
                match step {
                    Step::Put(object) => put(&object),
                    Step::All(objects) => {
                        let mut woken: Vec<String> = objects.iter().flat_map(&mut put).collect();
                        let there: Vec<String> =
                            objects.iter().filter_map(|object| object.metadata::<Metadata>().ok()?.uid).collect();
                        woken.extend(graph.keep_only(&resource, &there.iter().map(String::as_str).collect()));
                        woken
                    }
                    Step::Gone(object) => match object.metadata() {
                        Ok(Metadata { uid: Some(uid), .. }) => graph.remove(&uid),
                        _ => Vec::new(),
                    },
                }
            };
            for uid in woken {
                queue.add(uid);
            }
            if let Some(filled) = filled.take() {
                let _ = filled.send(());
            }
        }
    }

    async fn reconcile(&self, uid: &str, queue: &Queue<String>) -> Result<Option<Duration>, Failure> {
        let todo = self.graph.lock().todo(uid);
        match todo {
            Todo::Nothing => Ok(None),
            Todo::FinishForeground(object) => self.drop_finalizer(&object, "foregroundDeletion").await,
            Todo::LookAt(dependents) => {
                dependents.into_iter().for_each(|uid| queue.add(uid));
                Ok(None)
            }
            Todo::Orphan(object, dependents) => {
                for dependent in dependents {
                    self.disown(&dependent, &[uid.to_owned()]).await?;
                }
                self.drop_finalizer(&object, "orphan").await
            }
            Todo::CheckOwners(owned) => {
                let mut missing = Vec::new();
                for owner in &owned.unseen {
                    if !self.exists(&owned.object, owner).await? {
                        missing.push(owner.uid.clone());
                    }
                }
                match owned.fate(&missing) {
                    Fate::Stays => {}
                    Fate::Loses(owners) => self.disown(&owned.object, &owners).await?,
                    Fate::Goes { propagation, unblocked } => self.delete(&owned, propagation, unblocked).await?,
                }
                Ok(None)
            }
        }
    }

    /// True if the owner lives, in which case the graph has it or is about to hear of it.
    async fn exists(&self, dependent: &Identity, owner: &graph::Owner) -> Result<bool, Failure> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let served = self.resources.borrow().clone().unwrap_or_default();
        let Some(Served { resource, .. }) =
            served.iter().find(|one| one.resource.group == group && one.kind == owner.kind)
        else {
            // A kind that is not served: nobody can say that the owner is gone.
            return Ok(true);
        };
        let mut call = Call::new(Verb::Get, resource.clone());
        call.name = Some(owner.name.clone());
        call.namespace.clone_from(&dependent.namespace);
        if self.graph.lock().is_cluster_scoped(resource) {
            call.namespace = None;
        }
        match self.client.raw(call).await {
            Ok(found) => Ok(found["metadata"]["uid"] == owner.uid.as_str()),
            Err(failure) if failure.is_not_found() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn call(object: &Identity, verb: Verb) -> Call {
        Call {
            namespace: object.namespace.clone(),
            name: Some(object.name.clone()),
            ..Call::new(verb, Resource::clone(&object.resource))
        }
    }

    /// Deletes an object if its owners are still those that it was judged by.
    async fn delete(&self, owned: &Owned, propagation: &str, unblocked: bool) -> Result<(), Failure> {
        let object = &owned.object;
        let Some((mut version, mut references)) = self.current(object, "ownerReferences").await? else {
            return Ok(());
        };
        let judged = |reference: &serde_json::Value| owned.owners.iter().any(|uid| reference["uid"] == uid.as_str());
        if references.len() != owned.owners.len() || !references.iter().all(judged) {
            // The graph is about to hear of it.
            return Ok(());
        }
        if unblocked {
            references.iter_mut().for_each(|reference| reference["blockOwnerDeletion"] = json!(false));
            self.patch(object, json!({"metadata": {"resourceVersion": version, "ownerReferences": references}}))
                .await?;
            version = serde_json::Value::Null;
        }
        let mut call = Collector::call(object, Verb::Delete);
        call.body = Some(json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation,
            "preconditions": {"uid": object.uid, "resourceVersion": version},
        }));
        gone_is_fine(self.client.raw(call).await)
    }

    async fn disown(&self, dependent: &Identity, owners: &[String]) -> Result<(), Failure> {
        let Some((version, references)) = self.current(dependent, "ownerReferences").await? else { return Ok(()) };
        let lost = |reference: &serde_json::Value| owners.iter().any(|uid| reference["uid"] == uid.as_str());
        let kept: Vec<&serde_json::Value> = references.iter().filter(|reference| !lost(reference)).collect();
        if kept.len() == references.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": kept}});
        self.patch(dependent, patch).await
    }

    async fn drop_finalizer(&self, object: &Identity, finalizer: &str) -> Result<Option<Duration>, Failure> {
        let Some((version, finalizers)) = self.current(object, "finalizers").await? else { return Ok(None) };
        let kept: Vec<&serde_json::Value> = finalizers.iter().filter(|one| *one != finalizer).collect();
        if kept.len() != finalizers.len() {
            self.patch(object, json!({"metadata": {"resourceVersion": version, "finalizers": kept}})).await?;
        }
        Ok(None)
    }

    /// A list in the metadata as it is now, with the revision that it was read at; `None` if the object is gone.
    async fn current(
        &self,
        object: &Identity,
        field: &str,
    ) -> Result<Option<(serde_json::Value, Vec<serde_json::Value>)>, Failure> {
        let mut found = match self.client.raw(Collector::call(object, Verb::Get)).await {
            Ok(found) => found,
            Err(failure) if failure.is_not_found() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let meta = &mut found["metadata"];
        if meta["uid"] != object.uid.as_str() {
            return Ok(None);
        }
        let list = meta[field].as_array().cloned().unwrap_or_default();
        Ok(Some((meta["resourceVersion"].take(), list)))
    }

    async fn patch(&self, object: &Identity, patch: serde_json::Value) -> Result<(), Failure> {
        let mut call = Collector::call(object, Verb::Patch);
        call.options.patch = Some(client::PatchKind::Merge);
        call.body = Some(patch);
        gone_is_fine(self.client.raw(call).await)
    }
}
