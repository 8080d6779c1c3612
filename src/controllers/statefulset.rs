//! StatefulSets: pods with names and volumes of their own.
//!
//! Watches StatefulSets, Pods, PersistentVolumeClaims and ControllerRevisions. Each reconcile makes sure of the revisions,
//! asks [`plan`] for the next steps, takes them in order and writes the status.
//!
//! `spec.updateStrategy.rollingUpdate.maxUnavailable` is behind a gate that is off in 1.36, and the API server drops it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Involved, Key, Meta, Queue, Recorder, Scope};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::shared::claim::Claim;
use crate::shared::history::{self, Present};
use crate::shared::owned::{uid, wake_owners};
use crate::shared::pod_control::namespace_goes;
use crate::shared::recent::Recent;
use crate::shared::written::Written;
use crate::shared::{pods, select};

mod claims;
mod identity;
mod plan;

use claims::{Owners, claims_at, conflicts, owners};
use identity::{ordinal, ordinal_in, ordinals, put_right, revision};
use plan::{Step, View};

const WORKERS: usize = 5;
/// The label of revisions that says of which template they are.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Pods that are seen to at a time.
const PARALLEL_MAX: usize = 500;

struct StatefulSets {
    client: Client,
    sets: Arc<Informer<StatefulSet>>,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    revisions: Arc<Informer<ControllerRevision>>,
    recorder: Recorder,
    recent: Recent,
    written: Written,
}

/// The revisions of a StatefulSet.
struct Revisions {
    current: Arc<ControllerRevision>,
    update: Arc<ControllerRevision>,
    /// All but the update's, in their order.
    others: Vec<Arc<ControllerRevision>>,
    collisions: i32,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(StatefulSets {
        sets: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        claims: client.informer(Scope::all()),
        revisions: client.informer(Scope::all()),
        recorder: Recorder::new(client.clone(), "statefulset-controller", None),
        recent: Recent::default(),
        written: Written::default(),
        client,
    });
    controller.sets.synced().await;
    controller.pods.synced().await;
    controller.claims.synced().await;
    controller.revisions.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("statefulset", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut sets = controller.sets.subscribe();
    let mut changes = controller.pods.subscribe();
    let mut claims = controller.claims.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = sets.next() => queue.add(change.key),
            change = changes.next() => {
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake_owners(&queue, pod);
                }
            }
            // A pod may wait for the end of a claim with its name.
            change = claims.next() => if change.new.is_none() {
                controller.wake_claimers(&queue, &change.key);
            },
        }
    }
}

impl StatefulSets {
    fn wake_owners(&self, queue: &Queue<Key>, pod: &Pod) {
        wake_owners(queue, &self.sets, &pod.metadata, |set| {
            let selector = set.spec.as_ref().map(|spec| select::compiled(&spec.selector));
            selector.is_some_and(|selector| selector.matches_labels(pod.metadata.labels.as_ref()))
        });
    }

