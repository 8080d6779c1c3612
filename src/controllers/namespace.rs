//! Namespaces that are being deleted: deletes everything in them, pods first, says what is left, then lets them go.

use std::sync::Arc;
use std::time::Duration;

use api::{Call, Resource, Verb};
use client::{Client, Failure, Informer, Queue, Scope};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use task::Shutdown;

use crate::Served;
use crate::shared::owned::gone_is_fine;
use crate::shared::served::{self, Resources};

mod conditions;

use conditions::Progress;

const FINALIZER: &str = "kubernetes";
/// How long to wait before looking whether what was deleted is gone; pods need their grace.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The same when nothing is left but what finalizers hold.
const LOOK_AGAIN_HELD: Duration = Duration::from_secs(5);
/// Objects of one resource that are looked at for finalizers.
const LOOKED_AT_MAX: u64 = 500;

struct Namespaces {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    resources: Resources,
}

/// `built_in` are resources that can be listed and deleted.
pub async fn run(client: Client, built_in: Vec<Served>, shutdown: Shutdown) -> Result<(), Failure> {
    let resources = served::follow(&client, built_in, &shutdown);
    let controller = Arc::new(Namespaces { namespaces: client.informer(Scope::all()), client, resources });
    controller.namespaces.synced().await;
    // Nothing is empty before it is known what could be in it.
    if controller.resources.clone().wait_for(Option::is_some).await.is_err() {
        return Ok(());
    }
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("namespace", queue.clone(), 2, shutdown.clone(), move |name: String| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&name).await }
    });
    let mut namespaces = controller.namespaces.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
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
        let mut failure = None;
        // Pods may need the rest while they end (KEP-5080).
        for served in [pods, others] {
            if !progress.remaining.is_empty() {
                break;
            }
            for Served { resource, .. } in served {
                if let Err(error) = self.empty(name, resource, &mut progress).await {
                    progress.failures.push(error.to_string());
                    failure.get_or_insert(error);
                }
            }
        }
        let namespace = self.tell(&namespace, &progress).await?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !progress.remaining.is_empty() {
            let held = progress.remaining.values().sum::<u64>() <= progress.finalizers.values().sum();
            return Ok(Some(if held { LOOK_AGAIN_HELD } else { LOOK_AGAIN }));
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

    /// Deletes all objects of a resource in a namespace, and counts those that are still there afterwards.
    async fn empty(&self, namespace: &str, resource: &Resource, progress: &mut Progress) -> Result<(), Failure> {
        let call = |verb| Call { namespace: Some(namespace.to_owned()), ..Call::new(verb, resource.clone()) };
        let mut list = call(Verb::List);
        list.options.limit = Some(1);
        if items(&self.client.raw(list.clone()).await?).is_empty() {
            return Ok(());
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
        Ok(())
    }
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}
