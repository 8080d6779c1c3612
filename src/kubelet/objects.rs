//! Reading pods: the accessors that everything here needs, so that optional fields are dealt with in one place.

use std::borrow::Cow;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;

/// What role a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Runs to completion before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always` (KEP-753): runs beside the main containers, stops after them.
    Sidecar,
    Main,
    /// Added by `kubectl debug`, started once.
    Ephemeral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> RestartPolicy {
        match text {
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            _ => RestartPolicy::Always,
        }
    }
}

/// The pod's grace period when it names none.
pub const GRACE_PERIOD_SECONDS_DEFAULT: i64 = 30;

/// Where the pod came from; anything but `api` is a static pod.
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// On a mirror pod: the hash of the static pod that it shows.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// On a static pod: its hash.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";

pub trait PodExt {
    fn ns(&self) -> &str;
    fn name(&self) -> &str;
    fn uid(&self) -> &str;
    fn spec(&self) -> &PodSpec;
    /// `name_namespace(uid)`, as upstream's messages name a pod.
    fn full(&self) -> String;
    fn annotation(&self, name: &str) -> Option<&str>;
    /// All containers in the order in which they start.
    fn containers(&self) -> Vec<(Kind, Cow<'_, Container>)>;
    fn container(&self, name: &str) -> Option<(Kind, Cow<'_, Container>)>;
    fn restart_policy(&self) -> RestartPolicy;
    fn host_network(&self) -> bool;
    fn deleted_at(&self) -> Option<Timestamp>;
    /// Seconds between the polite and the final signal when the pod ends.
    fn grace_seconds(&self) -> i64;
    fn is_static(&self) -> bool;
    fn is_mirror(&self) -> bool;
    /// `status.phase` is Succeeded or Failed.
    fn is_terminal(&self) -> bool;
}

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn ns(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    fn full(&self) -> String {
        format!("{}_{}({})", self.name(), self.ns(), self.uid())
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn containers(&self) -> Vec<(Kind, Cow<'_, Container>)> {
        let spec = self.spec();
        let init = spec.init_containers.iter().flatten().map(|one| (init_kind(one), Cow::Borrowed(one)));
        let main = spec.containers.iter().map(|one| (Kind::Main, Cow::Borrowed(one)));
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        init.chain(main).chain(ephemeral.map(|one| (Kind::Ephemeral, Cow::Owned(as_container(one))))).collect()
    }

    fn container(&self, name: &str) -> Option<(Kind, Cow<'_, Container>)> {
        self.containers().into_iter().find(|(_, container)| container.name == name)
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().restart_policy.as_deref())
    }

    fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    fn deleted_at(&self) -> Option<Timestamp> {
        self.metadata.deletion_timestamp.as_ref().map(|time| time.0)
    }

    fn grace_seconds(&self) -> i64 {
        let of_deletion =
            self.metadata.deletion_grace_period_seconds.filter(|_| self.metadata.deletion_timestamp.is_some());
        of_deletion.or(self.spec().termination_grace_period_seconds).unwrap_or(GRACE_PERIOD_SECONDS_DEFAULT).max(1)
    }

    fn is_static(&self) -> bool {
        self.annotation(CONFIG_SOURCE_ANNOTATION).is_some_and(|source| source != "api") && !self.is_mirror()
    }

    fn is_mirror(&self) -> bool {
        self.annotation(CONFIG_MIRROR_ANNOTATION).is_some()
    }

    fn is_terminal(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

fn init_kind(container: &Container) -> Kind {
    if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init }
}

/// Whether a container that ended with `exit_code` is started again.
pub fn should_restart(pod: &Pod, kind: Kind, container: &Container, exit_code: i32) -> bool {
    match kind {
        Kind::Sidecar => return true,
        Kind::Ephemeral => return false,
        Kind::Init | Kind::Main => {}
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let among = codes.values.iter().flatten().any(|&code| code == exit_code);
        let matches = if codes.operator == "NotIn" { !among } else { among };
        if matches {
            return rule.action.starts_with("Restart");
        }
    }
    let policy = match container.restart_policy.as_deref() {
        own @ Some(_) => RestartPolicy::parse(own),
        None => pod.restart_policy(),
    };
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => exit_code != 0,
        // An init container that succeeded is done, whatever the pod's policy.
        RestartPolicy::Always => kind == Kind::Main || exit_code != 0,
    }
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let one = ephemeral.clone();
    Container {
        args: one.args,
        command: one.command,
        env: one.env,
        env_from: one.env_from,
        image: one.image,
        image_pull_policy: one.image_pull_policy,
        lifecycle: one.lifecycle,
        name: one.name,
        ports: one.ports,
        resources: one.resources,
        security_context: one.security_context,
        stdin: one.stdin,
        stdin_once: one.stdin_once,
        termination_message_path: one.termination_message_path,
        termination_message_policy: one.termination_message_policy,
        tty: one.tty,
        volume_devices: one.volume_devices,
        volume_mounts: one.volume_mounts,
        working_dir: one.working_dir,
        ..Container::default()
    }
}

/// The part of a container's spec whose change means a restart: upstream hashes name and image.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!("{:x}", fnv1a(container.name.bytes().chain([0]).chain(image.bytes())))
}

/// FNV-1a, 32 bits: for names and change detection, never for secrets.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A pod from YAML-like JSON; panics on a mistake in the test.
    pub fn pod(value: serde_json::Value) -> Pod {
        let mut pod: Pod = serde_json::from_value(value).unwrap();
        pod.metadata.name.get_or_insert_with(|| "web".to_owned());
        pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
        pod.metadata.uid.get_or_insert_with(|| "uid-1".to_owned());
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::testing::pod;
    use super::*;
    use serde_json::json;

    #[test]
    fn who_is_restarted() {
        let story = |policy: &str, kind, exit_code| {
            let pod = pod(json!({"spec": {"restartPolicy": policy, "containers": [{"name": "a"}]}}));
            should_restart(&pod, kind, &pod.spec().containers[0], exit_code)
        };
        assert!(story("Always", Kind::Main, 0));
        assert!(!story("Always", Kind::Init, 0));
        assert!(story("Always", Kind::Init, 1));
        assert!(!story("OnFailure", Kind::Main, 0));
        assert!(story("OnFailure", Kind::Main, 3));
        assert!(!story("Never", Kind::Main, 3));
        assert!(story("Never", Kind::Sidecar, 0));
        assert!(!story("Always", Kind::Ephemeral, 1));
    }

    #[test]
    fn a_containers_own_rules_come_first() {
        let pod = pod(json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}}));
        let container = &pod.spec().containers[0];
        assert!(should_restart(&pod, Kind::Main, container, 42));
        assert!(!should_restart(&pod, Kind::Main, container, 41));
    }

    #[test]
    fn grace_is_that_of_the_deletion_and_never_nothing() {
        let pod =
            pod(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0},
            "spec": {"terminationGracePeriodSeconds": 60, "containers": []}}));
        assert_eq!(pod.grace_seconds(), 1);
    }
}
