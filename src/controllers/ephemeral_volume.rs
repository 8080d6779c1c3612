//! Makes the PersistentVolumeClaims of pods' ephemeral volumes; they go with their pod.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Involved, Key, Queue, Recorder, Scope};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use task::Shutdown;

use crate::shared::owned::{controller_reference, is_controlled_by};
use crate::shared::pods;

const WORKERS: usize = 10;

struct EphemeralVolumes {
    client: Client,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    recorder: Recorder,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(EphemeralVolumes {
        pods: client.informer(Scope::all()),
        claims: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "ephemeral_volume", None),
        client,
    });
    controller.pods.synced().await;
    controller.claims.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("ephemeralvolume", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut pods = controller.pods.subscribe();
    let mut claims = controller.claims.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = pods.next() => if change.new.is_some_and(|pod| ephemeral(&pod).next().is_some()) {
                queue.add(change.key);
            },
            // One that was deleted is made again while its pod is there.
            change = claims.next() => if let (Some(claim), None) = (&change.old, &change.new) {
                for owner in claim.metadata.owner_references.iter().flatten().filter(|owner| owner.kind == "Pod") {
                    queue.add(Key::new(change.key.namespace.clone(), owner.name.clone()));
                }
            },
        }
    }
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter(|volume| volume.ephemeral.is_some())
}

/// The name of the claim of a pod's ephemeral volume.
pub fn claim_of(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name)
}

/// Whether a claim was made for a pod.
pub fn is_for(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    is_controlled_by(&claim.metadata, pod.metadata.uid.as_deref())
}

/// The claim that a volume needs; `None` if there is a template missing, which validation keeps out.
fn wanted(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
    let meta = template.metadata.unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_of(pod, volume)),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    })
}

impl EphemeralVolumes {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(pod) = self.pods.get_key(&key).filter(|pod| !pods::is_deleted(pod)) else { return Ok(None) };
        for volume in ephemeral(&pod) {
            let Some(claim) = wanted(&pod, volume) else { continue };
            if let Err(failure) = self.ensure(&pod, &claim).await {
                let message = format!("ephemeral volume {}: {failure}", volume.name);
                self.recorder.warning(Involved::new(&*pod), "FailedBinding", message);
                return Err(failure);
            }
        }
        Ok(None)
    }

    async fn ensure(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
        let Key { namespace, name } = Key::of(claim);
        let Some(known) = self.claims.get(&namespace, &name) else {
            let made = self.client.create(claim).await.map(drop);
            return made.map_err(|failure| Failure { message: format!("create PVC {name}: {failure}"), ..failure });
        };
        if is_for(pod, &known) {
            return Ok(());
        }
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        let why = format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)");
        Err(Failure::internal(why))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_made_of_the_template_and_belongs_to_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "plain", "emptyDir": {}}, {"name": "v", "ephemeral": {
                "volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}]},
        }))
        .unwrap();
        let volumes: Vec<&Volume> = ephemeral(&pod).collect();
        assert_eq!(volumes.len(), 1);
        let claim = wanted(&pod, volumes[0]).unwrap();
        assert!(is_for(&pod, &claim));
        let got = serde_json::to_value(claim).unwrap();
        assert_eq!((&got["metadata"]["name"], &got["metadata"]["labels"]), (&json!("p-v"), &json!({"a": "b"})));
        assert_eq!(got["spec"], json!({"accessModes": ["ReadWriteOnce"]}));
    }
}
