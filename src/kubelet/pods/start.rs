//! Starting: a pod's sandbox, and one container in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::Involved;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use task::Shutdown;

use super::Context;
use crate::containers::config::{ContainerInput, container_config};
use crate::containers::env::{Sources, Surroundings, environment, referenced};
use crate::containers::sandbox::log_directory;
use crate::hooks;
use crate::objects::{Kind, PodExt};
use crate::probes::handler::Target;
use crate::probes::involved;

/// How long a container waits for the first listing of the Services that its environment names.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(10);
/// A postStart hook may take long, but not for ever.
const POST_START_TIMEOUT: Duration = Duration::from_secs(3600);

/// A container that was not started. `reason` is its waiting reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    pub reason: String,
    pub message: String,
    /// The image, when it is the image's fault.
    pub image: Option<String>,
}

pub async fn sandbox(context: &Context, pod: &Pod, attempt: u32, stop: Vec<String>) -> Result<(), String> {
    for id in stop {
        context.runtime.stop_sandbox(&id).await.map_err(|error| format!("Failed to stop sandbox {id}: {error}"))?;
    }
    let failed = |error: &dyn std::fmt::Display| format!("Failed to create pod sandbox: {error}");
    context.cgroups.create(pod).map_err(|error| failed(&error))?;
    std::fs::create_dir_all(log_directory(&context.config.log_dir, pod)).map_err(|error| failed(&error))?;
    let handler = match pod.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty()) {
        None => String::new(),
        Some(name) => context.client.get::<RuntimeClass>("", name).await.map_err(|error| failed(&error))?.handler,
    };
    let config = context.sandbox_config(pod, attempt);
    context.runtime.run_sandbox(config, &handler).await.map_err(|error| failed(&error))?;
    Ok(())
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Order {
    pub kind: Kind,
    pub container: Container,
    pub sandbox_id: String,
    pub sandbox_attempt: u32,
    pub attempt: u32,
    pub replaces: Option<String>,
    pub pod_ips: Vec<String>,
    /// For an ephemeral container: the container whose processes it sees.
    pub target_id: Option<String>,
}

/// Starts a container and runs its postStart hook. `cancelled` gives up where that leaves nothing behind.
pub async fn container(context: &Context, pod: &Arc<Pod>, order: Order, cancelled: Shutdown) -> Result<(), StartError> {
    let Order { container, .. } = &order;
    let about = involved(pod, container);
    let sandbox_config = context.sandbox_config(pod, order.sandbox_attempt);
    let given_up = || error("ContainerCreating", "the pod ends");

    let image = tokio::select! {
        biased;
        () = cancelled.cancelled() => return Err(given_up()),
        image = context.images.ensure(pod, container, &about, &sandbox_config, &context.client, &context.events) => image,
    };
    let image = image.map_err(|failure| StartError {
        reason: failure.reason.to_owned(),
        message: failure.message.clone(),
        image: container.image.clone(),
    })?;

    let config_error = |message: String| {
        context.events.warning(about.clone(), "Failed", format!("Error: {message}"));
        error("CreateContainerConfigError", message)
    };
    let sources = sources(context, pod, container).await.map_err(config_error)?;
    if tokio::time::timeout(SERVICES_TIMEOUT, context.services.synced()).await.is_err() {
        return Err(config_error("services have not yet been read at least once, cannot construct envvars".to_owned()));
    }
    let services = services(context, pod);
    // A pod in the node's network has the node's addresses.
    let pod_ips = if pod.host_network() { &context.node.ips } else { &order.pod_ips };
    let around = Surroundings { pod, pod_ips, node: &context.node, sources: &sources, services: &services };
    let env = environment(container, around).map_err(|error| config_error(error.to_string()))?;
    let mounts = context
        .volumes
        .mounts(pod, container, order.attempt, &env, pod_ips)
        .map_err(|error| config_error(error.to_string()))?;
    let config = container_config(ContainerInput {
        pod,
        kind: order.kind,
        container,
        attempt: order.attempt,
        image_ref: &image.id,
        image_user: &image.user,
        env: &env,
        mounts: &mounts,
        target_id: order.target_id.as_deref(),
        node_memory_bytes: context.node.memory_bytes,
        seccomp_dir: &context.config.data_dir.join("seccomp"),
    })
    .map_err(|error| config_error(error.to_string()))?;

    if cancelled.is_cancelled() {
        return Err(given_up());
    }
    if let Some(id) = &order.replaces
        && let Err(failure) = context.runtime.remove_container(id).await
    {
        return Err(error("CreateContainerError", failure.to_string()));
    }
    let id = context.runtime.create_container(&order.sandbox_id, config, sandbox_config).await.map_err(|failure| {
        context.events.warning(about.clone(), "Failed", format!("Error: {}", failure.message));
        error("CreateContainerError", failure.message)
    })?;
    context.events.normal(about.clone(), "Created", "Container created");
    context.runtime.start_container(&id).await.map_err(|failure| {
        context.events.warning(about.clone(), "Failed", format!("Error: {}", failure.message));
        error("RunContainerError", failure.message)
    })?;
    context.events.normal(about.clone(), "Started", "Container started");

    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone());
    if let Some(hook) = hook {
        let target = Target {
            pod: pod.clone(),
            container: container.clone(),
            container_id: id.clone(),
            pod_ip: pod_ips.first().cloned().unwrap_or_default(),
        };
        let outcome = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(()),
            outcome = hooks::run(&context.runtime, &hook, &target, POST_START_TIMEOUT) => outcome,
        };
        if let Err(why) = outcome {
            tracing::info!(pod = %pod.full(), container = container.name, why, "postStart hook failed");
            context.events.warning(about.clone(), "FailedPostStartHook", "PostStartHook failed");
            context.events.normal(about, "Killing", "FailedPostStartHook");
            let grace = pod.grace_seconds();
            if let Err(failure) = context.runtime.stop_container(&id, grace).await {
                tracing::warn!(pod = %pod.full(), container = container.name, %failure, "container not stopped");
            }
            return Err(error("PostStartHookError", why));
        }
    }
    Ok(())
}

fn error(reason: &str, message: impl Into<String>) -> StartError {
    StartError { reason: reason.to_owned(), message: message.into(), image: None }
}

/// The ConfigMaps and Secrets of an environment, read fresh: a container sees what was there when it started.
async fn sources(context: &Context, pod: &Pod, container: &Container) -> Result<Sources, String> {
    let (maps, secrets) = referenced(container);
    let mut sources = Sources { config_maps: BTreeMap::new(), secrets: BTreeMap::new() };
    for name in maps {
        let found = context.client.find::<ConfigMap>(pod.ns(), &name).await;
        sources.config_maps.insert(name, found.map_err(|failure| failure.to_string())?);
    }
    for name in secrets {
        let found = context.client.find::<Secret>(pod.ns(), &name).await;
        sources.secrets.insert(name, found.map_err(|failure| failure.to_string())?);
    }
    Ok(sources)
}

fn services(context: &Context, pod: &Pod) -> Vec<Arc<k8s_openapi::api::core::v1::Service>> {
    let mut services = Vec::new();
    if pod.spec().enable_service_links.unwrap_or(true) {
        services = context.services.list_in(pod.ns());
    }
    if pod.ns() != "default" || services.is_empty() {
        services.extend(context.services.get("default", "kubernetes"));
    }
    services
}

/// The pod as the object of an event.
pub fn about(pod: &Pod) -> Involved {
    Involved::new(pod)
}
