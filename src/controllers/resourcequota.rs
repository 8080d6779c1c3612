//! ResourceQuotas: what a namespace uses is counted when a quota is new or changed, when something that it counts went
//! away or became smaller, and now and then.
//!
//! What comes is charged by admission; counting gives back what went. Only resources that some quota names are followed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::quota::{Amounts, Evaluator, Scope, amounts};
use api::{Call, Encoded, Resource, Verb};
use client::{Client, Failure, Follow, Informer, Key, Queue, Step};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use task::Shutdown;

use crate::Served;
use crate::shared::owned::gone_is_fine;
use crate::shared::served::{self, Resources};

const WORKERS: usize = 2;
/// Every quota is counted anew after this long, whatever happened (upstream: `--resource-quota-sync-period`).
const RESYNC: Duration = Duration::from_secs(5 * 60);
/// Objects that are counted at a time.
const PAGE_OBJECTS: u64 = 500;

struct Quotas {
    client: Client,
    quotas: Arc<Informer<ResourceQuota>>,
    resources: Resources,
    queue: Queue<Key>,
    /// Resources that are followed for what goes away.
    followed: Mutex<HashSet<Resource>>,
    shutdown: Shutdown,
}

/// `built_in` are the resources that can be listed.
pub async fn run(client: Client, built_in: Vec<Served>, shutdown: Shutdown) -> Result<(), Failure> {
    let resources = served::follow(&client, built_in, &shutdown);
    let controller = Arc::new(Quotas {
        quotas: client.informer(client::Scope::all()),
        client,
        resources,
        queue: Queue::new(),
        followed: Mutex::default(),
        shutdown: shutdown.clone(),
    });
    controller.quotas.synced().await;
    // What a custom resource uses is not known before it is known that it is there.
    if controller.resources.clone().wait_for(Option::is_some).await.is_err() {
        return Ok(());
    }
    let reconciler = controller.clone();
    client::run_workers("resourcequota", controller.queue.clone(), WORKERS, shutdown.clone(), move |key: Key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&key).await }
    });
    let mut quotas = controller.quotas.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = quotas.next() => {
                // What is used is charged by others; it is counted when the limits are not yet those that are in force.
                if change.new.as_deref().is_some_and(|quota| change.old.is_none() || is_new(quota)) {
                    controller.queue.add(change.key);
                }
            }
        }
    }
}

/// The limits that are asked for are not those that are in force.
fn is_new(quota: &ResourceQuota) -> bool {
    let amounts = |map: Option<&BTreeMap<String, Quantity>>| -> Amounts {
        map.into_iter().flatten().map(|(name, amount)| (name.clone(), api::Quantity::of(amount))).collect()
    };
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let status = quota.status.as_ref();
    let in_force = status.and_then(|status| status.hard.as_ref());
    status.is_none_or(|status| status.used.is_none()) || amounts(hard) != amounts(in_force)
}

impl Quotas {
    async fn reconcile(self: &Arc<Self>, key: &Key) -> Result<Option<Duration>, Failure> {
        let Some(quota) = self.quotas.get_key(key) else { return Ok(None) };
        let spec = serde_json::to_value(&quota.spec).map_err(Failure::internal)?;
        let hard = amounts(&spec["hard"]);
        let counted = self.counted(&hard);
        // First follow, then count: what goes in between is seen.
        for (resource, _) in &counted {
            self.follow(resource);
        }
        let usage = self.count(&key.namespace, &hard, &Scope::all(&spec), &counted).await?;
        let status = serde_json::to_value(&quota.status).map_err(Failure::internal)?;
        let used = used(&hard, &amounts(&status["used"]), &usage);
        if is_new(&quota) || used != amounts(&status["used"]) {
            let of =
                |amounts: &Amounts| amounts.iter().map(|(name, amount)| (name.clone(), (*amount).into())).collect();
            let mut counted = ResourceQuota::clone(&quota);
            counted.status = Some(ResourceQuotaStatus { hard: Some(of(&hard)), used: Some(of(&used)) });
            gone_is_fine(self.client.update_status(&counted).await)?;
        }
        Ok(Some(RESYNC))
    }

    /// The resources that the names in a quota are about, and how they are counted.
    fn counted(&self, hard: &Amounts) -> Vec<(Resource, Evaluator)> {
        let resources = self.resources.borrow().clone().unwrap_or_default();
        let namespaced = resources.iter().filter(|served| served.namespaced);
        // Of several versions of a resource one is enough.
        let mut known = HashMap::new();
        for served in namespaced {
            let resource = &served.resource;
            if let Some(evaluator) = Evaluator::of_resource(resource)
                && hard.keys().any(|name| evaluator.covers(name))
            {
                known
                    .entry((resource.group.clone(), resource.plural.clone()))
                    .or_insert_with(|| (resource.clone(), evaluator));
            }
        }
        known.into_values().collect()
    }

    /// What all objects in the scopes use, by the names that are in `hard`.
    async fn count(
        &self,
        namespace: &str,
        hard: &Amounts,
        scopes: &[Scope],
        counted: &[(Resource, Evaluator)],
    ) -> Result<Amounts, Failure> {
        let mut usage = Amounts::new();
        for (resource, evaluator) in counted {
            let names = hard.keys().filter(|name| evaluator.covers(name));
            usage.extend(names.map(|name| (name.clone(), api::Quantity::ZERO)));
            let mut call = Call { namespace: Some(namespace.to_owned()), ..Call::new(Verb::List, resource.clone()) };
            call.options.limit = Some(PAGE_OBJECTS);
            loop {
                let page = self.client.backend().list(call.clone()).await?;
                let now = Timestamp::now();
                page.objects.iter().for_each(|object| add(&mut usage, evaluator, scopes, object, now));
                match page.continue_token {
                    Some(token) => call.options.continue_token = Some(token),
                    None => break,
                }
            }
        }
        Ok(usage)
    }

