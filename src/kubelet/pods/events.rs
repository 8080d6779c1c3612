//! The runtime's container events, which wake the pod workers.
//!
//! A runtime without events, or one that is away, is looked at every second instead, as upstream's generic PLEG does.

use std::sync::Arc;
use std::time::Duration;

use task::Shutdown;
use tokio::time::Instant;

use super::Pods;
use crate::containers::names;
use crate::runtime::Runtime;

/// The safety net: every pod is looked at again this often even if nothing happens.
const RELIST: Duration = Duration::from_secs(300);
const RELIST_WITHOUT_EVENTS: Duration = Duration::from_secs(1);

/// A runtime that starts together with the kubelet has this long before its absence is worth a word.
const STARTING_MAX: Duration = Duration::from_secs(5);
const RETRY_AT_START: Duration = Duration::from_millis(50);

pub async fn follow(runtime: Runtime, pods: Arc<Pods>, shutdown: Shutdown) {
    let began = Instant::now();
    let mut has_complained = false;
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = stream(&runtime, &pods) => outcome,
        };
        let pause = match outcome {
            Err(_) if began.elapsed() < STARTING_MAX => RETRY_AT_START,
            Err(error) if !has_complained => {
                tracing::warn!(%error, "the container runtime gives no events; pods are looked at every second");
                has_complained = true;
                RELIST_WITHOUT_EVENTS
            }
            Err(_) => RELIST_WITHOUT_EVENTS,
            Ok(()) => {
                has_complained = false;
                RELIST_WITHOUT_EVENTS
            }
        };
        pods.wake_all();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn stream(runtime: &Runtime, pods: &Pods) -> Result<(), crate::runtime::RuntimeError> {
    let mut events = runtime.events().await?;
    // What happened before the stream was open.
    pods.wake_all();
    loop {
        match tokio::time::timeout(RELIST, events.message()).await {
            Err(_) => pods.wake_all(),
            Ok(Ok(Some(event))) => {
                let sandbox = event.pod_sandbox_status.as_ref();
                let of_sandbox = sandbox.and_then(|sandbox| sandbox.metadata.as_ref()).map(|meta| meta.uid.as_str());
                let of_label =
                    event.containers_statuses.iter().find_map(|one| one.labels.get(names::POD_UID)).map(String::as_str);
                match of_sandbox.filter(|uid| !uid.is_empty()).or(of_label) {
                    Some(uid) => pods.wake(uid),
                    None => pods.wake_all(),
                }
            }
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(status)) => return Err(status.into()),
        }
    }
}
