//! What the container runtime has of one pod.

use cri::v1::{ContainerState, ContainerStatus, PodSandboxState, PodSandboxStatus};
use k8s_openapi::jiff::Timestamp;

use crate::containers::names;

/// A pod's sandboxes and containers, each newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub sandboxes: Vec<PodSandboxStatus>,
    pub containers: Vec<Seen>,
}

/// A container and the sandbox it lives in, which its CRI status does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub sandbox_id: String,
    pub status: ContainerStatus,
}

impl Observed {
    pub fn new(mut sandboxes: Vec<PodSandboxStatus>, mut containers: Vec<Seen>) -> Observed {
        sandboxes.sort_by_key(|one| std::cmp::Reverse((attempt_of(one), one.created_at)));
        containers.sort_by_key(|one| std::cmp::Reverse((one.attempt(), one.status.created_at)));
        Observed { sandboxes, containers }
    }

    /// The newest sandbox, if it can hold containers.
    pub fn sandbox(&self, needs_ip: bool) -> Option<&PodSandboxStatus> {
        let newest = self.sandboxes.first()?;
        let has_ip = newest.network.as_ref().is_some_and(|network| !network.ip.is_empty());
        (is_ready(newest) && (has_ip || !needs_ip)).then_some(newest)
    }

    /// The pod's addresses as its newest sandbox has them.
    pub fn ips(&self) -> Vec<String> {
        let Some(network) = self.sandboxes.first().filter(|one| is_ready(one)).and_then(|one| one.network.as_ref())
        else {
            return vec![];
        };
        let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|one| &one.ip));
        all.filter(|ip| !ip.is_empty()).cloned().collect()
    }

    /// The container's newest instance.
    pub fn latest(&self, name: &str) -> Option<&Seen> {
        self.containers.iter().find(|one| one.name() == name)
    }

    /// The newest instance in one sandbox.
    pub fn latest_in(&self, sandbox_id: &str, name: &str) -> Option<&Seen> {
        self.containers.iter().find(|one| one.sandbox_id == sandbox_id && one.name() == name)
    }

    pub fn running(&self) -> impl Iterator<Item = &Seen> {
        self.containers.iter().filter(|one| one.may_run())
    }

    pub fn by_id(&self, id: &str) -> Option<&Seen> {
        self.containers.iter().find(|one| one.status.id == id)
    }
}

pub fn is_ready(sandbox: &PodSandboxStatus) -> bool {
    sandbox.state() == PodSandboxState::SandboxReady
}

pub fn attempt_of(sandbox: &PodSandboxStatus) -> u32 {
    sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
}

impl Seen {
    pub fn name(&self) -> &str {
        match self.status.labels.get(names::CONTAINER_NAME) {
            Some(name) => name,
            None => self.status.metadata.as_ref().map_or("", |metadata| &metadata.name),
        }
    }

    pub fn attempt(&self) -> u32 {
        let annotated = self.status.annotations.get(names::RESTART_COUNT).and_then(|count| count.parse().ok());
        annotated.or(self.status.metadata.as_ref().map(|metadata| metadata.attempt)).unwrap_or(0)
    }

    pub fn state(&self) -> ContainerState {
        self.status.state()
    }

    pub fn is_running(&self) -> bool {
        self.state() == ContainerState::ContainerRunning
    }

    /// Running, or in a state that the runtime cannot tell.
    pub fn may_run(&self) -> bool {
        matches!(self.state(), ContainerState::ContainerRunning | ContainerState::ContainerUnknown)
    }

    pub fn has_exited(&self) -> bool {
        self.state() == ContainerState::ContainerExited
    }

    pub fn hash(&self) -> &str {
        self.status.annotations.get(names::CONTAINER_HASH).map_or("", String::as_str)
    }

    pub fn finished_at(&self) -> Timestamp {
        timestamp(self.status.finished_at)
    }
}

/// CRI counts nanoseconds since 1970.
pub fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
