//! PodDisruptionBudgets: how many pods may be evicted now.
//!
//! Watches budgets, Pods and the controllers that say how many pods there should be. Each reconcile counts and writes
//! `status`, by which the API server decides on evictions. A pod that was to be disrupted and was not loses the condition
//! `DisruptionTarget` after two minutes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Call, LabelSelector, Verb};
use client::{Client, Failure, Informer, Involved, Key, Queue, Recorder, Scope};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::Served;
use crate::shared::owned::{controller_of, gone_is_fine};
use crate::shared::served::{self, Resources};
use crate::shared::{pods, select};

mod budget;

use budget::{Outcome, Wanted};

const WORKERS: usize = 2;
/// A pod that was to be disrupted and is not deleted after this long stays.
const STALE_AFTER: Duration = Duration::from_secs(120);

struct Budgets {
    client: Client,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    deployments: Arc<Informer<Deployment>>,
    replica_sets: Arc<Informer<ReplicaSet>>,
    stateful_sets: Arc<Informer<StatefulSet>>,
    replication_controllers: Arc<Informer<ReplicationController>>,
    resources: Resources,
    recorder: Recorder,
}

/// A controller and how many pods it wants.
struct Scale {
    uid: String,
    replicas: i32,
}

pub async fn run(client: Client, built_in: Vec<Served>, shutdown: Shutdown) -> Result<(), Failure> {
    let resources = served::follow(&client, built_in, &shutdown);
    let controller = Arc::new(Budgets {
        budgets: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        deployments: client.informer(Scope::all()),
        replica_sets: client.informer(Scope::all()),
        stateful_sets: client.informer(Scope::all()),
        replication_controllers: client.informer(Scope::all()),
        resources,
        recorder: Recorder::new(client.clone(), "controllermanager", None),
        client,
    });
    controller.synced().await;
    let (queue, stale) = (Queue::new(), Queue::new());
    let reconciler = controller.clone();
    client::run_workers("disruption", queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let reconciler = controller.clone();
    client::run_workers("disruption-stale", stale.clone(), 1, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.stays(&key).await }
    });
    let mut budgets = controller.budgets.subscribe();
    let mut changes = controller.pods.subscribe();
    let (mut deployments, mut replica_sets) = (controller.deployments.subscribe(), controller.replica_sets.subscribe());
    let mut stateful_sets = controller.stateful_sets.subscribe();
    let mut replication_controllers = controller.replication_controllers.subscribe();
    loop {
        let resized = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = budgets.next() => {
                queue.add(change.key);
                continue;
            }
            change = changes.next() => {
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake(&queue, &change.key.namespace, Some(pod));
                }
                if change.new.is_some_and(|pod| stale_in(&pod, Timestamp::now()).is_some()) {
                    stale.add(change.key);
                }
                continue;
            }
            change = deployments.next() => {
                let size = |one: Option<Arc<Deployment>>| one.and_then(|one| one.spec.as_ref()?.replicas);
                (size(change.old) != size(change.new)).then_some(change.key)
            }
            change = replica_sets.next() => {
                let size = |one: Option<Arc<ReplicaSet>>| one.and_then(|one| one.spec.as_ref()?.replicas);
                (size(change.old) != size(change.new)).then_some(change.key)
            }
            change = stateful_sets.next() => {
                let size = |one: Option<Arc<StatefulSet>>| one.and_then(|one| one.spec.as_ref()?.replicas);
                (size(change.old) != size(change.new)).then_some(change.key)
            }
            change = replication_controllers.next() => {
                let size = |one: Option<Arc<ReplicationController>>| one.and_then(|one| one.spec.as_ref()?.replicas);
                (size(change.old) != size(change.new)).then_some(change.key)
            }
        };
        if let Some(key) = resized {
            controller.wake(&queue, &key.namespace, None);
        }
    }
}

/// How long from `now` until a pod that was to be disrupted counts as staying; `None` if it was not to be.
fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let condition = pods::condition(pod, "DisruptionTarget").filter(|one| one.status == "True")?;
    // The kubelet takes the time that it takes.
    let by_kubelet = condition.reason.as_deref() == Some("TerminationByKubelet");
    if pods::is_deleted(pod) || pods::is_finished(pod) || by_kubelet {
        return None;
    }
    let elapsed = now.duration_since(condition.last_transition_time.as_ref()?.0);
    Some(STALE_AFTER.saturating_sub(Duration::try_from(elapsed).unwrap_or_default()))
}

/// A budget without a selector selects nothing, one with an empty selector everything.
fn selector(budget: &PodDisruptionBudget) -> LabelSelector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.map_or_else(LabelSelector::nothing, select::compiled)
}

impl Budgets {
    async fn synced(&self) {
        self.budgets.synced().await;
        self.pods.synced().await;
        self.deployments.synced().await;
        self.replica_sets.synced().await;
        self.stateful_sets.synced().await;
        self.replication_controllers.synced().await;
    }

