//! Security contexts: who the processes are and what they may do.

use std::path::Path;

use cri::v1::security_profile::ProfileType;
use cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy,
};
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile};

use crate::objects::{Kind, PodExt};

/// Parts of /proc and /sys that a container does not see, unless `procMount: Unmasked`.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user that an image names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

/// `runAsNonRoot` and what stands against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunsAsRoot { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root \
         (pod: \"{pod}\", container: {container})"
    )]
    UnknownUser { user: String, pod: String, container: String },
}

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec().security_context.as_ref()
}

/// A container's context over its pod's over the image's user.
pub fn container_context(
    pod: &Pod,
    kind: Kind,
    container: &Container,
    image_user: &ImageUser,
    target_id: Option<&str>,
    seccomp_dir: &Path,
) -> Result<LinuxContainerSecurityContext, SecurityError> {
    let own = container.security_context.clone().unwrap_or_default();
    let pods = of_pod(pod);
    let privileged = own.privileged == Some(true);
    let run_as_user = own.run_as_user.or(pods.and_then(|pod| pod.run_as_user));
    let run_as_group = own.run_as_group.or(pods.and_then(|pod| pod.run_as_group));
    if own.run_as_non_root.or(pods.and_then(|pod| pod.run_as_non_root)) == Some(true) {
        non_root(pod, container, run_as_user, image_user)?;
    }
    let (user, username) = match (run_as_user, image_user.uid) {
        (Some(uid), _) | (None, Some(uid)) => (Some(uid), String::new()),
        (None, None) => (None, image_user.name.clone()),
    };
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| if unmasked { vec![] } else { paths.iter().map(|&path| path.to_owned()).collect() };
    let mut namespaces = namespaces(pod);
    if let (Kind::Ephemeral, Some(target)) = (kind, target_id) {
        namespaces.pid = NamespaceMode::Target.into();
        namespaces.target_id = target.to_owned();
    }
    Ok(LinuxContainerSecurityContext {
        capabilities: own.capabilities.map(|one| Capability {
            add_capabilities: one.add.unwrap_or_default(),
            drop_capabilities: one.drop.unwrap_or_default(),
            add_ambient_capabilities: vec![],
        }),
        privileged,
        namespace_options: Some(namespaces),
        selinux_options: own
            .se_linux_options
            .as_ref()
            .or(pods.and_then(|pod| pod.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: user.map(|value| Int64Value { value }),
        run_as_group: run_as_group.map(|value| Int64Value { value }),
        run_as_username: username,
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental_groups(pods),
        supplemental_groups_policy: groups_policy(pods).into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(
            own.seccomp_profile.as_ref().or(pods.and_then(|pod| pod.seccomp_profile.as_ref())),
            privileged,
            seccomp_dir,
        )),
        apparmor: own.app_armor_profile.as_ref().or(pods.and_then(|pod| pod.app_armor_profile.as_ref())).map(apparmor),
        ..LinuxContainerSecurityContext::default()
    })
}

pub fn sandbox_context(pod: &Pod, seccomp_dir: &Path) -> LinuxSandboxSecurityContext {
    let pods = of_pod(pod);
    let privileged = pod
        .containers()
        .iter()
        .any(|(_, one)| one.security_context.as_ref().is_some_and(|context| context.privileged == Some(true)));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: pods.and_then(|pod| pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: pods.and_then(|pod| pod.run_as_user).map(|value| Int64Value { value }),
        run_as_group: pods.and_then(|pod| pod.run_as_group).map(|value| Int64Value { value }),
        supplemental_groups: supplemental_groups(pods),
        supplemental_groups_policy: groups_policy(pods).into(),
        privileged,
        seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() })
            .filter(|_| !privileged)
            .or_else(|| Some(seccomp(None, privileged, seccomp_dir))),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// Which namespaces of the node, the pod or its own a container is in.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec();
    let pid = if spec.host_pid == Some(true) {
        NamespaceMode::Node
    } else if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    let or_node = |host: Option<bool>| if host == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption {
        network: or_node(spec.host_network).into(),
        pid: pid.into(),
        ipc: or_node(spec.host_ipc).into(),
        ..NamespaceOption::default()
    }
}

