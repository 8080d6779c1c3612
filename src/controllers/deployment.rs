//! Deployments: rolls ReplicaSets from one template to the next.
//!
//! Watches Deployments, ReplicaSets and, for `Recreate`, Pods. Each reconcile observes the ReplicaSets, asks [`rollout`]
//! for the next sizes, writes what differs and then the status from [`status`]. One template is one ReplicaSet, found by
//! comparing templates and named after a hash of the template.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Involved, Key, Queue, Recorder, Scope};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::shared::claim::Claim;
use crate::shared::owned::{controller_of, controller_reference, gone_is_fine, is_controlled_by, wake_owners};
use crate::shared::{hash, pods, select};

mod rollout;
mod status;

use rollout::{Resize, Size, Strategy};

const WORKERS: usize = 4;
const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that belong to one object and are not passed on from the Deployment to its ReplicaSets.
const NOT_PASSED_ON: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

struct Deployments {
    client: Client,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(Deployments {
        deployments: client.informer(Scope::all()),
        sets: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "deployment-controller", None),
        client,
    });
    controller.deployments.synced().await;
    controller.sets.synced().await;
    controller.pods.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("deployment", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut deployments = controller.deployments.subscribe();
    let mut sets = controller.sets.subscribe();
    let mut pod_changes = controller.pods.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = deployments.next() => queue.add(change.key),
            change = sets.next() => {
                for set in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake_owners(&queue, set);
                }
            }
            // Only the end of a pod matters: `Recreate` waits for it.
            change = pod_changes.next() => if let (Some(pod), None) = (&change.old, &change.new) {
                controller.wake_recreating(&queue, pod);
            }
        }
    }
}

/// The ReplicaSets of a Deployment, told apart.
struct Observed {
    /// The one with the Deployment's template.
    new: Option<Arc<ReplicaSet>>,
    /// The others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
}

impl Observed {
    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }
}

impl Deployments {
    fn wake_owners(&self, queue: &Queue<Key>, set: &ReplicaSet) {
        wake_owners(queue, &self.deployments, &set.metadata, |deployment| {
            let selector = deployment.spec.as_ref().map(|spec| select::compiled(&spec.selector));
            selector.is_some_and(|selector| selector.matches_labels(set.metadata.labels.as_ref()))
        });
    }

    fn wake_recreating(&self, queue: &Queue<Key>, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let set = controller_of(&pod.metadata).and_then(|owner| self.sets.get(namespace, &owner.name));
        let deployment = set.and_then(|set| {
            controller_of(&set.metadata).and_then(|owner| self.deployments.get(namespace, &owner.name))
        });
        if let Some(deployment) = deployment
            && strategy(&deployment) == Strategy::Recreate
        {
            queue.add(Key::of(&*deployment));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(deployment) = self.deployments.get_key(&key) else { return Ok(None) };
        let mut deployment = Deployment::clone(&deployment);
        let Some(spec) = deployment.spec.clone() else { return Ok(None) };
        if select::compiled(&spec.selector).is_empty() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(Involved::new(&deployment), "SelectingAll", message);
            return Ok(None);
        }
        let mut observed = self.observe(&deployment).await?;
        let paused = spec.paused == Some(true);
        if deployment.metadata.deletion_timestamp.is_none() {
            if !paused {
                self.ensure_new(&mut deployment, &mut observed).await?;
            }
            self.resize(&deployment, &mut observed, paused).await?;
        }
        self.write_status(&deployment, &observed).await
    }

