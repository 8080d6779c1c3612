//! From what the CRI and the image say to what the shim does. Pure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri::v1;
use images::ContainerConfig as ImageConfig;

use super::signals;
use crate::capabilities;
use crate::spec::{
    CgroupSpec, ContainerSpec, DeviceSpec, MountKind, MountSpec, PidMode, ProcessSpec, Propagation, Resources,
    RootfsSpec, SeccompSpec, UserSpec,
};

const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a container must not see of the node unless the CRI says otherwise; upstream's lists.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const MASKED_TOO: [&str; 2] = ["/proc/scsi", "/sys/devices/virtual/powercap"];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("no command specified")]
    NoCommand,
    #[error("capability {0:?} is not known")]
    Capability(String),
    #[error("mount {0}: container path must be absolute and without \"..\"")]
    MountPath(String),
    #[error("runAsGroup is given without a user")]
    GroupWithoutUser,
    #[error("user or group number {0} is out of range")]
    Number(i64),
    #[error("environment variable {0:?} has no UTF-8 value")]
    Environment(String),
    #[error("seccomp profile {0}")]
    Seccomp(String),
    #[error("stop signal {0:?} is not known")]
    Signal(String),
}

/// A device of the host that a container may use, looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    pub spec: DeviceSpec,
    pub kind: char,
    pub major: u64,
    pub minor: u64,
    pub permissions: String,
}

/// Everything that the decision depends on.
pub struct Input<'a> {
    pub id: &'a str,
    pub dir: &'a Path,
    /// The sandbox's directory with `resolv.conf`, `hostname` and `hosts`.
    pub sandbox_dir: &'a Path,
    pub sandbox: &'a v1::PodSandboxConfig,
    pub config: &'a v1::ContainerConfig,
    pub image: Option<&'a ImageConfig>,
    pub rootfs: RootfsSpec,
    pub cgroup_parent: &'a str,
    pub node_hostname: &'a str,
    pub devices: Vec<HostDevice>,
    /// The layers of images that are mounted as volumes, by the image's name in the mount.
    pub volumes: HashMap<String, Vec<PathBuf>>,
    /// The profile that `Localhost` names.
    pub localhost_profile: Option<serde_json::Value>,
}

pub fn container(input: Input) -> Result<ContainerSpec, PlanError> {
    let config = input.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let privileged = security.privileged;
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    let added = security.capabilities.clone().unwrap_or_default();
    let capabilities = capabilities::compute(
        privileged,
        &added.add_capabilities,
        &added.drop_capabilities,
        &added.add_ambient_capabilities,
    )
    .map_err(PlanError::Capability)?;
    let paths = |given: &[String], otherwise: &[&str]| -> Vec<PathBuf> {
        match (privileged, given.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => otherwise.iter().map(PathBuf::from).collect(),
            (false, false) => given.iter().map(PathBuf::from).collect(),
        }
    };
    let masked: Vec<&str> = MASKED.iter().chain(&MASKED_TOO).copied().collect();
    let log = Path::new(&input.sandbox.log_directory).join(&config.log_path);
    let has_log = !input.sandbox.log_directory.is_empty() && !config.log_path.is_empty();
    let image = input.image;
    Ok(ContainerSpec {
        id: input.id.to_owned(),
        dir: input.dir.to_owned(),
        process: ProcessSpec {
            args: command(config, image)?,
            env: environment(&input)?,
            cwd: working_dir(config, image),
            user: user(&security, image)?,
            capabilities,
            no_new_privileges: security.no_new_privs,
            seccomp: seccomp(&security, input.localhost_profile.clone())?,
            rlimits: Vec::new(),
            oom_score_adj: linux.resources.as_ref().map(|resources| resources.oom_score_adj.clamp(-1000, 1000) as i32),
            tty: config.tty,
        },
        mounts: mounts(&input, privileged, security.readonly_rootfs)?,
        devices: input.devices.iter().map(|device| device.spec.clone()).collect(),
        masked_paths: paths(&security.masked_paths, &masked),
        readonly_paths: paths(&security.readonly_paths, &READONLY),
        pid: match namespaces.pid() {
            v1::NamespaceMode::Pod => PidMode::Pod,
            v1::NamespaceMode::Container => PidMode::Container,
            v1::NamespaceMode::Node => PidMode::Node,
            v1::NamespaceMode::Target => PidMode::Target(namespaces.target_id.clone()),
        },
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        stop_signal: stop_signal(config, image)?,
        log_path: has_log.then_some(log),
        cgroup: CgroupSpec {
            path: format!("{}/{}", input.cgroup_parent.trim_end_matches('/'), input.id),
            resources: linux.resources.as_ref().map(resources).unwrap_or_default(),
            all_devices: privileged,
            devices: input
                .devices
                .iter()
                .map(|device| (device.kind, device.major, device.minor, device.permissions.clone()))
                .collect(),
        },
        rootfs: RootfsSpec { readonly: security.readonly_rootfs, ..input.rootfs },
    })
}