fn non_root(pod: &Pod, container: &Container, user: Option<i64>, image: &ImageUser) -> Result<(), SecurityError> {
    let (pod, container) = (pod.full(), container.name.clone());
    match (user, image.uid) {
        (Some(0), _) => Err(SecurityError::RunsAsRoot { pod, container }),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(SecurityError::ImageRunsAsRoot { pod, container }),
        (None, Some(_)) => Ok(()),
        (None, None) if image.name.is_empty() => Err(SecurityError::ImageRunsAsRoot { pod, container }),
        (None, None) => Err(SecurityError::UnknownUser { user: image.name.clone(), pod, container }),
    }
}

fn supplemental_groups(pod: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(pod) = pod else { return vec![] };
    pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group).collect()
}

fn groups_policy(pod: Option<&PodSecurityContext>) -> SupplementalGroupsPolicy {
    match pod.and_then(|pod| pod.supplemental_groups_policy.as_deref()) {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

/// Without a profile a container is unconfined, as upstream without `seccompDefault`.
fn seccomp(profile: Option<&SeccompProfile>, privileged: bool, dir: &Path) -> SecurityProfile {
    let (kind, localhost_ref) = match profile {
        _ if privileged => (ProfileType::Unconfined, String::new()),
        Some(profile) if profile.type_ == "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        Some(profile) if profile.type_ == "Localhost" => {
            let file = profile.localhost_profile.as_deref().unwrap_or_default();
            (ProfileType::Localhost, dir.join(file).to_string_lossy().into_owned())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref }
}

fn apparmor(profile: &AppArmorProfile) -> SecurityProfile {
    let kind = match profile.type_.as_str() {
        "Localhost" => ProfileType::Localhost,
        "Unconfined" => ProfileType::Unconfined,
        _ => ProfileType::RuntimeDefault,
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref: profile.localhost_profile.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::{Value, json};

    fn context(
        pod_context: Value,
        own: Value,
        image: ImageUser,
    ) -> Result<LinuxContainerSecurityContext, SecurityError> {
        let pod = pod(json!({"spec": {"securityContext": pod_context,
            "containers": [{"name": "c", "securityContext": own}]}}));
        container_context(&pod, Kind::Main, &pod.spec().containers[0], &image, None, Path::new("/seccomp"))
    }

    #[test]
    fn the_containers_user_is_over_the_pods_over_the_images() {
        let image = ImageUser { uid: Some(7), name: String::new() };
        let user = |pod: Value, own: Value| context(pod, own, image.clone()).unwrap().run_as_user.unwrap().value;
        assert_eq!(user(json!({"runAsUser": 5}), json!({"runAsUser": 6})), 6);
        assert_eq!(user(json!({"runAsUser": 5}), json!({})), 5);
        assert_eq!(user(json!({}), json!({})), 7);
    }

    #[test]
    fn non_root_means_a_number_other_than_zero() {
        let policy = || json!({"runAsNonRoot": true});
        let named = ImageUser { uid: None, name: "www".into() };
        let root = ImageUser { uid: Some(0), name: String::new() };
        assert!(matches!(context(policy(), json!({}), named.clone()), Err(SecurityError::UnknownUser { .. })));
        assert!(matches!(context(policy(), json!({}), root), Err(SecurityError::ImageRunsAsRoot { .. })));
        assert!(matches!(
            context(policy(), json!({"runAsUser": 0}), named.clone()),
            Err(SecurityError::RunsAsRoot { .. })
        ));
        assert!(context(policy(), json!({"runAsUser": 1}), named.clone()).is_ok());
        assert!(context(policy(), json!({"runAsNonRoot": false}), named).is_ok());
    }

    #[test]
    fn profiles_paths_and_groups() {
        let made = context(
            json!({"fsGroup": 9, "supplementalGroups": [8], "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
            json!({"procMount": "Unmasked", "allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}),
            ImageUser::default(),
        )
        .unwrap();
        assert_eq!(made.supplemental_groups, [8, 9]);
        assert_eq!(made.seccomp.unwrap().localhost_ref, "/seccomp/a.json");
        assert!(made.masked_paths.is_empty() && made.no_new_privs);
        assert_eq!(made.capabilities.unwrap().drop_capabilities, ["ALL"]);
        let plain = context(json!({}), json!({"privileged": true}), ImageUser::default()).unwrap();
        assert_eq!(plain.seccomp.unwrap().profile_type, i32::from(ProfileType::Unconfined));
        assert!(plain.masked_paths.contains(&"/proc/kcore".to_owned()));
    }
}