    /// The budgets of a namespace, or those of them that select a pod.
    fn wake(&self, queue: &Queue<Key>, namespace: &str, pod: Option<&Pod>) {
        for budget in self.budgets.list_in(namespace) {
            if pod.is_none_or(|pod| selector(&budget).matches_labels(pod.metadata.labels.as_ref())) {
                queue.add(Key::of(&*budget));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(budget) = self.budgets.get_key(&key) else { return Ok(None) };
        let now = Timestamp::now();
        let selector = selector(&budget);
        let selects = |meta: &client::Meta| selector.matches_with(|key| meta.label(key));
        let pods = self.pods.list_where(Some(&key.namespace), selects);
        let involved = || Involved::new(&*budget);
        if pods.is_empty() {
            self.recorder.normal(involved(), "NoPods", "No matching pods found");
        }
        let wanted = match self.wanted(&budget, &pods).await {
            Ok(wanted) => wanted,
            Err(failure) => {
                let message = format!("Failed to calculate the number of expected pods: {failure}");
                self.recorder.warning(involved(), "CalculateExpectedPodCountFailed", message);
                self.write(&budget, budget::failed(&budget, &failure.to_string(), now)).await?;
                return Err(failure);
            }
        };
        let Outcome { status, not_deleted, again } = budget::outcome(&budget, &pods, wanted, now);
        for pod in not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.warning(Involved::new(&*pod), "NotDeleted", message);
        }
        self.write(&budget, status).await?;
        Ok(again)
    }

    async fn write(&self, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), Failure> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        gone_is_fine(self.client.update_status(&changed).await)
    }

    async fn wanted(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<Wanted, Failure> {
        let scale = if budget::needs_scale(budget) { self.scale(budget, pods).await? } else { 0 };
        budget::wanted(budget, pods.len(), scale).map_err(Failure::internal)
    }

    /// How many pods their controllers want, each controller counted once.
    async fn scale(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<i32, Failure> {
        let (mut scales, mut unmanaged) = (HashMap::new(), false);
        let mut known = HashSet::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if !known.insert(&owner.uid) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let Some(scale) = self.scale_of(namespace, owner).await? else {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                return Err(Failure::internal(format!("found no controllers for pod {name:?}")));
            };
            scales.insert(scale.uid, scale.replicas);
        }
        if unmanaged {
            let message = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the \
                 status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account \
                 for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                selector(budget)
            );
            self.recorder.warning(Involved::new(budget), "UnmanagedPods", message);
        }
        Ok(scales.values().fold(0_i32, |sum, replicas| sum.saturating_add(*replicas)))
    }

    /// The controller behind a pod's: of a Deployment's ReplicaSet, the Deployment.
    async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<Scale>, Failure> {
        let scale = |uid: Option<&String>, replicas: Option<i32>| {
            let uid = uid.filter(|uid| **uid == owner.uid)?.clone();
            Some(Scale { uid, replicas: replicas.unwrap_or(1) })
        };
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        match (group, owner.kind.as_str()) {
            ("apps" | "extensions", "ReplicaSet") => {
                let Some(set) = self.replica_sets.get(namespace, &owner.name) else { return Ok(None) };
                let above = controller_of(&set.metadata).filter(|above| above.kind == "Deployment");
                let Some(above) = above else {
                    return Ok(scale(set.metadata.uid.as_ref(), set.spec.as_ref().and_then(|spec| spec.replicas)));
                };
                let deployment = self.deployments.get(namespace, &above.name);
                Ok(deployment.filter(|one| one.metadata.uid.as_ref() == Some(&above.uid)).map(|one| Scale {
                    uid: above.uid.clone(),
                    replicas: one.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
                }))
            }
            ("apps", "StatefulSet") => Ok(self
                .stateful_sets
                .get(namespace, &owner.name)
                .and_then(|set| scale(set.metadata.uid.as_ref(), set.spec.as_ref().and_then(|spec| spec.replicas)))),
            ("", "ReplicationController") => Ok(self
                .replication_controllers
                .get(namespace, &owner.name)
                .and_then(|set| scale(set.metadata.uid.as_ref(), set.spec.as_ref().and_then(|spec| spec.replicas)))),
            _ => self.scale_subresource(namespace, group, owner).await,
        }
    }

    /// Anything else says it in its subresource `scale`.
    async fn scale_subresource(
        &self,
        namespace: &str,
        group: &str,
        owner: &OwnerReference,
    ) -> Result<Option<Scale>, Failure> {
        let served = self.resources.borrow().clone().unwrap_or_default();
        let Some(one) = served.iter().find(|one| one.resource.group == group && one.kind == owner.kind) else {
            let message = format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version);
            return Err(Failure::internal(message));
        };
        let mut call = Call::new(Verb::Get, one.resource.clone());
        (call.namespace, call.name) = (Some(namespace.to_owned()), Some(owner.name.clone()));
        call.subresource = Some("scale".into());
        let scale = match self.client.raw(call).await {
            Ok(scale) => scale,
            Err(failure) if failure.is_not_found() => {
                let resource = format!("{}.{group}", one.resource.plural);
                return Err(Failure::internal(format!("{resource} does not implement the scale subresource")));
            }
            Err(failure) => return Err(failure),
        };
        let replicas = scale["spec"]["replicas"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
        let ours = scale["metadata"]["uid"] == owner.uid.as_str();
        Ok(ours.then(|| Scale { uid: owner.uid.clone(), replicas }))
    }

    /// Takes the condition from a pod that was to be disrupted and stays.
    async fn stays(&self, key: &Key) -> Result<Option<Duration>, Failure> {
        let Some(pod) = self.pods.get_key(key) else { return Ok(None) };
        let now = Timestamp::now();
        match stale_in(&pod, now) {
            None => return Ok(None),
            Some(wait) if !wait.is_zero() => return Ok(Some(wait)),
            Some(_) => {}
        }
        let mut changed = Pod::clone(&pod);
        let conditions = changed.status.as_mut().and_then(|status| status.conditions.as_mut());
        for condition in conditions.into_iter().flatten().filter(|one| one.type_ == "DisruptionTarget") {
            condition.status = "False".to_owned();
            (condition.reason, condition.message) = (None, None);
            condition.last_transition_time = Some(Time(now));
        }
        gone_is_fine(self.client.update_status(&changed).await)?;
        Ok(None)
    }
}
