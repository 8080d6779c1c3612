//! DaemonSets: a pod on every node that suits.
//!
//! Watches DaemonSets, Pods and Nodes, and reads ControllerRevisions: what others do to these wakes nobody. Each reconcile
//! makes sure of the present revision, asks [`plan`] which pods to make and delete, and writes the status. Pods ask for
//! their node by name; it is the scheduler that binds them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Involved, Key, Meta, Patch, Queue, Recorder, Scope};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use task::Shutdown;

use crate::shared::claim::Claim;
use crate::shared::history::{self, Present};
use crate::shared::owned::{gone_is_fine, uid, wake_owners};
use crate::shared::pod_control::{BURST_PODS_MAX, PodControl};
use crate::shared::written::Written;
use crate::shared::{pods, select};

mod nodes;
mod plan;

use nodes::{HASH_LABEL, suits};
use plan::{FailedPods, View, by_node};

const WORKERS: usize = 2;

struct DaemonSets {
    client: Client,
    sets: Arc<Informer<DaemonSet>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    revisions: Arc<Informer<ControllerRevision>>,
    recorder: Recorder,
    control: PodControl,
    written: Written,
    failed: Mutex<FailedPods>,
}

/// The revisions of a DaemonSet.
struct Revisions {
    present: Arc<ControllerRevision>,
    others: Vec<Arc<ControllerRevision>>,
    collisions: i32,
}

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let recorder = Recorder::new(client.clone(), "daemonset-controller", None);
    let controller = Arc::new(DaemonSets {
        sets: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        nodes: client.informer(Scope::all()),
        revisions: client.informer(Scope::all()),
        control: PodControl::new(client.clone(), recorder.clone()),
        recorder,
        written: Written::default(),
        failed: Mutex::default(),
        client,
    });
    controller.sets.synced().await;
    controller.pods.synced().await;
    controller.nodes.synced().await;
    controller.revisions.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("daemonset", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut sets = controller.sets.subscribe();
    let mut changes = controller.pods.subscribe();
    let mut nodes = controller.nodes.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = sets.next() => queue.add(change.key),
            change = changes.next() => {
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake_owners(&queue, pod);
                }
            }
            change = nodes.next() => controller.wake_for_node(&queue, change.old.as_deref(), change.new.as_deref()),
        }
    }
}

impl DaemonSets {
    fn wake_owners(&self, queue: &Queue<Key>, pod: &Pod) {
        wake_owners(queue, &self.sets, &pod.metadata, |set| {
            let selector = set.spec.as_ref().map(|spec| select::compiled(&spec.selector));
            selector.is_some_and(|selector| selector.matches_labels(pod.metadata.labels.as_ref()))
        });
    }

