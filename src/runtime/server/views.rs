//! What the CRI shows of sandboxes and containers.

use std::collections::HashMap;

use cri::v1;
use jiff::Timestamp;

use super::Runtime;
use super::signals;
use super::state::{Container, Sandbox};

pub fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Whether all of the selector's labels are there.
pub fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

pub fn sandbox_state(sandbox: &Sandbox) -> v1::PodSandboxState {
    if sandbox.is_ready() { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
}

pub fn sandbox(sandbox: &Sandbox) -> v1::PodSandbox {
    let record = sandbox.record.lock().clone();
    v1::PodSandbox {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox) as i32,
        created_at: record.created_at_ns,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.runtime_handler,
    }
}

pub fn sandbox_status(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let record = sandbox.record.lock().clone();
    let linux = sandbox.config.linux.clone().unwrap_or_default();
    let mut addresses = record.addresses.iter().map(ToString::to_string);
    v1::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox) as i32,
        created_at: record.created_at_ns,
        network: Some(v1::PodSandboxNetworkStatus {
            ip: addresses.next().unwrap_or_default(),
            additional_ips: addresses.map(|ip| v1::PodIp { ip }).collect(),
        }),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace {
                options: linux.security_context.and_then(|context| context.namespace_options),
            }),
        }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.runtime_handler,
    }
}

pub fn container(container: &Container) -> v1::Container {
    v1::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.record.sandbox_id.clone(),
        metadata: container.config.metadata.clone(),
        image: container.config.image.clone(),
        image_ref: container.record.image_ref.clone(),
        state: container.state() as i32,
        created_at: container.record.created_at_ns,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        image_id: container.record.image_id.clone(),
    }
}

pub fn container_status(container: &Container) -> v1::ContainerStatus {
    let status = container.status.borrow().clone();
    let log_path = container.record.spec.log_path.as_ref();
    v1::ContainerStatus {
        id: container.id.clone(),
        metadata: container.config.metadata.clone(),
        state: container.state() as i32,
        created_at: container.record.created_at_ns,
        started_at: status.started_at_ns,
        finished_at: status.finished_at_ns,
        exit_code: status.exit_code,
        image: container.config.image.clone(),
        image_ref: container.record.image_ref.clone(),
        reason: status.reason,
        message: status.message,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        log_path: log_path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        resources: Some(v1::ContainerResources { linux: Some(container.resources.lock().clone()), windows: None }),
        image_id: container.record.image_id.clone(),
        user: status.identity.map(|identity| v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: identity.uid.into(),
                gid: identity.gid.into(),
                supplemental_groups: identity.groups.iter().map(|gid| i64::from(*gid)).collect(),
            }),
        }),
        stop_signal: signals::cri(container.record.spec.stop_signal) as i32,
    }
}

impl Runtime {
    pub fn list_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Vec<v1::PodSandbox> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|state| state.state);
        let mut found: Vec<v1::PodSandbox> = self
            .sandboxes
            .read()
            .values()
            .filter(|known| filter.id.is_empty() || known.id.starts_with(&filter.id))
            .filter(|known| selects(&filter.label_selector, &known.config.labels))
            .map(|known| sandbox(known))
            .filter(|known| state.is_none_or(|state| known.state == state))
            .collect();
        found.sort_by_key(|known| std::cmp::Reverse(known.created_at));
        found
    }

    pub fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Vec<v1::Container> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|state| state.state);
        let mut found: Vec<v1::Container> = self
            .containers
            .read()
            .values()
            .filter(|known| filter.id.is_empty() || known.id.starts_with(&filter.id))
            .filter(|known| {
                filter.pod_sandbox_id.is_empty() || known.record.sandbox_id.starts_with(&filter.pod_sandbox_id)
            })
            .filter(|known| selects(&filter.label_selector, &known.config.labels))
            .map(|known| container(known))
            .filter(|known| state.is_none_or(|state| known.state == state))
            .collect();
        found.sort_by_key(|known| std::cmp::Reverse(known.created_at));
        found
    }

    pub fn container_statuses(&self, sandbox_id: &str) -> Vec<v1::ContainerStatus> {
        self.containers_of(sandbox_id).iter().map(|container| container_status(container)).collect()
    }
}