/// The CRI's command replaces the image's entrypoint and command; its arguments alone only the command.
fn command(config: &v1::ContainerConfig, image: Option<&ImageConfig>) -> Result<Vec<String>, PlanError> {
    let of_image = |part: fn(&ImageConfig) -> &Option<Vec<String>>| {
        image.and_then(|image| part(image).clone()).unwrap_or_default()
    };
    let (mut command, mut args) = (config.command.clone(), config.args.clone());
    if command.is_empty() {
        if args.is_empty() {
            args = of_image(ImageConfig::cmd);
        }
        command = of_image(ImageConfig::entrypoint);
    }
    command.append(&mut args);
    if command.first().is_none_or(String::is_empty) { Err(PlanError::NoCommand) } else { Ok(command) }
}

/// Defaults, then the image's, then the CRI's; the last value of a name is kept, at the name's first place.
fn environment(input: &Input) -> Result<Vec<String>, PlanError> {
    let hostname =
        if input.sandbox.hostname.is_empty() { input.node_hostname } else { input.sandbox.hostname.as_str() };
    let mut env: Vec<String> = vec![PATH_DEFAULT.into(), format!("HOSTNAME={hostname}")];
    if input.config.tty {
        env.push("TERM=xterm".into());
    }
    let of_image = input.image.and_then(|image| image.env().clone()).unwrap_or_default();
    let mut given = Vec::with_capacity(input.config.envs.len());
    for pair in &input.config.envs {
        let value = std::str::from_utf8(&pair.value).map_err(|_| PlanError::Environment(pair.key.clone()))?;
        given.push(format!("{}={value}", pair.key));
    }
    let mut places: HashMap<String, usize> =
        env.iter().enumerate().map(|(place, pair)| (name(pair).to_owned(), place)).collect();
    for pair in of_image.into_iter().chain(given) {
        match places.get(name(&pair)).copied().and_then(|place| env.get_mut(place)) {
            Some(known) => *known = pair,
            None => {
                places.insert(name(&pair).to_owned(), env.len());
                env.push(pair);
            }
        }
    }
    Ok(env)
}

fn name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

fn working_dir(config: &v1::ContainerConfig, image: Option<&ImageConfig>) -> PathBuf {
    let of_image = image.and_then(|image| image.working_dir().as_deref()).unwrap_or_default();
    let dir = if config.working_dir.is_empty() { of_image } else { &config.working_dir };
    Path::new("/").join(dir)
}

fn user(security: &v1::LinuxContainerSecurityContext, image: Option<&ImageConfig>) -> Result<UserSpec, PlanError> {
    let number = |value: i64| u32::try_from(value).map_err(|_| PlanError::Number(value));
    let (mut user, mut group) = (String::new(), None);
    if let Some(uid) = &security.run_as_user {
        user = number(uid.value)?.to_string();
    } else if !security.run_as_username.is_empty() {
        user = security.run_as_username.clone();
    } else if let Some(of_image) = image.and_then(|image| image.user().as_deref()) {
        let (name, of_group) = of_image.split_once(':').map_or((of_image, None), |(name, group)| (name, Some(group)));
        user = name.to_owned();
        group = of_group.filter(|group| !group.is_empty()).map(str::to_owned);
    }
    if let Some(gid) = &security.run_as_group {
        if user.is_empty() {
            return Err(PlanError::GroupWithoutUser);
        }
        group = Some(number(gid.value)?.to_string());
    }
    Ok(UserSpec {
        user,
        group,
        supplemental_groups: security.supplemental_groups.iter().map(|gid| number(*gid)).collect::<Result<_, _>>()?,
        merge_image_groups: security.supplemental_groups_policy() == v1::SupplementalGroupsPolicy::Merge,
    })
}

fn seccomp(
    security: &v1::LinuxContainerSecurityContext,
    localhost: Option<serde_json::Value>,
) -> Result<SeccompSpec, PlanError> {
    use v1::security_profile::ProfileType;
    if security.privileged {
        return Ok(SeccompSpec::Unconfined);
    }
    match security.seccomp.as_ref().map(v1::SecurityProfile::profile_type) {
        Some(ProfileType::Unconfined) => Ok(SeccompSpec::Unconfined),
        Some(ProfileType::Localhost) => {
            let profile = localhost.ok_or_else(|| PlanError::Seccomp("is not there".into()))?;
            crate::seccomp::check(&profile).map_err(PlanError::Seccomp)?;
            Ok(SeccompSpec::Localhost(profile))
        }
        Some(ProfileType::RuntimeDefault) | None => Ok(SeccompSpec::RuntimeDefault),
    }
}

