//! Endpoints: the older form of EndpointSlices, one object per Service.
//!
//! Watches Services, Pods and Endpoints. What [`subsets`] wants is compared with what is there. Endpoints of Services
//! without a selector are written by somebody else and left alone.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Involved, Key, Meta, Queue, Recorder, Scope};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use task::Shutdown;

use crate::endpointslice::{selector, selects};
use crate::shared::owned::gone_is_fine;
use crate::shared::pod_control::namespace_goes;

mod subsets;

use subsets::{MANAGED_BY_LABEL, wanted};

const WORKERS: usize = 5;

struct EndpointsController {
    client: Client,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    endpoints: Arc<Informer<Endpoints>>,
    recorder: Recorder,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(EndpointsController {
        services: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        endpoints: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "endpoint-controller", None),
        client,
    });
    controller.services.synced().await;
    controller.pods.synced().await;
    controller.endpoints.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("endpoints", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut services = controller.services.subscribe();
    let mut pods = controller.pods.subscribe();
    let mut endpoints = controller.endpoints.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = services.next() => queue.add(change.key),
            change = pods.next() => {
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake_services(&queue, pod);
                }
            }
            // Those of others, such as leaders' locks, have no Service and are nothing to us.
            change = endpoints.next() => if change.new.or(change.old).is_some_and(|one| is_ours(&one)) {
                queue.add(change.key);
            },
        }
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MANAGED_BY_LABEL))
}

impl EndpointsController {
    fn wake_services(&self, queue: &Queue<Key>, pod: &Pod) {
        for service in self.services.list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if selects(&service, pod) {
                queue.add(Key::of(&*service));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(service) = self.services.get_key(&key) else {
            if self.endpoints.get_key(&key).is_some() {
                let options = DeleteOptions::default();
                gone_is_fine(self.client.delete::<Endpoints>(&key.namespace, &key.name, options).await)?;
            }
            return Ok(None);
        };
        let Some(selector) = selector(&service) else { return Ok(None) };
        let selected = |meta: &Meta| selector.iter().all(|(key, value)| meta.label(key) == Some(value));
        let pods = self.pods.list_where(Some(&key.namespace), selected);
        let known = self.endpoints.get_key(&key);
        let wanted = wanted(&service, &pods, known.as_deref());
        if known.as_deref() == Some(&wanted) {
            return Ok(None);
        }
        let (outcome, reason, what) = match known {
            Some(_) => {
                let outcome = self.client.update(&wanted).await;
                (outcome, "FailedToUpdateEndpoint", format!("Failed to update endpoint {key}"))
            }
            None => {
                let outcome = self.client.create(&wanted).await;
                (outcome, "FailedToCreateEndpoint", format!("Failed to create endpoint for service {key}"))
            }
        };
        match outcome {
            Ok(_) => Ok(None),
            Err(failure) if namespace_goes(&failure) => Ok(None),
            Err(failure) => {
                self.recorder.warning(Involved::new(&wanted), reason, format!("{what}: {failure}"));
                Err(failure)
            }
        }
    }
}
