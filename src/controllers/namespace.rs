//! Namespaces that are being deleted: deletes everything in them, then lets them go.

use std::sync::Arc;
use std::time::Duration;

use api::{Call, Resource, Verb};
use client::{Client, Failure, Informer, Queue, Scope};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;
use task::Shutdown;

use crate::Served;
use crate::owned::gone_is_fine;
use crate::served::{self, Resources};

const FINALIZER: &str = "kubernetes";
/// How long to wait before looking whether what was deleted is gone; pods need their grace.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
        let mut left = false;
        let resources = self.resources.borrow().clone().unwrap_or_default();
        for served in resources.iter().filter(|served| served.namespaced) {
            left |= self.empty(name, &served.resource).await?;
        }
        if left {
            return Ok(Some(LOOK_AGAIN));
        }
        let mut finalized = Namespace::clone(&namespace);
        finalized.spec.get_or_insert_default().finalizers =
            Some(finalizers.into_iter().filter(|one| one != FINALIZER).collect());
        gone_is_fine(self.client.update_subresource(&finalized, "finalize").await)?;
        Ok(None)
    }

    /// Deletes all objects of a resource in a namespace; true if some are still there afterwards.
    async fn empty(&self, namespace: &str, resource: &Resource) -> Result<bool, Failure> {
        let call = |verb| Call { namespace: Some(namespace.to_owned()), ..Call::new(verb, resource.clone()) };
        if !self.any(call(Verb::List)).await? {
            return Ok(false);
        }
        let mut delete = call(Verb::DeleteCollection);
        delete.body = Some(json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}));
        gone_is_fine(self.client.raw(delete).await)?;
        self.any(call(Verb::List)).await
    }

    async fn any(&self, mut list: Call) -> Result<bool, Failure> {
        list.options.limit = Some(1);
        let list = self.client.raw(list).await?;
        Ok(list["items"].as_array().is_some_and(|items| !items.is_empty()))
    }
}