/// Limits in our own words.
pub fn resources(from: &v1::LinuxContainerResources) -> Resources {
    Resources {
        cpu_period_us: from.cpu_period,
        cpu_quota_us: from.cpu_quota,
        cpu_shares: from.cpu_shares,
        memory_limit_bytes: from.memory_limit_in_bytes,
        memory_swap_limit_bytes: from.memory_swap_limit_in_bytes,
        cpuset_cpus: from.cpuset_cpus.clone(),
        cpuset_mems: from.cpuset_mems.clone(),
        hugepages: from.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
        unified: from.unified.iter().map(|(file, value)| (file.clone(), value.clone())).collect(),
    }
}

fn mounts(input: &Input, privileged: bool, readonly_rootfs: bool) -> Result<Vec<MountSpec>, PlanError> {
    let plain = |destination: &str, kind, readonly| MountSpec { destination: destination.into(), kind, readonly };
    let mut defaults = vec![
        plain("/proc", MountKind::Proc, false),
        plain("/dev", MountKind::Dev, false),
        plain("/dev/pts", MountKind::Devpts, false),
        plain("/dev/mqueue", MountKind::Mqueue, false),
        plain("/sys", MountKind::Sysfs, !privileged),
        plain("/sys/fs/cgroup", MountKind::Cgroup, !privileged),
        plain("/dev/shm", MountKind::Shm, false),
    ];
    for (destination, file) in
        [("/etc/resolv.conf", "resolv.conf"), ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")]
    {
        let kind = MountKind::Bind {
            source: input.sandbox_dir.join(file),
            propagation: Propagation::Private,
            recursive_readonly: false,
        };
        defaults.push(plain(destination, kind, readonly_rootfs));
    }
    let mut given = Vec::with_capacity(input.config.mounts.len());
    for mount in &input.config.mounts {
        given.push(one_mount(mount, &input.volumes)?);
    }
    // Outer mounts first, whatever order they were given in.
    given.sort_by_key(|mount| mount.destination.components().count());
    let own_dev = given.iter().any(|mount| mount.destination == Path::new("/dev"));
    defaults.retain(|default| {
        let replaced = given.iter().any(|mount| mount.destination == default.destination);
        let in_own_dev = own_dev && default.destination.starts_with("/dev");
        !(replaced || in_own_dev)
    });
    defaults.append(&mut given);
    Ok(defaults)
}

fn one_mount(mount: &v1::Mount, volumes: &HashMap<String, Vec<PathBuf>>) -> Result<MountSpec, PlanError> {
    let bad = || PlanError::MountPath(mount.container_path.clone());
    let given = Path::new(&mount.container_path);
    if given.components().any(|part| part == std::path::Component::ParentDir) || mount.container_path.is_empty() {
        return Err(bad());
    }
    // Collected again without "." and doubled slashes; relative paths count from the root.
    let destination: PathBuf = Path::new("/").join(given).components().collect();
    let kind = match &mount.image {
        Some(image) => MountKind::Image {
            lowers: volumes.get(&image.image).cloned().ok_or_else(bad)?,
            sub_path: mount.image_sub_path.trim_start_matches('/').into(),
        },
        None => MountKind::Bind {
            source: mount.host_path.clone().into(),
            propagation: match mount.propagation() {
                v1::MountPropagation::PropagationPrivate => Propagation::Private,
                v1::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
                v1::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
            },
            recursive_readonly: mount.recursive_read_only,
        },
    };
    Ok(MountSpec { destination, kind, readonly: mount.readonly })
}

/// The number of the signal that asks a container to end.
fn stop_signal(config: &v1::ContainerConfig, image: Option<&ImageConfig>) -> Result<i32, PlanError> {
    let given = config.stop_signal();
    let name = match given {
        v1::Signal::RuntimeDefault => {
            image.and_then(|image| image.stop_signal().clone()).filter(|name| !name.is_empty())
        }
        _ => Some(given.as_str_name().trim_start_matches("SIGNAL_").to_owned()),
    };
    match name {
        None => Ok(libc::SIGTERM),
        Some(name) => signals::number(&name).ok_or(PlanError::Signal(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use images::ImageConfiguration;

    fn image(json: serde_json::Value) -> ImageConfig {
        let whole = serde_json::json!({"architecture": "amd64", "os": "linux", "config": json,
            "rootfs": {"type": "layers", "diff_ids": []}});
        serde_json::from_value::<ImageConfiguration>(whole).unwrap().config().clone().unwrap()
    }

    fn plan(config: v1::ContainerConfig, image: Option<&ImageConfig>) -> Result<ContainerSpec, PlanError> {
        container(Input {
            id: "c1",
            dir: Path::new("/c"),
            sandbox_dir: Path::new("/s"),
            sandbox: &v1::PodSandboxConfig {
                hostname: "web-0".into(),
                log_directory: "/var/log/pods/x".into(),
                ..Default::default()
            },
            config: &config,
            image,
            rootfs: RootfsSpec {
                base: "/l".into(),
                lowers: vec!["b".into(), "a".into()],
                upper: "/u".into(),
                work: "/w".into(),
                target: "/c/rootfs".into(),
                readonly: false,
            },
            cgroup_parent: "/kubepods/pod1/",
            node_hostname: "node",
            devices: Vec::new(),
            volumes: HashMap::new(),
            localhost_profile: None,
        })
    }

    #[test]
    fn command_and_arguments_follow_the_image() {
        let image = image(serde_json::json!({"Entrypoint": ["/entry"], "Cmd": ["a", "b"]}));
        let config = |command: &[&str], args: &[&str]| v1::ContainerConfig {
            command: command.iter().map(|text| text.to_string()).collect(),
            args: args.iter().map(|text| text.to_string()).collect(),
            ..Default::default()
        };
        for (command, args, expected) in [
            (&[][..], &[][..], &["/entry", "a", "b"][..]),
            (&[], &["x"], &["/entry", "x"]),
            (&["/own"], &[], &["/own"]),
            (&["/own"], &["x"], &["/own", "x"]),
        ] {
            assert_eq!(plan(config(command, args), Some(&image)).unwrap().process.args, expected);
        }
        assert_eq!(plan(config(&[], &[]), None), Err(PlanError::NoCommand));
    }

    #[test]
    fn the_environment_is_layered() {
        let image = image(serde_json::json!({"Cmd": ["x"], "Env": ["PATH=/bin", "A=1", "B=2"]}));
        let config = v1::ContainerConfig {
            envs: vec![v1::KeyValue { key: "A".into(), value: b"3".to_vec() }],
            tty: true,
            ..Default::default()
        };
        let spec = plan(config, Some(&image)).unwrap();
        assert_eq!(spec.process.env, ["PATH=/bin", "HOSTNAME=web-0", "TERM=xterm", "A=3", "B=2"]);
        assert_eq!(spec.cgroup.path, "/kubepods/pod1/c1");
        assert_eq!(spec.log_path, None);
    }

    #[test]
    fn mounts_replace_defaults_and_go_outside_in() {
        let mount =
            |path: &str| v1::Mount { container_path: path.into(), host_path: "/h".into(), ..Default::default() };
        let config = v1::ContainerConfig {
            command: vec!["x".into()],
            mounts: vec![mount("/a/b/c"), mount("/a//"), mount("/dev"), mount("/etc/hosts")],
            ..Default::default()
        };
        let spec = plan(config, None).unwrap();
        let destinations: Vec<_> = spec.mounts.iter().map(|mount| mount.destination.to_str().unwrap()).collect();
        assert_eq!(
            destinations,
            [
                "/proc",
                "/sys",
                "/sys/fs/cgroup",
                "/etc/resolv.conf",
                "/etc/hostname",
                "/a",
                "/dev",
                "/etc/hosts",
                "/a/b/c"
            ]
        );
        let escape = v1::ContainerConfig {
            command: vec!["x".into()],
            mounts: vec![mount("/a/../../etc")],
            ..Default::default()
        };
        assert!(matches!(plan(escape, None), Err(PlanError::MountPath(_))));
    }

    #[test]
    fn users_come_from_the_pod_or_the_image() {
        let of_image = image(serde_json::json!({"User": "app:staff"}));
        let with = |security| user(&security, Some(&of_image));
        let plain = with(v1::LinuxContainerSecurityContext::default()).unwrap();
        assert_eq!((plain.user.as_str(), plain.group.as_deref()), ("app", Some("staff")));
        let security = v1::LinuxContainerSecurityContext {
            run_as_user: Some(v1::Int64Value { value: 7 }),
            run_as_group: Some(v1::Int64Value { value: 8 }),
            ..Default::default()
        };
        let given = with(security).unwrap();
        assert_eq!((given.user.as_str(), given.group.as_deref()), ("7", Some("8")));
        let negative =
            v1::LinuxContainerSecurityContext { run_as_user: Some(v1::Int64Value { value: -1 }), ..Default::default() };
        assert_eq!(with(negative), Err(PlanError::Number(-1)));
    }

    #[test]
    fn stop_signals() {
        let of_image = image(serde_json::json!({"StopSignal": "SIGQUIT"}));
        let config = v1::ContainerConfig::default();
        assert_eq!(stop_signal(&config, None), Ok(libc::SIGTERM));
        assert_eq!(stop_signal(&config, Some(&of_image)), Ok(libc::SIGQUIT));
        let given = v1::ContainerConfig { stop_signal: v1::Signal::Sighup as i32, ..Default::default() };
        assert_eq!(stop_signal(&given, Some(&of_image)), Ok(libc::SIGHUP));
    }
}
