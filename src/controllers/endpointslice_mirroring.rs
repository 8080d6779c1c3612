//! Mirrors Endpoints that people write for Services without a selector into EndpointSlices, which is where everybody
//! looks.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Involved, Key, Meta, Queue, Recorder, Scope};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use task::Shutdown;

use crate::endpointslice::{MANAGED_BY_LABEL, SERVICE_LABEL};
use crate::shared::owned::gone_is_fine;
use crate::shared::pod_control::namespace_goes;

mod mirror;

use mirror::{ADDRESSES_MAX, Plan};

const WORKERS: usize = 5;
const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

struct Mirroring {
    client: Client,
    endpoints: Arc<Informer<Endpoints>>,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    recorder: Recorder,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(Mirroring {
        endpoints: client.informer(Scope::all()),
        services: client.informer(Scope::all()),
        slices: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "endpoint-slice-mirroring-controller", None),
        client,
    });
    controller.endpoints.synced().await;
    controller.services.synced().await;
    controller.slices.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("endpointslicemirroring", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut endpoints = controller.endpoints.subscribe();
    let mut services = controller.services.subscribe();
    let mut slices = controller.slices.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = endpoints.next() => queue.add(change.key),
            change = services.next() => queue.add(change.key),
            change = slices.next() => {
                let slice = change.new.or(change.old).filter(|slice| is_ours(slice));
                let labels = slice.and_then(|slice| slice.metadata.labels.clone()).unwrap_or_default();
                if let Some(service) = labels.get(SERVICE_LABEL) {
                    queue.add(Key::new(change.key.namespace, service.clone()));
                }
            }
        }
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == MANAGED_BY)
}

/// Leaders' locks are no endpoints, and some do not want it.
fn is_mirrored(endpoints: &Endpoints) -> bool {
    let label = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP_LABEL));
    let lock = endpoints.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(LEADER_ANNOTATION));
    !lock && label.is_none_or(|label| label != "true")
}

impl Mirroring {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let ours = |meta: &Meta| {
            meta.label(MANAGED_BY_LABEL) == Some(MANAGED_BY) && meta.label(SERVICE_LABEL) == Some(&key.name)
        };
        let known = self.slices.list_where(Some(&key.namespace), ours);
        let has_selector = |service: &Service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| !selector.is_empty())
        };
        let service = self.services.get_key(&key).filter(|service| !has_selector(service));
        let endpoints = self.endpoints.get_key(&key).filter(|endpoints| is_mirrored(endpoints));
        let Some(endpoints) = endpoints.filter(|_| service.is_some()) else {
            for slice in &known {
                self.delete(slice).await?;
            }
            return Ok(None);
        };
        let Plan { create, update, delete, invalid, skipped } = mirror::plan(&endpoints, &known);
        if invalid > 0 {
            let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
            self.recorder.warning(Involved::new(&*endpoints), "InvalidIPAddress", message);
        }
        if skipped > invalid {
            let most =
                format!("A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset");
            let message = format!("{most}. {skipped} addresses were skipped");
            self.recorder.warning(Involved::new(&*endpoints), "TooManyAddressesToMirror", message);
        }
        if endpoints.metadata.deletion_timestamp.is_none() {
            for slice in &create {
                match self.client.create(slice).await {
                    Err(failure) if namespace_goes(&failure) => return Ok(None),
                    outcome => outcome.map(drop)?,
                }
            }
        }
        for slice in &update {
            self.client.update(slice).await?;
        }
        for slice in &delete {
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
