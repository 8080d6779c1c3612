//! ResourceQuota: a namespace uses no more than its quotas allow.
//!
//! What a request uses is charged to the quotas' status before the object is written, with one transaction on the
//! revision that it was decided on. Requests that wait for the same namespace are charged together: one of them decides
//! for all, in their order, and writes each quota once. What is charged and then not written comes back with the
//! controller's count.

mod limited;

use std::collections::HashMap;
use std::sync::Arc;

use api::quota::{Amounts, Ask, Evaluator, Quota, check, to_map};
use api::{Call, Failure, Fields, Reason, Resource, Verb};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::objects::Objects;
use super::{Attributes, Operation, Stage};
use crate::cache::{Cache, Stored};
use crate::config::LimitedResource;
use crate::identity::Identity;
use crate::server::ApiServer;
use limited::{Limits, Uncovered};

const PREFIX: &str = "/registry/resourcequotas/";
/// Times that quotas are charged anew when somebody else changes them in between (upstream: 3 after the first).
const ATTEMPTS: usize = 4;
/// Times that a request asks again when whoever decided for it went away.
const ASKS_MAX: usize = 3;

pub struct ResourceQuota {
    quotas: Objects<Quota>,
    limited: Vec<LimitedResource>,
    queues: Mutex<HashMap<String, Arc<Queue>>>,
}

/// The requests that wait for one namespace.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<Waiter>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiter {
    ask: Ask,
    limits: Limits,
    dry_run: bool,
    answer: oneshot::Sender<Result<(), Refused>>,
}

/// Why a request is not let through.
#[derive(Clone, Debug)]
enum Refused {
    /// The quotas say no.
    Quota(String),
    Failed(Failure),
}

/// A quota as it is in the store.
struct Current {
    stored: Arc<Stored>,
    quota: Quota,
}

impl ResourceQuota {
    pub fn new(cache: &Cache, limited: Vec<LimitedResource>) -> ResourceQuota {
        ResourceQuota { quotas: Objects::new(cache, PREFIX, Quota::read), limited, queues: Mutex::default() }
    }

    async fn admit(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let (Some(object), false) = (object, attributes.namespace.is_empty()) else { return Ok(()) };
        let old = match attributes.operation {
            Operation::Create => None,
            Operation::Update => old,
            Operation::Delete | Operation::Connect => return Ok(()),
        };
        let resource = &attributes.row.resource;
        let quotas = self.quotas.all(Some(attributes.namespace));
        let idle = quotas.is_empty() && self.limited.is_empty();
        let Some(evaluator) = Evaluator::of_resource(resource).filter(|_| !idle) else { return Ok(()) };
        if !evaluator.handles(attributes.subresource, object, old) {
            return Ok(());
        }
        let now = server.now();
        let ask = Ask {
            new: evaluator.facts(object, now),
            old: old.map(|old| evaluator.facts(old, now)),
            is_status: attributes.subresource == Some("status"),
            evaluator,
        };
        let limits = Limits::of(&self.limited, resource, &ask.new);
        if limits.is_empty() && !quotas.iter().any(|quota| ask.concerns(quota)) {
            return Ok(());
        }
        match self.charge(server, attributes.namespace, &ask, &limits, attributes.dry_run).await {
            Ok(()) => Ok(()),
            Err(Refused::Quota(why)) => Err(attributes.refuse(why)),
            Err(Refused::Failed(failure)) => Err(failure),
        }
    }

    /// Waits for its turn, and for the decision.
    async fn charge(
        &self,
        server: &ApiServer,
        namespace: &str,
        ask: &Ask,
        limits: &Limits,
        dry_run: bool,
    ) -> Result<(), Refused> {
        let queue = self.queues.lock().entry(namespace.to_owned()).or_default().clone();
        let mut decided = None;
        for _ in 0..ASKS_MAX {
            let (answer, mut answered) = oneshot::channel();
            queue.waiting.lock().push(Waiter { ask: ask.clone(), limits: limits.clone(), dry_run, answer });
            let turn = queue.turn.lock().await;
            // Whoever had the turn may have decided for us.
            decided = answered.try_recv().ok();
            if decided.is_none() {
                let waiting = std::mem::take(&mut *queue.waiting.lock());
                self.settle(server, namespace, waiting).await;
                decided = answered.try_recv().ok();
            }
            drop(turn);
            if decided.is_some() {
                break;
            }
        }
        let mut queues = self.queues.lock();
        // The map's and ours: nobody else waits.
        if Arc::strong_count(&queue) == 2 {
            queues.remove(namespace);
        }
        decided.unwrap_or_else(|| Err(Refused::Failed(Failure::internal("resource quota evaluation timed out"))))
    }

