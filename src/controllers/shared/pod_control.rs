//! Making and deleting pods for an owner, with the Events that say so.

use std::iter;

use client::{Client, DeleteOptions, Failure, Involved, Key, Object, Recorder};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::shared::owned::{controller_reference, uid};
use crate::shared::recent::Recent;

/// Pods made or deleted in one go; more follow when the cache shows these.
pub const BURST_PODS_MAX: usize = 500;

/// Makes and deletes pods, and remembers it until the cache shows it.
#[derive(Clone)]
pub struct PodControl {
    client: Client,
    recorder: Recorder,
    pub recent: Recent,
}

/// How far making pods came.
#[derive(Debug, Default)]
pub struct Created {
    pub count: usize,
    /// Why it went no further.
    pub failure: Option<Failure>,
}

impl PodControl {
    pub fn new(client: Client, recorder: Recorder) -> PodControl {
        PodControl { client, recorder, recent: Recent::default() }
    }

    /// Makes pods, slowly first: if the first is refused, for a quota say, so are the others.
    pub async fn create_all<T: Object>(&self, owner: &T, pods: Vec<Pod>) -> Created {
        let mut created = Created::default();
        let mut left = pods.as_slice();
        for batch in iter::successors(Some(1_usize), |size| Some(size.saturating_mul(2))) {
            let (now, later) = left.split_at(batch.min(left.len()));
            if now.is_empty() {
                break;
            }
            for outcome in futures::future::join_all(now.iter().map(|pod| self.create(owner, pod))).await {
                match outcome {
                    Ok(_) => created.count += 1,
                    Err(failure) => created.failure = Some(failure),
                }
            }
            if created.failure.is_some() {
                break;
            }
            left = later;
        }
        // Nothing will be made in a namespace that goes, and nobody has to be told.
        created.failure = created.failure.filter(|failure| !namespace_goes(failure));
        created
    }

    pub async fn create<T: Object>(&self, owner: &T, pod: &Pod) -> Result<Pod, Failure> {
        match self.client.create(pod).await {
            Ok(created) => {
                self.recent.created(uid(owner.metadata()), uid(&created.metadata));
                let name = created.metadata.name.as_deref().unwrap_or_default();
                self.recorder.normal(Involved::new(owner), "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(created)
            }
            Err(failure) => {
                if !namespace_goes(&failure) {
                    let message = format!("Error creating: {failure}");
                    self.recorder.warning(Involved::new(owner), "FailedCreate", message);
                }
                Err(failure)
            }
        }
    }

    /// That the pod is gone already is as good.
    pub async fn delete<T: Object>(&self, owner: &T, pod: &Pod) -> Result<(), Failure> {
        let key = Key::of(pod);
        let (owner_uid, pod_uid) = (uid(owner.metadata()), uid(&pod.metadata));
        let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        self.recent.deleted(owner_uid, pod_uid);
        match self.client.delete::<Pod>(&key.namespace, &key.name, options).await {
            Ok(()) => {
                let message = format!("Deleted pod: {}", key.name);
                self.recorder.normal(Involved::new(owner), "SuccessfulDelete", message);
                Ok(())
            }
            Err(failure) if failure.is_not_found() => Ok(()),
            Err(failure) => {
                self.recent.kept(owner_uid, pod_uid);
                self.recorder.warning(Involved::new(owner), "FailedDelete", format!("Error deleting: {failure}"));
                Err(failure)
            }
        }
    }

    /// Deletes pods; yields how many are on their way, and the first failure.
    pub async fn delete_all<'a, T: Object>(
        &self,
        owner: &T,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> (usize, Option<Failure>) {
        let outcomes = futures::future::join_all(pods.into_iter().map(|pod| self.delete(owner, pod))).await;
        let gone = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        (gone, outcomes.into_iter().find_map(Result::err))
    }
}

/// A pod of `owner` as the template has it; it is named when it is made.
pub fn pod_of<T: Object>(owner: &T, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.metadata().name.as_deref().unwrap_or_default())),
            namespace: owner.metadata().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// True if something was refused because its namespace is being deleted.
pub fn namespace_goes(failure: &Failure) -> bool {
    let causes = failure.details.as_ref().map_or(&[][..], |details| &details.causes);
    causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}
