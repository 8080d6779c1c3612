//! Stopping one container: its preStop hook, then the polite signal, then the final one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::Context;
use super::plan::KillReason;
use crate::hooks;
use crate::objects::PodExt;
use crate::probes::handler::Target;
use crate::probes::involved;

/// What is left for the container itself after a preStop hook that used up the grace period.
const GRACE_SECONDS_AFTER_HOOK_MIN: i64 = 2;

/// Stops the container; returns when it has stopped.
pub async fn container(
    context: &Context,
    pod: &Arc<Pod>,
    container: &Container,
    id: &str,
    why: KillReason,
    grace_seconds: i64,
    pod_ip: String,
) -> Result<(), crate::runtime::RuntimeError> {
    let about = involved(pod, container);
    context.events.normal(about.clone(), "Killing", why.message(&container.name));
    let mut left = grace_seconds;
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone());
    if let Some(hook) = hook.filter(|_| grace_seconds > 0) {
        let started = Instant::now();
        let timeout = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        let target = Target { pod: pod.clone(), container: container.clone(), container_id: id.to_owned(), pod_ip };
        match tokio::time::timeout(timeout, hooks::run(&context.runtime, &hook, &target, timeout)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                tracing::info!(pod = %pod.full(), container = container.name, why, "preStop hook failed");
                context.events.warning(about, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => {
                tracing::info!(pod = %pod.full(), container = container.name, "preStop hook took all of the grace period");
            }
        }
        let used = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
        left = grace_seconds.saturating_sub(used).max(GRACE_SECONDS_AFTER_HOOK_MIN.min(grace_seconds));
    }
    context.runtime.stop_container(id, left).await
}
