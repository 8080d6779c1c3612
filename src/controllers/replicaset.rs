//! ReplicaSets and ReplicationControllers: keeps as many pods as are wanted.
//!
//! The two kinds differ in what [`Replicated`] says and in nothing else; each is run by itself. Watches the sets and Pods.
//! Creates and deletes pods, adopts matching pods that nobody controls, releases pods whose labels no longer match, and
//! writes `status`. Pods that nobody needs are deleted in upstream's order, the least useful first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Key, Meta, Queue, Recorder, Scope};
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::shared::claim::Claim;
use crate::shared::owned::{controller_of, gone_is_fine, is_controlled_by, uid, wake_owners};
use crate::shared::pod_control::{BURST_PODS_MAX, PodControl, pod_of};
use crate::shared::pods;

mod replicated;

use replicated::Replicated;

const WORKERS: usize = 4;

struct Sets<S: Replicated> {
    client: Client,
    sets: Arc<Informer<S>>,
    pods: Arc<Informer<Pod>>,
    control: PodControl,
}

pub async fn run<S: Replicated>(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(Sets::<S> {
        sets: client.informer(Scope::all()),
        pods: client.informer(Scope::all()),
        control: PodControl::new(client.clone(), Recorder::new(client.clone(), S::COMPONENT, None)),
        client,
    });
    controller.sets.synced().await;
    controller.pods.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers(S::NAME, queue.clone(), WORKERS, shutdown.clone(), move |key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(key).await }
    });
    let mut sets = controller.sets.subscribe();
    let mut changes = controller.pods.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = sets.next() => queue.add(change.key),
            change = changes.next() => {
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    controller.wake_owners(&queue, pod);
                }
            }
        }
    }
}

impl<S: Replicated> Sets<S> {
    fn wake_owners(&self, queue: &Queue<Key>, pod: &Pod) {
        let labels = pod.metadata.labels.as_ref();
        wake_owners(queue, &self.sets, &pod.metadata, |set| set.selector().matches_labels(labels));
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Failure> {
        let Some(set) = self.sets.get_key(&key) else { return Ok(None) };
        let owned = self.claim(&set).await?;
        let seen = owned.iter().map(|pod| (uid(&pod.metadata), pods::is_deleted(pod)));
        let unseen = self.control.recent.settle(uid(set.metadata()), seen);
        let active: Vec<Arc<Pod>> = owned
            .iter()
            .filter(|pod| pods::is_active(pod) && !unseen.deleted.iter().any(|gone| gone == uid(&pod.metadata)))
            .cloned()
            .collect();
        let mut outcome = Ok(());
        if set.metadata().deletion_timestamp.is_none() {
            outcome = self.scale(&set, &active, unseen.created).await;
        }
        let again = self.write_status(&set, &active, outcome.as_ref().err()).await?;
        outcome?;
        Ok([again, unseen.again()].into_iter().flatten().min())
    }

    /// The pods that this set controls, after adopting and releasing.
    async fn claim(&self, set: &S) -> Result<Vec<Arc<Pod>>, Failure> {
        let namespace = set.metadata().namespace.as_deref();
        let set_uid = set.metadata().uid.as_deref();
        let ours_or_nobodys = |meta: &Meta| meta.controller().is_none() || meta.controller() == set_uid;
        let candidates = self.pods.list_where(namespace, ours_or_nobodys);
        let claim = Claim { client: &self.client, owner: set, selector: &set.selector(), finalizer: None };
        claim.all(candidates, pods::is_active).await
    }

    async fn scale(&self, set: &S, active: &[Arc<Pod>], unseen: usize) -> Result<(), Failure> {
        let wanted = usize::try_from(set.replicas()).unwrap_or(0);
        let have = active.len() + unseen;
        if have < wanted {
            let Some(template) = set.template() else { return Ok(()) };
            let pods = vec![pod_of(set, template); (wanted - have).min(BURST_PODS_MAX)];
            self.control.create_all(set, pods).await.failure.map_or(Ok(()), Err)
        } else if active.len() > wanted {
            let namespace = set.metadata().namespace.as_deref().unwrap_or_default();
            let crowd = self.crowd(namespace, set);
            let mut victims = victims(active.to_vec(), active.len() - wanted, &crowd);
            victims.truncate(BURST_PODS_MAX);
            let (_, failure) = self.control.delete_all(set, victims.iter().map(|pod| &**pod)).await;
            failure.map_or(Ok(()), Err)
        } else {
            Ok(())
        }
    }

    /// How many active pods of the same Deployment each node runs.
    fn crowd(&self, namespace: &str, set: &S) -> HashMap<String, usize> {
        let Some(owner) = controller_of(set.metadata()) else { return HashMap::new() };
        let sets = self.sets.list_in(namespace);
        let related: Vec<&str> = sets
            .iter()
            .filter(|set| is_controlled_by(set.metadata(), Some(&owner.uid)))
            .map(|set| uid(set.metadata()))
            .collect();
        let mut crowd = HashMap::new();
        let ours = |meta: &Meta| meta.controller().is_some_and(|owner| related.contains(&owner));
        for pod in self.pods.list_where(Some(namespace), ours) {
            if let Some(node) = pods::node_name(&pod).filter(|_| pods::is_active(&pod)) {
                *crowd.entry(node.to_owned()).or_default() += 1;
            }
        }
        crowd
    }

    /// Writes the status if it changed; yields when it will change by time alone.
    async fn write_status(
        &self,
        set: &S,
        active: &[Arc<Pod>],
        failure: Option<&Failure>,
    ) -> Result<Option<Duration>, Failure> {
        let now = Timestamp::now();
        let (status, again) = status(set, active, failure, now);
        if let Some(changed) = set.with_status(status) {
            gone_is_fine(self.client.update_status(&changed).await)?;
        }
        Ok(again)
    }
}

/// The `count` pods whose loss matters least, in upstream's order: not assigned before assigned, Pending before Unknown
/// before Running, not ready before ready, lower deletion cost, more of its kind on the node, ready for a shorter time,
/// more restarts, younger.
fn victims(mut active: Vec<Arc<Pod>>, count: usize, crowd: &HashMap<String, usize>) -> Vec<Arc<Pod>> {
    active.sort_by_cached_key(|pod| {
        let phase = match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get("controller.kubernetes.io/pod-deletion-cost"))
            .and_then(|cost| cost.parse::<i32>().ok())
            .unwrap_or(0);
        let rank = pods::node_name(pod).and_then(|node| crowd.get(node)).copied().unwrap_or(0);
        (
            pods::node_name(pod).is_some(),
            phase,
            pods::is_ready(pod),
            cost,
            Reverse(rank),
            Reverse(pods::ready_since(pod)),
            Reverse(pods::restarts(pod)),
            Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        )
    });
    active.truncate(count);
    active
}

