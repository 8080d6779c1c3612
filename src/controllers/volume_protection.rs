//! Keeps PersistentVolumeClaims that pods use, and PersistentVolumes that are bound, from being deleted under them.
//!
//! They carry a finalizer from admission on; it is taken from what is being deleted when nothing uses it any more.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Key, ListOptions, Object, Queue, Scope};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use task::Shutdown;

use crate::ephemeral_volume::{claim_of, is_for};
use crate::shared::owned::gone_is_fine;
use crate::shared::pods;

const WORKERS: usize = 1;
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

struct Claims {
    client: Client,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    pods: Arc<Informer<Pod>>,
}

pub async fn run_claims(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller =
        Arc::new(Claims { claims: client.informer(Scope::all()), pods: client.informer(Scope::all()), client });
    controller.claims.synced().await;
    controller.pods.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("pvcprotection", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut claims = controller.claims.subscribe();
    let mut changes = controller.pods.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = claims.next() => if change.new.is_some_and(|claim| act_on(&claim.metadata, CLAIM_FINALIZER).is_some()) {
                queue.add(change.key);
            },
            // Only the end of a pod frees its claims.
            change = changes.next() => if change.new.as_deref().is_none_or(pods::is_deleted) {
                for name in change.old.or(change.new).iter().flat_map(|pod| claim_names(pod)) {
                    queue.add(Key::new(change.key.namespace.clone(), name));
                }
            },
        }
    }
}

impl Claims {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(claim) = self.claims.get_key(&key) else { return Ok(None) };
        let in_use = match act_on(&claim.metadata, CLAIM_FINALIZER) {
            Some(Act::Remove) => self.is_used(&claim).await?,
            _ => true,
        };
        protect(&self.client, &*claim, CLAIM_FINALIZER, in_use).await
    }

    /// The cache may not show the newest pods, so the API is asked where it shows none.
    async fn is_used(&self, claim: &PersistentVolumeClaim) -> Result<bool, Failure> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        if self.pods.list_in(namespace).iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        let live: Vec<Pod> = self.client.list(namespace, &ListOptions::default()).await?;
        Ok(live.iter().any(|pod| uses(pod, claim)))
    }
}

/// The claims that a pod names or has made for it.
fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match &volume.persistent_volume_claim {
            Some(source) => Some(source.claim_name.clone()),
            None => volume.ephemeral.as_ref().map(|_| claim_of(pod, volume)),
        })
        .collect()
}

/// Whether a pod on a node uses the claim, even one that has ended: the kubelet may still be at its volumes.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let shut_down = pods::is_deleted(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    pods::node_name(pod).is_some()
        && volumes.any(|volume| {
            let named = volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == name);
            let made = !shut_down && volume.ephemeral.is_some() && claim_of(pod, volume) == name;
            named || (made && is_for(pod, claim))
        })
}

struct Volumes {
    client: Client,
    volumes: Arc<Informer<PersistentVolume>>,
}

pub async fn run_volumes(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(Volumes { volumes: client.informer(Scope::all()), client });
    controller.volumes.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("pvprotection", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut volumes = controller.volumes.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = volumes.next() => {
                if change.new.is_some_and(|volume| act_on(&volume.metadata, VOLUME_FINALIZER).is_some()) {
                    queue.add(change.key);
                }
            }
        }
    }
}

impl Volumes {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(volume) = self.volumes.get_key(&key) else { return Ok(None) };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        protect(&self.client, &*volume, VOLUME_FINALIZER, phase == Some("Bound")).await
    }
}

/// What may have to be done about a finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Add,
    /// If nothing uses the object.
    Remove,
}

fn act_on(meta: &ObjectMeta, finalizer: &str) -> Option<Act> {
    let has = meta.finalizers.iter().flatten().any(|one| one == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => Some(Act::Remove),
        (false, false) => Some(Act::Add),
        _ => None,
    }
}

async fn protect<T: Object + Clone + k8s_openapi::Metadata<Ty = ObjectMeta>>(
    client: &Client,
    object: &T,
    finalizer: &str,
    in_use: bool,
) -> Result<Option<Duration>, Failure> {
    let mut changed = object.clone();
    let finalizers = changed.metadata_mut().finalizers.get_or_insert_default();
    match act_on(object.metadata(), finalizer) {
        Some(Act::Add) => finalizers.push(finalizer.to_owned()),
        Some(Act::Remove) if !in_use => finalizers.retain(|one| one != finalizer),
        _ => return Ok(None),
    }
    gone_is_fine(client.update(&changed).await)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_claim_is_used_by_pods_on_nodes() {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {"name": "c"}})).unwrap();
        let on_node = pod(json!({"containers": [], "nodeName": "n", "volumes": volumes}));
        assert!(uses(&on_node, &claim));
        assert!(!uses(&pod(json!({"containers": [], "volumes": volumes})), &claim));
        assert!(!uses(&pod(json!({"containers": [], "nodeName": "n"})), &claim));
        assert_eq!(claim_names(&on_node), ["c"]);
    }

    #[test]
    fn a_claim_that_was_made_for_a_pod_is_used_by_that_pod() {
        let made = pod(json!({"containers": [], "nodeName": "n", "volumes": [{"name": "v", "ephemeral": {}}]}));
        let claim = |owner: &str| -> PersistentVolumeClaim {
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true});
            serde_json::from_value(json!({"metadata": {"name": "p-v", "ownerReferences": [owner]}})).unwrap()
        };
        assert!(uses(&made, &claim("p")) && !uses(&made, &claim("other")));
        assert_eq!(claim_names(&made), ["p-v"]);
    }

    #[test]
    fn finalizers_come_and_go_with_the_deletion() {
        let meta = |deleted: bool, finalizers: Value| -> ObjectMeta {
            let at = deleted.then_some("2026-01-01T00:00:00Z");
            serde_json::from_value(json!({"deletionTimestamp": at, "finalizers": finalizers})).unwrap()
        };
        assert_eq!(act_on(&meta(false, json!([])), "f"), Some(Act::Add));
        assert_eq!(act_on(&meta(true, json!(["f"])), "f"), Some(Act::Remove));
        assert_eq!(act_on(&meta(false, json!(["f"])), "f"), None);
        assert_eq!(act_on(&meta(true, json!(["other"])), "f"), None);
    }
}