    /// A node's status changes often and means nothing here.
    fn wake_for_node(&self, queue: &Queue<Key>, old: Option<&Node>, new: Option<&Node>) {
        if let (Some(old), Some(new)) = (old, new)
            && (&old.spec, &old.metadata.labels) == (&new.spec, &new.metadata.labels)
        {
            return;
        }
        for set in self.sets.list() {
            let what = |node: Option<&Node>| node.map(|node| suits(&set, node));
            if what(old) != what(new) {
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
        if selector.is_empty() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(Involved::new(&*set), "SelectingAll", message);
            return Ok(None);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let claim = Claim { client: &self.client, owner: &*set, selector: &selector, finalizer: None };
        let set_uid = set.metadata.uid.as_deref();
        let ours_or_nobodys = |meta: &Meta| meta.controller().is_none() || meta.controller() == set_uid;
        let owned = claim.all(self.pods.list_where(Some(&key.namespace), ours_or_nobodys), |_| true).await?;
        let known = claim.all(self.revisions.list_where(Some(&key.namespace), ours_or_nobodys), |_| true).await?;
        let revisions = self.revisions(&set, &owned, &known).await?;
        let labels = revisions.present.metadata.labels.as_ref();
        let hash = labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str).unwrap_or_default();

        let shown = owned.iter().map(|pod| (uid(&pod.metadata), pods::is_deleted(pod)));
        let unseen = self.control.recent.settle(uid(&set.metadata), shown);
        let nodes = self.nodes.list();
        let view = View { set: &set, hash, nodes: &nodes, pods: by_node(&owned), now: Timestamp::now() };
        let (mut outcome, mut again) = (Ok(()), unseen.again());
        if unseen.is_empty() {
            let plan = plan::plan(&view, &mut self.failed.lock());
            again = plan.again;
            outcome = self.carry_out(&set, hash, plan).await;
            if outcome.is_ok() {
                outcome = self.clean_up(&set, &owned, &revisions).await;
            }
        }
        let (mut status, later) = plan::status(&view, unseen.is_empty());
        if revisions.collisions != 0 {
            status.collision_count = Some(revisions.collisions);
        }
        if set.status.as_ref() != Some(&status) {
            let changed = DaemonSet { status: Some(status), ..DaemonSet::clone(&set) };
            self.written.wrote(&self.client.update_status(&changed).await?);
        }
        outcome?;
        Ok([again, later].into_iter().flatten().min())
    }

    async fn carry_out(&self, set: &DaemonSet, hash: &str, plan: plan::Plan) -> Result<(), Failure> {
        for (warning, reason, message) in plan.said {
            if warning {
                self.recorder.warning(Involved::new(set), reason, message);
            } else {
                self.recorder.normal(Involved::new(set), reason, message);
            }
        }
        let new = plan.create.iter().take(BURST_PODS_MAX).filter_map(|node| nodes::pod_on(set, node, hash));
        let created = self.control.create_all(set, new.collect()).await;
        let going = plan.delete.iter().take(BURST_PODS_MAX).map(|pod| &**pod);
        let (_, not_deleted) = self.control.delete_all(set, going).await;
        created.failure.or(not_deleted).map_or(Ok(()), Err)
    }

    /// Makes sure that the present template has a revision, and one alone, with the highest number.
    async fn revisions(
        &self,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
        known: &[Arc<ControllerRevision>],
    ) -> Result<Revisions, Failure> {
        let template = set.spec.as_ref().map(|spec| &spec.template);
        let patch = history::patch_of(&template)?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let (present, others) = history::look_up(known, &patch);
        match present {
            Present::Known { revision, number, twins } => {
                if !twins.is_empty() {
                    self.unite(&revision, pods, &twins).await?;
                }
                let present = history::renumber(&self.client, revision, number).await?;
                Ok(Revisions { present, others, collisions })
            }
            Present::New { number } => {
                let labels = template.and_then(|template| template.metadata.as_ref()?.labels.clone());
                let labels = labels.unwrap_or_default();
                let new = history::New { owner: set, labels, hash_label: HASH_LABEL, patch, number, collisions };
                let (present, collisions) = new.create(&self.client).await?;
                Ok(Revisions { present: Arc::new(present), others, collisions })
            }
        }
    }

    /// Of several revisions that hold the same, the pods of all become those of one, and the others go.
    async fn unite(
        &self,
        kept: &ControllerRevision,
        pods: &[Arc<Pod>],
        twins: &[Arc<ControllerRevision>],
    ) -> Result<(), Failure> {
        let hash =
            |labels: Option<&BTreeMap<String, String>>| labels.and_then(|labels| labels.get(HASH_LABEL)).cloned();
        let kept = hash(kept.metadata.labels.as_ref());
        for pod in pods {
            let twin = hash(pod.metadata.labels.as_ref());
            if twin != kept && twins.iter().any(|one| hash(one.metadata.labels.as_ref()) == twin) {
                let key = Key::of(&**pod);
                let patch = Patch::Merge(json!({"metadata": {"labels": {HASH_LABEL: kept}}}));
                gone_is_fine(self.client.patch::<Pod>(&key.namespace, &key.name, patch).await)?;
            }
        }
        for twin in twins {
            history::delete(&self.client, twin).await?;
        }
        Ok(())
    }

    /// Deletes the oldest revisions that no pod is of.
    async fn clean_up(&self, set: &DaemonSet, pods: &[Arc<Pod>], revisions: &Revisions) -> Result<(), Failure> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let hashes: HashSet<&str> =
            pods.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH_LABEL).map(String::as_str)).collect();
        let is_live = |one: &&Arc<ControllerRevision>| {
            let hash = one.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
            hash.is_some_and(|hash| hashes.contains(hash.as_str()))
        };
        let live = revisions.others.iter().filter(is_live).filter_map(|one| one.metadata.name.as_deref()).collect();
        for old in history::surplus(&revisions.others, usize::try_from(limit).unwrap_or(usize::MAX), &live) {
            history::delete(&self.client, &old).await?;
        }
        Ok(())
    }
}