    /// Decides for all who wait.
    async fn settle(&self, server: &ApiServer, namespace: &str, waiting: Vec<Waiter>) {
        let mut open = waiting;
        let mut last = Failure::internal("resource quota evaluation timed out");
        for attempt in 0..ATTEMPTS {
            let mut current = match self.current(server, namespace, attempt > 0).await {
                Ok(current) => current,
                Err(failure) => return answer(open, &Err(Refused::Failed(failure))),
            };
            let before: Vec<Amounts> = current.iter().map(|one| one.quota.used.clone()).collect();
            open = decide(&mut current, open);
            let mut lost = None;
            for (one, before) in current.iter().zip(&before) {
                if one.quota.used != *before
                    && let Err(failure) = write(server, namespace, one).await
                {
                    lost = Some(failure);
                }
            }
            match lost {
                None => return answer(open, &Ok(())),
                Some(failure) if failure.is_conflict() || failure.is_not_found() => last = failure,
                Some(failure) => return answer(open, &Err(Refused::Failed(failure))),
            }
        }
        answer(open, &Err(Refused::Failed(last)));
    }

    /// The quotas of the namespace as the store has them; `fresh` if they must be no older than the last write.
    async fn current(&self, server: &ApiServer, namespace: &str, fresh: bool) -> Result<Vec<Current>, Failure> {
        let mut all = Vec::new();
        for known in self.quotas.stored(Some(namespace)) {
            let key = String::from_utf8_lossy(&known.key);
            let storage = server.storage();
            let stored =
                if fresh { storage.read(&key, PREFIX.len()).await? } else { storage.peek(&key, PREFIX.len()).await? };
            if let Some(stored) = stored
                && let Some(quota) = self.quotas.of(&stored)
            {
                all.push(Current { stored, quota: Quota::clone(&quota) });
            }
        }
        Ok(all)
    }
}

/// Charges the quotas with all who wait, each after the other; those that are refused, and those that only try, have
/// their answer. The rest is let through when the quotas are written.
fn decide(current: &mut [Current], waiting: Vec<Waiter>) -> Vec<Waiter> {
    let mut open = Vec::new();
    let mut quotas: Vec<Quota> = current.iter().map(|one| one.quota.clone()).collect();
    for waiter in waiting {
        match charged(&quotas, &waiter) {
            Err(refused) => answer(vec![waiter], &Err(refused)),
            Ok(_) if waiter.dry_run => answer(vec![waiter], &Ok(())),
            Ok(charged) if charged.is_empty() => answer(vec![waiter], &Ok(())),
            Ok(charged) => {
                for (index, used) in charged {
                    if let Some(quota) = quotas.get_mut(index) {
                        quota.used = used;
                    }
                }
                open.push(waiter);
            }
        }
    }
    for (one, quota) in current.iter_mut().zip(quotas) {
        one.quota = quota;
    }
    open
}

/// What quotas have used with a request, where that is more than before.
fn charged(quotas: &[Quota], waiter: &Waiter) -> Result<Vec<(usize, Amounts)>, Refused> {
    let charged = check(quotas, &waiter.ask);
    // Upstream looks for what is not covered before it looks for what is too much, and after all else.
    if let Err(why) = &charged
        && !why.starts_with("exceeded quota:")
    {
        return Err(Refused::Quota(why.clone()));
    }
    match waiter.limits.check(quotas, &waiter.ask) {
        Err(Uncovered::Names(why)) => Err(Refused::Quota(why)),
        // Upstream passes this one on as an error that nobody expected.
        Err(Uncovered::Scopes(why)) => Err(Refused::Failed(Failure::new(Reason::Unknown, why))),
        Ok(()) => charged.map_err(Refused::Quota),
    }
}

