//! EndpointSlices: which pods stand behind a Service.
//!
//! Watches Services, Pods, Nodes (for zones) and EndpointSlices. The slices of a Service are compared with what
//! [`slices`] wants and changed as little as possible: every node in the cluster hears of each change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Key, Meta, Queue, Scope};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use task::Shutdown;

use crate::shared::owned::gone_is_fine;

pub(crate) mod slices;

const WORKERS: usize = 4;
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";

struct EndpointSlices {
    client: Client,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(EndpointSlices {
        services: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        nodes: client.informer(Scope::all()),
        slices: client.informer(Scope::all()),
        client,
    });
    controller.services.synced().await;
    controller.pods.synced().await;
    controller.nodes.synced().await;
    controller.slices.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("endpointslice", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut services = controller.services.subscribe();
    let mut pods = controller.pods.subscribe();
    let mut slices = controller.slices.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = services.next() => queue.add(change.key),
            change = pods.next() => {
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake_services(&queue, pod);
                }
            }
            change = slices.next() => {
                if let Some(slice) = change.new.or(change.old)
                    && let Some(service) = service_of(&slice)
                {
                    queue.add(Key::new(change.key.namespace, service));
                }
            }
        }
    }
}

/// The Service that one of our slices belongs to.
fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_BY_LABEL)? == MANAGED_BY).then(|| labels.get(SERVICE_LABEL).map(String::as_str))?
}

fn is_of(meta: &Meta, service: &str) -> bool {
    meta.label(MANAGED_BY_LABEL) == Some(MANAGED_BY) && meta.label(SERVICE_LABEL) == Some(service)
}

/// The Service's pods are sought by labels that this pod has.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = selector(service) else { return false };
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// A Service without a selector has its slices written by somebody else.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

impl EndpointSlices {
    fn wake_services(&self, queue: &Queue<Key>, pod: &Pod) {
        for service in self.services.list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if selects(&service, pod) {
                queue.add(Key::of(&*service));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let known = self.slices.list_where(Some(&key.namespace), |meta| is_of(meta, &key.name));
        let service = self.services.get_key(&key).filter(|service| service.metadata.deletion_timestamp.is_none());
        let Some((service, selector)) = service.as_deref().and_then(|service| Some((service, selector(service)?)))
        else {
            // The garbage collector would do it too, for a Service that is gone; not for one that lost its selector.
            for slice in &known {
                self.delete(slice).await?;
            }
            return Ok(None);
        };
        let selected = |meta: &Meta| selector.iter().all(|(key, value)| meta.label(key) == Some(value));
        let pods = self.pods.list_where(Some(&key.namespace), selected);
        let nodes: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
        let zones: BTreeMap<String, String> = nodes
            .into_iter()
            .filter_map(|name| {
                let node = self.nodes.get("", name)?;
                let zone = node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone")?.clone();
                Some((name.to_owned(), zone))
            })
            .collect();
        let plan = slices::plan(service, &pods, &zones, &known);
        for slice in &plan.create {
            self.client.create(slice).await?;
        }
        for slice in &plan.update {
            self.client.update(slice).await?;
        }
        for slice in &plan.delete {
            self.delete(slice).await?;
        }
        Ok(None)
    }

    async fn delete(&self, slice: &EndpointSlice) -> Result<(), Failure> {
        let key = Key::of(slice);
        let options = DeleteOptions { uid: slice.metadata.uid.clone(), ..DeleteOptions::default() };
        gone_is_fine(self.client.delete::<EndpointSlice>(&key.namespace, &key.name, options).await)
    }
}
