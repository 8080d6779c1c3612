//! From a pod to what the container runtime is asked for. Everything here is pure: the same pod, image and mounts
//! give the same CRI messages.

pub mod config;
pub mod dns;
pub mod env;
pub mod expand;
pub mod fields;
pub mod resources;
pub mod sandbox;
pub mod security;

/// Labels and annotations that tie sandboxes and containers to their pod. They are upstream's, so that a node's
/// containers are found again whichever kubelet started them.
pub mod names {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    pub const POD_DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
    pub const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
}