    /// The ReplicaSets of a Deployment, after adopting and releasing.
    async fn observe(&self, deployment: &Deployment) -> Result<Observed, Failure> {
        let Some(spec) = &deployment.spec else { return Ok(Observed { new: None, old: Vec::new() }) };
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let selector = select::compiled(&spec.selector);
        let claim = Claim { client: &self.client, owner: deployment, selector: &selector, finalizer: None };
        let mut owned = claim.all(self.sets.list_in(namespace), |_| true).await?;
        owned.sort_by_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
        });
        let at = owned.iter().position(|set| same_template(&spec.template, set));
        let new = at.map(|at| owned.remove(at));
        Ok(Observed { new, old: owned })
    }

    /// Makes sure that the template's ReplicaSet exists and carries the highest revision.
    async fn ensure_new(&self, deployment: &mut Deployment, observed: &mut Observed) -> Result<(), Failure> {
        let last = observed.old.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0);
        let mut current = last + 1;
        match &observed.new {
            Some(set) => {
                current = current.max(revision(&set.metadata));
                let annotations = annotations_for_set(deployment, set.metadata.annotations.as_ref(), current);
                let min_ready = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
                let set_min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
                if set.metadata.annotations.as_ref() != Some(&annotations) || min_ready != set_min_ready {
                    let mut changed = ReplicaSet::clone(set);
                    changed.metadata.annotations = Some(annotations);
                    if let Some(spec) = &mut changed.spec {
                        spec.min_ready_seconds = min_ready;
                    }
                    observed.new = Some(Arc::new(self.client.update(&changed).await?));
                }
            }
            None => observed.new = Some(Arc::new(self.create_new(deployment, observed, current).await?)),
        }
        if revision(&deployment.metadata) != current {
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.to_owned(), current.to_string());
            *deployment = self.client.update(deployment).await?;
        }
        Ok(())
    }

    async fn create_new(
        &self,
        deployment: &mut Deployment,
        observed: &Observed,
        revision: i64,
    ) -> Result<ReplicaSet, Failure> {
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
        let set = new_set(deployment, observed, revision, collisions)?;
        match self.client.create(&set).await {
            Ok(created) => {
                let message = format!(
                    "Scaled up replica set {} from 0 to {}",
                    created.metadata.name.as_deref().unwrap_or_default(),
                    replicas(&created)
                );
                if replicas(&created) > 0 {
                    self.recorder.normal(Involved::new(deployment), "ScalingReplicaSet", message);
                }
                Ok(created)
            }
            Err(failure) if failure.is_already_exists() => {
                let key = Key::of(&set);
                let existing: ReplicaSet = self.client.get(&key.namespace, &key.name).await?;
                let ours = is_controlled_by(&existing.metadata, deployment.metadata.uid.as_deref());
                let template = deployment.spec.as_ref().map(|spec| &spec.template);
                if ours && template.is_some_and(|template| same_template(template, &existing)) {
                    return Ok(existing);
                }
                // Two templates with one hash: the next name is made with the collision counted in.
                let mut status = deployment.status.clone().unwrap_or_default();
                status.collision_count = Some(collisions.unwrap_or(0) + 1);
                deployment.status = Some(status);
                *deployment = self.client.update_status(deployment).await?;
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn resize(&self, deployment: &Deployment, observed: &mut Observed, paused: bool) -> Result<(), Failure> {
        let strategy = strategy(deployment);
        let active = || observed.all().filter(|set| replicas(set) > 0);
        let outdated =
            active().any(|set| annotation(&set.metadata, DESIRED_REPLICAS) != Some(i64::from(wanted(deployment))));
        // `Recreate` shares nothing out: several active sets, which a change of strategy leaves behind, go their way.
        let scaled = outdated && (strategy != Strategy::Recreate || active().count() <= 1);
        let new = observed.new.as_deref().map(size);
        let old: Vec<Size> = observed.old.iter().map(|set| size(set)).collect();
        let resizes = if paused || scaled {
            rollout::scale(wanted(deployment), strategy, new.as_ref(), &old)
        } else if strategy == Strategy::Recreate {
            rollout::recreate(wanted(deployment), new.as_ref(), &old, self.old_pods_run(observed))
        } else {
            rollout::roll(wanted(deployment), strategy, new.as_ref(), &old)
        };
        for resize in resizes {
            let resized = self.apply(deployment, observed, &resize).await?;
            if let Some(set) = resized {
                match observed.old.iter_mut().find(|known| known.metadata.name == set.metadata.name) {
                    Some(known) => *known = set,
                    None => observed.new = Some(set),
                }
            }
        }
        let complete = observed.new.as_deref().is_some_and(|new| {
            new.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0) >= wanted(deployment)
        });
        if !paused && complete { self.clean_up(deployment, observed).await } else { Ok(()) }
    }

    /// True if a pod of an older template still runs, or a set of one says so.
    fn old_pods_run(&self, observed: &Observed) -> bool {
        observed.old.iter().any(|set| {
            if set.status.as_ref().is_some_and(|status| status.replicas > 0) {
                return true;
            }
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            let set_uid = set.metadata.uid.as_deref();
            let pods = self.pods.list_where(Some(namespace), |meta| set_uid.is_some() && meta.controller() == set_uid);
            pods.iter().any(|pod| !pods::is_finished(pod))
        })
    }

    async fn apply(
        &self,
        deployment: &Deployment,
        observed: &Observed,
        resize: &Resize,
    ) -> Result<Option<Arc<ReplicaSet>>, Failure> {
        let Some(set) = observed.all().find(|set| set.metadata.name.as_deref() == Some(&resize.name)) else {
            return Ok(None);
        };
        let mut changed = ReplicaSet::clone(set);
        let from = replicas(set);
        note_size(deployment, changed.metadata.annotations.get_or_insert_default());
        if from == resize.replicas && changed.metadata.annotations == set.metadata.annotations {
            return Ok(None);
        }
        if let Some(spec) = &mut changed.spec {
            spec.replicas = Some(resize.replicas);
        }
        let written = self.client.update(&changed).await?;
        if from != resize.replicas {
            let direction = if resize.replicas > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {from} to {}", resize.name, resize.replicas);
            self.recorder.normal(Involved::new(deployment), "ScalingReplicaSet", message);
        }
        Ok(Some(Arc::new(written)))
    }

    /// Deletes the oldest ReplicaSets that are empty and beyond the history that is kept.
    async fn clean_up(&self, deployment: &Deployment, observed: &Observed) -> Result<(), Failure> {
        let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let mut empty: Vec<&Arc<ReplicaSet>> = observed
            .old
            .iter()
            .filter(|set| {
                replicas(set) == 0
                    && set.metadata.deletion_timestamp.is_none()
                    && set.status.as_ref().is_none_or(|status| status.replicas == 0)
            })
            .collect();
        empty.sort_by_key(|set| revision(&set.metadata));
        let surplus = empty.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        for set in empty.into_iter().take(surplus) {
            let key = Key::of(&**set);
            let options = DeleteOptions { uid: set.metadata.uid.clone(), ..DeleteOptions::default() };
            gone_is_fine(self.client.delete::<ReplicaSet>(&key.namespace, &key.name, options).await)?;
        }
        Ok(())
    }

    async fn write_status(&self, deployment: &Deployment, observed: &Observed) -> Result<Option<Duration>, Failure> {
        let old: Vec<&ReplicaSet> = observed.old.iter().map(|set| &**set).collect();
        let (status, again) = status::of(deployment, observed.new.as_deref(), &old, Timestamp::now());
        if deployment.status.as_ref() != Some(&status) {
            let changed = Deployment { status: Some(status), ..deployment.clone() };
            gone_is_fine(self.client.update_status(&changed).await)?;
        }
        Ok(again)
    }
}

/// The ReplicaSet for the Deployment's template, at the size it starts with.
fn new_set(
    deployment: &Deployment,
    observed: &Observed,
    revision: i64,
    collisions: Option<i32>,
) -> Result<ReplicaSet, Failure> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = hash::of(&spec.template, collisions)?;
    let name = format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default());
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector: LabelSelector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash);
    let old: Vec<Size> = observed.old.iter().map(|set| size(set)).collect();
    let strategy = strategy(deployment);
    let replicas = match strategy {
        Strategy::Recreate if old.iter().any(|set| set.replicas > 0) => 0,
        _ => rollout::new_size(wanted(deployment), strategy, 0, &old),
    };
    let mut annotations = annotations_for_set(deployment, None, revision);
    note_size(deployment, &mut annotations);
    Ok(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    })
}

