//! What the server does by itself: it follows the store, drops old history, lets Events expire, and checks the types
//! of admission policies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::{Call, PatchKind, Resource, Verb};
use bytes::Bytes;
use store::Durability;
use task::Shutdown;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admission::policy;
use crate::aggregator;
use crate::authn::Use;
use crate::cache::{ResourceCache, TooOld};
use crate::flowcontrol;
use crate::identity::Identity;
use crate::server::ApiServer;

/// History is kept this long, and up to twice as long (upstream: `--etcd-compaction-interval`).
const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);
/// Events live this long after their last change (upstream: `--event-ttl`).
const EVENT_LIFE: Duration = Duration::from_secs(3600);
/// Due events are deleted together, at most this often, so that nobody wakes up for each.
const EXPIRY_PAUSE: Duration = Duration::from_secs(30);

pub fn start(server: &ApiServer, shutdown: &Shutdown) {
    let cache = server.cache().clone();
    task::restarting("watch-cache", shutdown.clone(), move || {
        let cache = cache.clone();
        async move { cache.run().await }
    });
    if let Some(used) = server.authenticator().tokens().take_used() {
        let (server, shutdown) = (server.clone(), shutdown.clone());
        task::spawn("legacy-token-tracking", label_used(server, used, shutdown));
    }
    let compacting = server.clone();
    task::restarting("compaction", shutdown.clone(), move || compact(compacting.clone()));
    let policies = server.clone();
    task::restarting("policy-status", shutdown.clone(), move || policy::status::run(policies.clone()));
    if let Some(events) = server.cache().resource(b"/registry/events/") {
        let server = server.clone();
        task::restarting("event-expiry", shutdown.clone(), move || expire(server.clone(), events.clone()));
    }
}

/// Once the objects of priority and fairness are there, their changes are followed.
pub fn follow_flow_control(server: &ApiServer, shutdown: &Shutdown) {
    let server = server.clone();
    task::restarting("flow-control", shutdown.clone(), move || flowcontrol::run(server.clone()));
}

/// APIServices are kept, and whoever serves others is asked.
pub fn aggregate(server: &ApiServer, shutdown: &Shutdown) {
    let server = server.clone();
    task::restarting("aggregator", shutdown.clone(), move || aggregator::run(server.clone()));
}

/// Labels the Secrets whose tokens are used.
async fn label_used(server: ApiServer, mut used: mpsc::Receiver<Use>, shutdown: Shutdown) {
    let user = Identity::master("system:apiserver");
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => return,
            next = used.recv() => next,
        };
        let Some(Use { namespace, name, patch }) = next else { return };
        let mut call = Call::new(Verb::Patch, Resource::new("", "v1", "secrets"));
        (call.namespace, call.name, call.body) = (Some(namespace.clone()), Some(name.clone()), Some(patch));
        call.options.patch = Some(PatchKind::Merge);
        if let Err(failure) = server.call(&user, call).await {
            tracing::warn!(namespace, name, %failure, "a Secret is not labelled with the day of its token's use");
        }
    }
}

/// Every interval the history before the last interval goes. While nothing changes there is nothing to do.
async fn compact(server: ApiServer) -> Result<(), store::Error> {
    let store = server.store();
    let mut before = store.revision();
    let mut compacted = 0;
    loop {
        tokio::time::sleep(COMPACTION_INTERVAL).await;
        if before > compacted {
            match store.compact(before).await {
                Ok(()) | Err(store::Error::Compacted { .. } | store::Error::NotLeader) => compacted = before,
                Err(store::Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        before = store.revision();
    }
}

/// Events by the time at which they go. What was there before the start begins its life anew.
async fn expire(server: ApiServer, events: Arc<ResourceCache>) -> Result<(), TooOldEvents> {
    let (snapshot, mut follower) = events.snapshot_and_follow(None, server.cache().revision());
    let mut due: VecDeque<(Instant, Bytes, u64)> = VecDeque::new();
    let now = Instant::now();
    due.extend(snapshot.objects.iter().map(|event| (now + EVENT_LIFE, event.key.clone(), event.mod_revision)));
    drop(snapshot);
    loop {
        let wake = due.front().map(|(at, ..)| *at + EXPIRY_PAUSE);
        tokio::select! {
            changes = follower.next() => {
                let at = Instant::now() + EVENT_LIFE;
                for change in changes.map_err(TooOldEvents)?.iter().filter(|change| !change.deleted) {
                    due.push_back((at, change.object.key.clone(), change.revision));
                }
            }
            () = async { match wake { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {
                let now = Instant::now();
                while let Some((_, key, revision)) = due.pop_front_if(|(at, ..)| *at <= now) {
                    // Unless it was changed since, in which case it stands in the queue again.
                    if let Err(failure) = server.storage().delete(key, revision, Durability::Relaxed).await {
                        tracing::debug!(%failure, "an expired event stays for now");
                    }
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("events came faster than they were followed, from revision {}", .0.complete_after)]
struct TooOldEvents(TooOld);
