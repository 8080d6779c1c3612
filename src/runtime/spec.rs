//! What the server asks of a shim: plain data, decided once and written as JSON. The shim only executes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pod sandbox: what the shim needs to know when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: String,
    /// Where the shim listens.
    pub socket: PathBuf,
    /// An existing directory that the shim may mount over in a mount namespace of its own.
    pub scratch: PathBuf,
    /// The shim's own group, which exists: absolute, from the root of each hierarchy.
    pub cgroup: String,
    /// Empty when the node's is used.
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
    /// A process ID namespace that all containers share, with the shim's own process 1.
    pub shared_pid: bool,
    /// Namespaced kernel parameters in `sysctl` form (dots).
    pub sysctls: BTreeMap<String, String>,
}

/// A container from its root filesystem to its first process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: String,
    /// Holds `status.json`; the server's, the shim writes the status.
    pub dir: PathBuf,
    pub rootfs: RootfsSpec,
    pub process: ProcessSpec,
    pub mounts: Vec<MountSpec>,
    pub devices: Vec<DeviceSpec>,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub pid: PidMode,
    pub stdin: bool,
    pub stdin_once: bool,
    /// Asks the first process to end.
    pub stop_signal: i32,
    /// Where the log goes in CRI format; none discards it.
    pub log_path: Option<PathBuf>,
    pub cgroup: CgroupSpec,
}

/// An overlay of `lowers` (topmost first). Paths may be relative to `base`, to keep the mount options short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsSpec {
    pub base: PathBuf,
    pub lowers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An existing directory to mount on; seen mounted only inside the container.
    pub target: PathBuf,
    pub readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    pub args: Vec<String>,
    /// `NAME=value`; later ones win.
    pub env: Vec<String>,
    /// Absolute; made if missing.
    pub cwd: PathBuf,
    pub user: UserSpec,
    pub capabilities: CapabilitySpec,
    pub no_new_privileges: bool,
    pub seccomp: SeccompSpec,
    /// (kernel's resource number, soft, hard)
    pub rlimits: Vec<(u32, u64, u64)>,
    pub oom_score_adj: Option<i32>,
    pub tty: bool,
}

/// Whom to run as; names are looked up in the container's own `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// A user name or number; empty is root.
    pub user: String,
    /// A group name or number; none is the user's primary group.
    pub group: Option<String>,
    pub supplemental_groups: Vec<u32>,
    /// Whether groups that name the user in `/etc/group` are added (`SupplementalGroupsPolicy: Merge`).
    pub merge_image_groups: bool,
}

/// Capability sets as bits. Permitted and effective are `bounding`; the kernel drops them for other users than root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySpec {
    pub bounding: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SeccompSpec {
    Unconfined,
    /// Our allow-list, widened by the container's capabilities.
    RuntimeDefault,
    /// A profile in the OCI runtime's JSON form.
    Localhost(serde_json::Value),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    pub destination: PathBuf,
    pub kind: MountKind,
    pub readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Proc,
    Sysfs,
    /// A tmpfs with the usual device nodes and links.
    Dev,
    Devpts,
    Mqueue,
    /// The pod's `/dev/shm`, or the node's when the pod uses its IPC namespace.
    Shm,
    Cgroup,
    Tmpfs {
        size: Option<String>,
        mode: u32,
    },
    Bind {
        source: PathBuf,
        propagation: Propagation,
        recursive_readonly: bool,
    },
    /// Another image's files, read-only (`lowers` topmost first, absolute).
    Image {
        lowers: Vec<PathBuf>,
        sub_path: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Private,
    HostToContainer,
    Bidirectional,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
}

/// Which process ID namespace a container runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    Container,
    Pod,
    Node,
    /// That of another container of the pod.
    Target(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Absolute, from the root of each hierarchy.
    pub path: String,
    pub resources: Resources,
    /// Every device allowed.
    pub all_devices: bool,
    /// What is allowed beside the defaults: (`c` or `b`, major, minor, letters of `rwm`).
    pub devices: Vec<(char, u64, u64, String)>,
}

/// Limits in the CRI's units; 0 and empty mean "not set".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub cpu_period_us: i64,
    pub cpu_quota_us: i64,
    pub cpu_shares: i64,
    pub memory_limit_bytes: i64,
    /// Memory and swap together; -1 is no limit.
    pub memory_swap_limit_bytes: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// (page size as in the controller's file names, bytes)
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2, written as they are.
    pub unified: BTreeMap<String, String>,
}

/// Who a process ran as, once looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// How far a container has come; kept in `status.json` by the shim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// 0 until started.
    pub pid: i32,
    pub started_at_ns: i64,
    /// 0 while it runs.
    pub finished_at_ns: i64,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`; empty while it runs.
    pub reason: String,
    pub message: String,
    pub identity: Option<Identity>,
}

impl ContainerStatus {
    pub fn is_running(&self) -> bool {
        self.pid != 0 && self.finished_at_ns == 0
    }
}