fn answer(waiters: Vec<Waiter>, said: &Result<(), Refused>) {
    for waiter in waiters {
        // Who went away needs no answer.
        let _ = waiter.answer.send(said.clone());
    }
}

/// Writes what a quota has used, unless somebody else was faster.
async fn write(server: &ApiServer, namespace: &str, current: &Current) -> Result<(), Failure> {
    let mut object = current.stored.decode().map_err(Failure::internal)?;
    if let Some(status) = object.object("status") {
        status.set("used", to_map(&current.quota.used));
    }
    let mut call = Call::new(Verb::Update, Resource::new("", "v1", "resourcequotas"));
    call.namespace = Some(namespace.to_owned());
    call.name = Some(current.quota.name.clone());
    call.subresource = Some("status".into());
    call.options.field_manager = Some("kube-apiserver".to_owned());
    call.body = Some(object);
    server.call(&Identity::master("system:apiserver"), call).await.map(drop)
}

impl Stage for ResourceQuota {
    fn is_active(&self) -> bool {
        !self.quotas.is_empty() || !self.limited.is_empty()
    }

    fn validate<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.admit(server, attributes, object, old))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    /// A quota, and its status as the controller would have it.
    async fn quota(t: &Fixture, name: &str, hard: Value) {
        let body = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
        let mut quota = t.create("", "resourcequotas", body).await.unwrap();
        let used: serde_json::Map<_, _> =
            hard.as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect();
        quota["status"] = json!({"hard": hard, "used": used});
        t.update("", &format!("resourcequotas/{name}/status"), quota).await.unwrap();
        t.catch_up().await;
    }

    fn map(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn creates_at_the_same_time_do_not_exceed_a_quota() {
        let t = Arc::new(Fixture::start().await);
        quota(&t, "q", json!({"configmaps": "5", "count/secrets": "1"})).await;
        let creates: Vec<_> = (0..20)
            .map(|index| {
                let t = t.clone();
                async move { t.create("", "configmaps", map(&format!("m{index}"))).await }
            })
            .collect();
        let done = futures::future::join_all(creates).await;
        let (made, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
        assert_eq!((made.len(), refused.len()), (5, 15));
        for failure in refused.into_iter().map(Result::unwrap_err) {
            assert_eq!(failure.reason, Reason::Forbidden);
            let text = "is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: \
                        configmaps=5";
            assert!(failure.message.ends_with(text), "{failure}");
        }
        let q = t.get("", "resourcequotas/q").await.unwrap();
        assert_eq!(q["status"]["used"], json!({"configmaps": "5", "count/secrets": "0"}));
    }

    #[tokio::test]
    async fn a_dry_run_is_checked_and_not_charged() {
        let t = Fixture::start().await;
        quota(&t, "q", json!({"configmaps": "1"})).await;
        quota(&t, "other", json!({"pods": "0"})).await;
        let mut dry = t.ask(Verb::Create, "", "configmaps", Some(map("a")));
        dry.options.dry_run = true;
        t.call(dry.clone()).await.unwrap();
        assert_eq!(t.get("", "resourcequotas/q").await.unwrap()["status"]["used"]["configmaps"], "0");
        t.create("", "configmaps", map("a")).await.unwrap();
        let mut again = dry;
        again.body = Some(map("b"));
        assert!(t.call(again).await.unwrap_err().message.contains("exceeded quota: q"));
        assert_eq!(t.get("", "resourcequotas/q").await.unwrap()["status"]["used"]["configmaps"], "1");
    }

    #[tokio::test]
    async fn what_is_limited_is_not_used_without_a_quota() {
        let limited = LimitedResource {
            group: String::new(),
            plural: "configmaps".to_owned(),
            contains: vec!["count/configmaps".to_owned()],
            scopes: Vec::new(),
        };
        let t = Fixture::with(|config| config.admission.limited_resources = vec![limited]).await;
        let refused = t.create("", "configmaps", map("a")).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Forbidden);
        assert!(refused.message.ends_with("insufficient quota to consume: count/configmaps"), "{refused}");
        quota(&t, "q", json!({"count/configmaps": "1"})).await;
        t.create("", "configmaps", map("a")).await.unwrap();
        assert!(t.create("", "configmaps", map("b")).await.unwrap_err().message.contains("exceeded quota: q"));
    }
}