    fn wake_claimers(&self, queue: &Queue<Key>, claim: &Key) {
        for set in self.sets.list_in(&claim.namespace) {
            let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
            let claims = templates.filter_map(|one| one.metadata.name.as_deref()).any(|template| {
                let set = format!("{template}-{}", set.metadata.name.as_deref().unwrap_or_default());
                ordinal_in(&set, &claim.name).is_some()
            });
            if claims {
                queue.add(Key::of(&*set));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(set) = self.sets.get_key(&key) else {
            self.written.forget(&key);
            return Ok(None);
        };
        let Some(spec) = &set.spec else { return Ok(None) };
        if !self.written.is_seen(&*set) {
            return Ok(None);
        }
        let selector = select::compiled(&spec.selector);
        let claim = Claim { client: &self.client, owner: &*set, selector: &selector, finalizer: None };
        let set_uid = set.metadata.uid.as_deref();
        let ours_or_nobodys = |meta: &Meta| meta.controller().is_none() || meta.controller() == set_uid;
        let known = claim.all(self.revisions.list_where(Some(&key.namespace), ours_or_nobodys), |_| true).await?;
        let candidates = self.pods.list_where(Some(&key.namespace), ours_or_nobodys);
        let mut pods = claim.all(candidates, |pod| ordinal(&set, pod).is_some()).await?;
        pods.sort_by_key(|pod| ordinal(&set, pod));
        let revisions = self.revisions(&set, &known).await?;

        let shown = pods.iter().map(|pod| (uid(&pod.metadata), pods::is_deleted(pod)));
        let unseen = self.recent.settle(uid(&set.metadata), shown);
        let claims = self.claims_of(&set, &pods);
        let view = View {
            set: &set,
            current: &revisions.current,
            update: &revisions.update,
            pods: &pods,
            claims: &claims,
            collisions: revisions.collisions,
            now: Timestamp::now(),
        };
        let steps = if unseen.is_empty() { plan::plan(&view) } else { Vec::new() };
        let (status, again) = plan::status(&view, &steps);
        let outcome = self.take(&set, steps).await;
        if set.status.as_ref() != Some(&status) {
            let changed = StatefulSet { status: Some(status), ..StatefulSet::clone(&set) };
            self.written.wrote(&self.client.update_status(&changed).await?);
        }
        // Nothing will be made in a namespace that goes, however often it is tried.
        outcome.or_else(|failure| if namespace_goes(&failure) { Ok(()) } else { Err(failure) })?;
        self.clean_up(&set, &pods, &revisions).await?;
        Ok([again, unseen.again()].into_iter().flatten().min())
    }

    /// The claims that the pods have or would have.
    fn claims_of(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> HashMap<String, Arc<PersistentVolumeClaim>> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let ordinals: HashSet<i32> = ordinals(set).chain(pods.iter().filter_map(|pod| ordinal(set, pod))).collect();
        let names = ordinals.into_iter().flat_map(|ordinal| claims_at(set, ordinal));
        let known = names.filter_map(|claim| self.claims.get(namespace, claim.metadata.name.as_deref()?));
        known.map(|claim| (claim.metadata.name.clone().unwrap_or_default(), claim)).collect()
    }

    async fn revisions(&self, set: &StatefulSet, known: &[Arc<ControllerRevision>]) -> Result<Revisions, Failure> {
        let template = set.spec.as_ref().map(|spec| &spec.template);
        let patch = history::patch_of(&template)?;
        let status = set.status.as_ref();
        let collisions = status.and_then(|status| status.collision_count).unwrap_or(0);
        let (present, mut others) = history::look_up(known, &patch);
        let (update, collisions) = match present {
            Present::Known { revision, number, twins } => {
                others.extend(twins);
                (history::renumber(&self.client, revision, number).await?, collisions)
            }
            Present::New { number } => {
                let labels = template.and_then(|template| template.metadata.as_ref()?.labels.clone());
                let labels = labels.unwrap_or_default();
                let new = history::New { owner: set, labels, hash_label: HASH_LABEL, patch, number, collisions };
                let (update, collisions) = new.create(&self.client).await?;
                (Arc::new(update), collisions)
            }
        };
        let named = status.and_then(|status| status.current_revision.as_ref());
        let current = others.iter().find(|one| one.metadata.name.as_ref() == named).cloned();
        Ok(Revisions { current: current.unwrap_or_else(|| update.clone()), update, others, collisions })
    }

    /// Takes the steps: one after the other, or all at once where the set is parallel.
    async fn take(&self, set: &StatefulSet, steps: Vec<Step>) -> Result<(), Failure> {
        for some in steps.chunks(PARALLEL_MAX) {
            futures::future::try_join_all(some.iter().map(|step| self.step(set, step))).await?;
        }
        Ok(())
    }

    async fn step(&self, set: &StatefulSet, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Create(pod, ordinal) => {
                let outcome = self.create(set, pod, *ordinal).await;
                self.say_of_pod(set, "Create", pod, outcome)
            }
            Step::Delete(pod) => {
                let outcome = self.delete(set, pod).await;
                self.say_of_pod(set, "Delete", pod, outcome)
            }
            Step::Claims(pod, ordinal) => {
                self.create_claims(set, pod, *ordinal).await?;
                self.own_claims(set, pod, *ordinal).await
            }
            Step::PutRight(pod, ordinal) => {
                self.create_claims(set, pod, *ordinal).await?;
                self.own_claims(set, pod, *ordinal).await?;
                let mut right = Pod::clone(pod);
                put_right(set, &mut right, *ordinal);
                if right == **pod {
                    return Ok(());
                }
                let outcome = self.client.update(&right).await.map(drop);
                self.say_of_pod(set, "Update", pod, outcome)
            }
        }
    }

    fn say_of_pod(
        &self,
        set: &StatefulSet,
        verb: &str,
        pod: &Pod,
        outcome: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let what = format!("{verb} Pod {} in StatefulSet {}", name(&pod.metadata.name), name(&set.metadata.name));
        let involved = Involved::new(set);
        match &outcome {
            Ok(()) => self.recorder.normal(involved, &format!("Successful{verb}"), format!("{what} successful")),
            // It is there already: the cache will show it. Or its namespace goes, and nobody has to be told.
            Err(failure) if verb == "Create" && (failure.is_already_exists() || namespace_goes(failure)) => {}
            Err(failure) => {
                self.recorder.warning(involved, &format!("Failed{verb}"), format!("{what} failed error: {failure}"));
            }
        }
        outcome
    }

    async fn create(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), Failure> {
        self.create_claims(set, pod, ordinal).await?;
        let created = self.client.create(pod).await?;
        self.recent.created(uid(&set.metadata), uid(&created.metadata));
        self.own_claims(set, &created, ordinal).await
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Failure> {
        let key = Key::of(pod);
        let (set_uid, pod_uid) = (uid(&set.metadata), uid(&pod.metadata));
        let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        self.recent.deleted(set_uid, pod_uid);
        match self.client.delete::<Pod>(&key.namespace, &key.name, options).await {
            Err(failure) if !failure.is_not_found() => {
                self.recent.kept(set_uid, pod_uid);
                Err(failure)
            }
            _ => Ok(()),
        }
    }

    /// Makes the claims of a pod that are not there.
    async fn create_claims(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), Failure> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for claim in claims_at(set, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            match self.claims.get(namespace, &name) {
                Some(known) if known.metadata.deletion_timestamp.is_some() => {
                    return Err(Failure::internal(format!("pvc {name} is being deleted")));
                }
                Some(_) => continue,
                None => {}
            }
            let of = |meta: &Option<String>| meta.clone().unwrap_or_default();
            let (pod, set_name) = (of(&pod.metadata.name), of(&set.metadata.name));
            match self.client.create(&claim).await {
                Ok(_) => {
                    let message = format!("Create Claim {name} Pod {pod} in StatefulSet {set_name} success");
                    self.recorder.normal(Involved::new(set), "SuccessfulCreate", message);
                }
                Err(failure) if failure.is_already_exists() => {}
                Err(failure) => {
                    let message =
                        format!("Create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {failure}");
                    self.recorder.warning(Involved::new(set), "FailedCreate", message);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Gives the claims of a pod the owners that the retention policy wants.
    async fn own_claims(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), Failure> {
        let condemned = !ordinals(set).contains(&ordinal);
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for claim in claims_at(set, ordinal) {
            let name = claim.metadata.name.unwrap_or_default();
            let Some(claim) = self.claims.get(namespace, &name) else { continue };
            if conflicts(&claim, set, pod) {
                let why = "has a conflicting OwnerReference that acts as a manging controller";
                let message =
                    format!("PersistentVolumeClaim {name} {why}, the retention policy is ignored for this claim");
                self.recorder.warning(Involved::new(set), "ConflictingController", message);
            }
            if let Owners::Become(owners) = owners(&claim, set, pod, condemned) {
                let mut owned = PersistentVolumeClaim::clone(&claim);
                owned.metadata.owner_references = Some(owners);
                self.client.update(&owned).await?;
            }
        }
        Ok(())
    }

    /// Deletes the oldest revisions that nothing is of.
    async fn clean_up(&self, set: &StatefulSet, pods: &[Arc<Pod>], revisions: &Revisions) -> Result<(), Failure> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let mut live: HashSet<&str> = pods.iter().filter_map(|pod| revision(pod)).collect();
        live.extend(revisions.current.metadata.name.as_deref());
        let dead: Vec<Arc<ControllerRevision>> = revisions
            .others
            .iter()
            .filter(|one| one.metadata.name.as_deref().is_none_or(|name| !live.contains(name)))
            .cloned()
            .collect();
        for old in history::surplus(&dead, usize::try_from(limit).unwrap_or(usize::MAX), &live) {
            history::delete(&self.client, &old).await?;
        }
        Ok(())
    }
}