fn annotations_for_set(
    deployment: &Deployment,
    known: Option<&BTreeMap<String, String>>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut annotations = known.cloned().unwrap_or_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_PASSED_ON.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let before = annotations.insert(REVISION.into(), revision.to_string());
    // Rolled back to: the revisions that it had before are kept.
    if let Some(before) = before.filter(|before| *before != revision.to_string()) {
        let history = annotations.entry(REVISION_HISTORY.into()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&before);
    }
    annotations
}

/// Notes for which size of the Deployment a set got its own. They stay until it gets another: its share of a change of
/// size is reckoned from them.
fn note_size(deployment: &Deployment, annotations: &mut BTreeMap<String, String>) {
    annotations.insert(DESIRED_REPLICAS.into(), wanted(deployment).to_string());
    annotations.insert(MAX_REPLICAS.into(), strategy(deployment).most(wanted(deployment)).to_string());
}

/// True if the ReplicaSet's template is this one, but for the label that tells templates apart.
fn same_template(template: &PodTemplateSpec, set: &ReplicaSet) -> bool {
    let Some(found) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return false };
    let bare = |template: &PodTemplateSpec| {
        let meta = template.metadata.clone().unwrap_or_default();
        let mut labels = meta.labels.unwrap_or_default();
        labels.remove(HASH_LABEL);
        (labels, meta.annotations.unwrap_or_default())
    };
    found.spec == template.spec && bare(found) == bare(template)
}

fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn annotation(meta: &ObjectMeta, key: &str) -> Option<i64> {
    meta.annotations.as_ref()?.get(key)?.parse().ok()
}

fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).unwrap_or(0)
}

fn size(set: &ReplicaSet) -> Size {
    Size {
        name: set.metadata.name.clone().unwrap_or_default(),
        replicas: replicas(set),
        available: set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0),
        most: annotation(&set.metadata, MAX_REPLICAS).and_then(|most| i32::try_from(most).ok()),
    }
}

fn strategy(deployment: &Deployment) -> Strategy {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Strategy::Recreate;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    Strategy::rolling(
        wanted(deployment),
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d",
                         "annotations": {"team": "a", REVISION: "1"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}},
                                  "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_template_is_known_again_by_its_set() {
        let one = deployment("nginx:1");
        let none = Observed { new: None, old: vec![] };
        let set = new_set(&one, &none, 1, None).unwrap();
        assert!(same_template(&one.spec.as_ref().unwrap().template, &set));
        assert!(!same_template(&deployment("nginx:2").spec.unwrap().template, &set));
        assert_eq!(replicas(&set), 3);
        let hash = set.metadata.labels.as_ref().unwrap()[HASH_LABEL].clone();
        assert_eq!(set.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
        assert_eq!(set.spec.unwrap().selector.match_labels.unwrap()[HASH_LABEL], hash);
        let collided = new_set(&one, &none, 1, Some(1)).unwrap();
        assert_ne!(collided.metadata.name, set.metadata.name);
    }

    #[test]
    fn rolled_back_sets_remember_their_revisions() {
        let deployment = deployment("nginx:1");
        let first = annotations_for_set(&deployment, None, 1);
        assert_eq!((first[REVISION].as_str(), first["team"].as_str()), ("1", "a"));
        let third = annotations_for_set(&deployment, Some(&first), 3);
        let fifth = annotations_for_set(&deployment, Some(&third), 5);
        assert_eq!((fifth[REVISION].as_str(), fifth[REVISION_HISTORY].as_str()), ("5", "1,3"));
    }

    #[test]
    fn a_set_remembers_for_which_size_it_got_its_own() {
        let mut deployment = deployment("nginx:1");
        let set = new_set(&deployment, &Observed { new: None, old: vec![] }, 1, None).unwrap();
        let known = set.metadata.annotations.unwrap();
        assert_eq!((known[DESIRED_REPLICAS].as_str(), known[MAX_REPLICAS].as_str()), ("3", "4"));
        deployment.spec.as_mut().unwrap().replicas = Some(30);
        assert_eq!(annotations_for_set(&deployment, Some(&known), 1), known, "its size is still to be changed");
    }
}
