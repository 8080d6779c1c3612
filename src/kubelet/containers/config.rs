//! One container's CRI configuration.

use std::collections::HashMap;
use std::path::Path;

use cri::v1::{ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount, Signal};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::expand::expand;
use super::names;
use super::resources::container_resources;
use super::security::{self, ImageUser, SecurityError};
use crate::objects::{Kind, PodExt, container_hash};

pub const TERMINATION_MESSAGE_PATH_DEFAULT: &str = "/dev/termination-log";

/// What a container needs beyond its pod.
#[derive(Clone, Copy, Debug)]
pub struct ContainerInput<'a> {
    pub pod: &'a Pod,
    pub kind: Kind,
    pub container: &'a Container,
    /// How often it was started before.
    pub attempt: u32,
    /// The image as the runtime identifies it.
    pub image_ref: &'a str,
    pub image_user: &'a ImageUser,
    pub env: &'a [(String, String)],
    pub mounts: &'a [Mount],
    /// For an ephemeral container: the container whose processes it sees.
    pub target_id: Option<&'a str>,
    pub node_memory_bytes: i64,
    pub seccomp_dir: &'a Path,
}

pub fn container_config(input: ContainerInput<'_>) -> Result<ContainerConfig, SecurityError> {
    let ContainerInput { pod, container, .. } = input;
    let lookup = |name: &str| input.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let expanded = |words: &Option<Vec<String>>| words.iter().flatten().map(|word| expand(word, lookup)).collect();
    let context =
        security::container_context(pod, input.kind, container, input.image_user, input.target_id, input.seccomp_dir)?;
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: input.attempt }),
        image: Some(ImageSpec {
            image: input.image_ref.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: input
            .env
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts: input.mounts.to_vec(),
        labels: HashMap::from([
            (names::POD_NAME.to_owned(), pod.name().to_owned()),
            (names::POD_NAMESPACE.to_owned(), pod.ns().to_owned()),
            (names::POD_UID.to_owned(), pod.uid().to_owned()),
            (names::CONTAINER_NAME.to_owned(), container.name.clone()),
        ]),
        annotations: annotations(pod, container, input.attempt),
        log_path: log_path(&container.name, input.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(container_resources(pod, container, input.node_memory_bytes)),
            security_context: Some(context),
        }),
        stop_signal: stop_signal(container).into(),
        ..ContainerConfig::default()
    })
}

/// Relative to the sandbox's log directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let path = container.termination_message_path.as_deref().unwrap_or(TERMINATION_MESSAGE_PATH_DEFAULT);
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut annotations = HashMap::from([
        (names::CONTAINER_HASH.to_owned(), container_hash(container)),
        (names::RESTART_COUNT.to_owned(), attempt.to_string()),
        (names::TERMINATION_MESSAGE_PATH.to_owned(), path.to_owned()),
        (names::TERMINATION_MESSAGE_POLICY.to_owned(), policy.to_owned()),
    ]);
    if let Some(seconds) = pod.spec().termination_grace_period_seconds {
        annotations.insert(names::POD_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        annotations.insert(names::POD_DELETION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if let Some(ports) = container.ports.as_ref().and_then(|ports| serde_json::to_string(ports).ok()) {
        annotations.insert(names::CONTAINER_PORTS.to_owned(), ports);
    }
    annotations
}

/// `lifecycle.stopSignal` (KEP-4960); the runtime's default is the image's.
fn stop_signal(container: &Container) -> Signal {
    let name = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    name.and_then(|name| Signal::from_str_name(&format!("SIGNAL_{}", name.replace('+', "PLUS").replace('-', "MINUS"))))
        .unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    #[test]
    fn a_container_as_the_runtime_sees_it() {
        let pod = pod(json!({"spec": {"terminationGracePeriodSeconds": 5, "containers": [{
            "name": "c", "image": "busybox", "command": ["sh", "-c"], "args": ["echo $(A) $(B)"], "tty": true,
            "lifecycle": {"stopSignal": "SIGUSR1"}, "ports": [{"containerPort": 80}],
            "resources": {"limits": {"memory": "64Mi"}}}]}}));
        let mounts = [Mount { container_path: "/data".into(), host_path: "/host".into(), ..Mount::default() }];
        let config = container_config(ContainerInput {
            pod: &pod,
            kind: Kind::Main,
            container: &pod.spec().containers[0],
            attempt: 3,
            image_ref: "sha256:abc",
            image_user: &ImageUser::default(),
            env: &[("A".to_owned(), "1".to_owned())],
            mounts: &mounts,
            target_id: None,
            node_memory_bytes: 1 << 30,
            seccomp_dir: Path::new("/s"),
        })
        .unwrap();
        assert_eq!(config.args, ["echo 1 $(B)"]);
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.image.unwrap().image, "sha256:abc");
        assert_eq!(config.stop_signal, i32::from(Signal::Sigusr1));
        assert_eq!(config.mounts, mounts);
        let resources = config.linux.unwrap().resources.unwrap();
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
        let annotation = |name: &str| config.annotations.get(name).map(String::as_str);
        assert_eq!(annotation(names::RESTART_COUNT), Some("3"));
        assert_eq!(annotation(names::POD_GRACE_PERIOD), Some("5"));
        assert_eq!(annotation(names::TERMINATION_MESSAGE_PATH), Some("/dev/termination-log"));
    }
}