    /// Wakes the quotas of a namespace when something of this resource went away there.
    fn follow(self: &Arc<Self>, resource: &Resource) {
        if !self.followed.lock().insert(resource.clone()) {
            return;
        }
        let (quotas, resource) = (self.clone(), resource.clone());
        let mut follow = Follow::new(self.client.backend().clone(), resource.clone(), client::Scope::all());
        task::spawn("quota replenishment", async move {
            let Some(evaluator) = Evaluator::of_resource(&resource) else { return };
            loop {
                let step = tokio::select! {
                    () = quotas.shutdown.cancelled() => return,
                    step = follow.next() => step,
                };
                match step {
                    // Something may have gone while nobody looked.
                    Step::All(_) => quotas.wake(&evaluator, None),
                    Step::Gone(object) => quotas.wake(&evaluator, namespace_of(&object).as_deref()),
                    Step::Put(object) if may_shrink(&evaluator, &object) => {
                        quotas.wake(&evaluator, namespace_of(&object).as_deref());
                    }
                    Step::Put(_) => {}
                }
            }
        });
    }

    /// Has the quotas counted that count such objects, those of a namespace or all.
    fn wake(&self, evaluator: &Evaluator, namespace: Option<&str>) {
        let quotas = match namespace {
            Some(namespace) => self.quotas.list_in(namespace),
            None => self.quotas.list(),
        };
        for quota in quotas {
            let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
            if hard.is_some_and(|hard| hard.keys().any(|name| evaluator.covers(name))) {
                self.queue.add(Key::of(quota.as_ref()));
            }
        }
    }
}

/// Adds what an object uses, if it is in the scopes.
fn add(usage: &mut Amounts, evaluator: &Evaluator, scopes: &[Scope], object: &Encoded, now: Timestamp) {
    let Ok(object) = object.decode::<Value>() else { return };
    let facts = evaluator.facts(&object, now);
    if !scopes.iter().all(|scope| facts.is_in(scope)) {
        return;
    }
    for (name, amount) in facts.usage {
        if let Some(sum) = usage.get_mut(&name) {
            *sum += amount;
        }
    }
}

/// What is counted, and of what is not counted here what was known before.
fn used(hard: &Amounts, before: &Amounts, usage: &Amounts) -> Amounts {
    let mut used = before.clone();
    used.extend(usage.iter().map(|(name, amount)| (name.clone(), *amount)));
    used.retain(|name, _| hard.contains_key(name));
    used
}

/// Changes of such an object may give something back.
fn may_shrink(evaluator: &Evaluator, object: &Encoded) -> bool {
    #[derive(Deserialize)]
    struct Pod {
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Status {
        phase: String,
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Condition {
        r#type: String,
    }
    match evaluator {
        Evaluator::Pods => object.decode::<Pod>().is_ok_and(|pod| {
            let resized = |condition: &Condition| condition.r#type.starts_with("PodResize");
            matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") || pod.status.conditions.iter().any(resized)
        }),
        Evaluator::Services | Evaluator::PersistentVolumeClaims => true,
        Evaluator::Count(_) => false,
    }
}

fn namespace_of(object: &Encoded) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        namespace: String,
    }
    object.metadata::<Metadata>().ok().map(|metadata| metadata.namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(map: Value) -> Amounts {
        amounts(&map)
    }

    #[test]
    fn what_is_in_the_scopes_is_added_up() {
        let now = Timestamp::UNIX_EPOCH;
        let scopes = Scope::all(&json!({"scopes": ["NotBestEffort"]}));
        let mut usage = parsed(json!({"pods": "0", "requests.cpu": "0"}));
        let pods = Evaluator::of("", "pods").unwrap();
        for requests in [json!({"cpu": "100m"}), json!({"cpu": "1"}), json!({})] {
            let container = json!({"name": "c", "resources": {"requests": requests}});
            let pod = json!({"metadata": {}, "spec": {"containers": [container]}});
            add(&mut usage, &pods, &scopes, &Encoded::whole(pod.to_string()), now);
        }
        assert_eq!(usage, parsed(json!({"pods": "2", "requests.cpu": "1100m"})));
    }

    #[test]
    fn what_is_not_counted_stays_as_it_was_while_it_is_limited() {
        let hard = parsed(json!({"pods": "5", "example.com/unknown": "1"}));
        let before = parsed(json!({"pods": "1", "example.com/unknown": "1", "secrets": "3"}));
        let usage = parsed(json!({"pods": "2"}));
        assert_eq!(used(&hard, &before, &usage), parsed(json!({"pods": "2", "example.com/unknown": "1"})));
    }

    #[test]
    fn a_pod_that_is_through_gives_something_back() {
        let pods = Evaluator::of("", "pods").unwrap();
        let pod = |phase: &str| Encoded::whole(json!({"metadata": {}, "status": {"phase": phase}}).to_string());
        assert!(may_shrink(&pods, &pod("Failed")) && !may_shrink(&pods, &pod("Running")));
        assert!(is_new(&ResourceQuota::default()));
    }
}