/// The status that goes with these pods, and when a pod will become available by waiting.
fn status<S: Replicated>(
    set: &S,
    active: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let min_ready_s = i64::from(set.min_ready_s());
    let template_labels = set.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let count =
        |test: &dyn Fn(&Pod) -> bool| i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX);
    let labelled = |pod: &Pod| {
        template_labels
            .into_iter()
            .flatten()
            .all(|(key, value)| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value))
    };
    let mut again = None;
    let mut available = 0;
    for pod in active.iter().filter(|pod| pods::is_ready(pod)) {
        let ready_s = pods::ready_since(pod).map_or(0, |since| now.as_second() - since.as_second());
        if min_ready_s == 0 || ready_s >= min_ready_s {
            available += 1;
        } else {
            let wait = Duration::from_secs(u64::try_from(min_ready_s - ready_s).unwrap_or(0));
            again = Some(again.map_or(wait, |shortest: Duration| shortest.min(wait)));
        }
    }
    let known = set.status();
    let mut conditions = known.conditions.unwrap_or_default();
    let failing = conditions.iter().any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        Some(failure) if !failing => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some("FailedCreate".into()),
            message: Some(failure.to_string()),
            last_transition_time: Some(Time(now)),
        }),
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(_) => {}
    }
    let non_zero = |number: i32| (number != 0).then_some(number);
    let status = ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: non_zero(count(&labelled)),
        ready_replicas: non_zero(count(&pods::is_ready)),
        available_replicas: non_zero(available),
        observed_generation: set.metadata().generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
        terminating_replicas: known.terminating_replicas,
    };
    (status, again)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, value: serde_json::Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "uid": name}});
        merge(&mut pod, value);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn merge(base: &mut serde_json::Value, over: serde_json::Value) {
        match (base, over) {
            (serde_json::Value::Object(base), serde_json::Value::Object(over)) => {
                for (key, value) in over {
                    merge(base.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (base, over) => *base = over,
        }
    }

    fn ready(node: &str, since: &str) -> serde_json::Value {
        json!({"spec": {"nodeName": node, "containers": []},
               "status": {"phase": "Running",
                          "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}})
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let crowd = HashMap::from([("busy".to_owned(), 2), ("calm".to_owned(), 1)]);
        let pods = vec![
            pod("old", ready("calm", "2026-01-01T00:00:00Z")),
            pod("young", ready("calm", "2026-01-02T00:00:00Z")),
            pod("crowded", ready("busy", "2026-01-01T00:00:00Z")),
            pod("unready", json!({"spec": {"nodeName": "calm", "containers": []}, "status": {"phase": "Running"}})),
            pod("unassigned", json!({})),
            pod("dear", {
                let mut value = ready("calm", "2026-01-03T00:00:00Z");
                value["metadata"] = json!({"annotations": {"controller.kubernetes.io/pod-deletion-cost": "10"}});
                value
            }),
        ];
        let names: Vec<String> =
            victims(pods, 6, &crowd).iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["unassigned", "unready", "crowded", "young", "old", "dear"]);
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 3},
            "spec": {"minReadySeconds": 10, "selector": {}, "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .unwrap();
        let pods = [pod("a", ready("n", "2026-01-01T00:00:00Z")), pod("b", ready("n", "2026-01-01T00:00:06Z"))];
        let now = "2026-01-01T00:00:11Z".parse().unwrap();
        let (status, again) = status(&set, &pods, None, now);
        assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, Some(2), Some(1)));
        assert_eq!((status.fully_labeled_replicas, status.observed_generation), (None, Some(3)));
        assert_eq!(again, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_failure_is_a_condition_until_it_is_over() {
        let set: ReplicaSet = serde_json::from_value(json!({"spec": {"selector": {}}})).unwrap();
        let failure = Failure::forbidden("", "pods", "", "exceeded quota");
        let (failing, _) = status(&set, &[], Some(&failure), Timestamp::UNIX_EPOCH);
        assert_eq!(failing.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedCreate"));
        let set = ReplicaSet { status: Some(failing), ..set };
        assert_eq!(status(&set, &[], None, Timestamp::UNIX_EPOCH).0.conditions, None);
    }
}
