//! The runtime's container events, which wake the pod workers.
//!
//! A runtime without events, or one that is away, is looked at every second instead, as upstream's generic PLEG does.

use std::sync::Arc;
use std::time::Duration;

use task::Shutdown;

use super::Pods;
use crate::containers::names;
use crate::runtime::Runtime;

/// The safety net: every pod is looked at again this often even if nothing happens.
const RELIST: Duration = Duration::from_secs(300);
const RELIST_WITHOUT_EVENTS: Duration = Duration::from_secs(1);

pub async fn follow(runtime: Runtime, pods: Arc<Pods>, shutdown: Shutdown) {
    let mut has_complained = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = stream(&runtime, &pods) => {
                if let Err(error) = outcome && !has_complained {
                    tracing::warn!(%error, "the container runtime gives no events; pods are looked at every second");
                    has_complained = true;
                } else {
                    has_complained = false;
                }
            }
        }
        pods.wake_all();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RELIST_WITHOUT_EVENTS) => {}
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
