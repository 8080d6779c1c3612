//! The cgroups of pods: `<root>/kubepods/[burstable|besteffort/]pod<uid>`, in every hierarchy that the node has.
//!
//! The runtime puts containers below their pod's cgroup; here the levels above are made and limited: cpu shares by
//! quality of service, memory, cpu and pids of a whole pod. Version 1, version 2 and the hybrid of both are told apart by what
//! is mounted. Writes that a kernel refuses are logged and not fatal: a pod with a missing limit beats no pod.
//!
//! Limitations: no reservations for the system (`--enforce-node-allocatable` is `none`), no swap.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::containers::resources::{PodResources, Qos, pod_resources};
use crate::objects::PodExt;

/// The kernel's view of what is mounted where.
const MOUNTS: &str = "/proc/self/mounts";
const V1_CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio"];
const V2_CONTROLLERS: &str = "+cpu +memory +pids +io +cpuset";

/// The hierarchies of a node and our place in them.
#[derive(Clone, Debug)]
pub struct Cgroups {
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
    /// Above `kubepods`, without slashes at the ends; may be empty.
    root: String,
    pids_max: Option<u64>,
}

impl Cgroups {
    /// Finds what is mounted. `root` sets several nodes on one machine apart.
    pub fn find(root: &str, pids_max: Option<u64>) -> io::Result<Cgroups> {
        let mounts = std::fs::read_to_string(MOUNTS)?;
        let (v1, v2) = hierarchies(&mounts);
        // An empty version 2 beside version 1 has nothing to limit with.
        let v2 = v2.filter(|_| v1.is_empty());
        Ok(Cgroups { v1, v2, root: root.trim_matches('/').to_owned(), pids_max })
    }

    /// No hierarchies at all, for tests.
    #[cfg(test)]
    pub fn none() -> Cgroups {
        Cgroups { v1: vec![], v2: None, root: String::new(), pids_max: None }
    }

    /// The pod's cgroup, as CRI's `cgroup_parent` wants it.
    pub fn parent_of(&self, pod: &Pod) -> String {
        format!("{}/pod{}", self.qos_path(Qos::of(pod)), pod.uid())
    }

    fn kubepods(&self) -> String {
        if self.root.is_empty() { "/kubepods".to_owned() } else { format!("/{}/kubepods", self.root) }
    }

    fn qos_path(&self, qos: Qos) -> String {
        match qos {
            Qos::Guaranteed => self.kubepods(),
            Qos::Burstable => format!("{}/burstable", self.kubepods()),
            Qos::BestEffort => format!("{}/besteffort", self.kubepods()),
        }
    }

    /// Makes the levels that all pods share.
    pub fn prepare(&self) -> io::Result<()> {
        for (qos, shares) in [(Qos::Guaranteed, None), (Qos::Burstable, None), (Qos::BestEffort, Some(2))] {
            let path = self.qos_path(qos);
            self.make(&path)?;
            let settings = PodResources { cpu_shares: shares.unwrap_or(0), ..PodResources::default() };
            self.limit(&path, settings, None);
        }
        Ok(())
    }

    /// Makes a pod's cgroup with its limits. Idempotent.
    pub fn create(&self, pod: &Pod) -> io::Result<()> {
        let path = self.parent_of(pod);
        self.make(&path)?;
        self.limit(&path, pod_resources(pod), self.pids_max);
        Ok(())
    }

    /// Removes a pod's cgroup and what the runtime left in it. Processes that are still there keep it, as an error.
    pub fn remove(&self, pod: &Pod) -> io::Result<()> {
        let path = self.parent_of(pod);
        self.directories(&path).try_for_each(|directory| remove_tree(&directory))
    }

    fn directories(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        let relative = path.trim_start_matches('/').to_owned();
        let bases: Vec<PathBuf> = self.v1.iter().map(|(_, base)| base.clone()).chain(self.v2.clone()).collect();
        bases.into_iter().map(move |base| base.join(&relative))
    }

    fn make(&self, path: &str) -> io::Result<()> {
        let relative = path.trim_start_matches('/');
        for (controller, base) in &self.v1 {
            let mut directory = base.clone();
            for part in relative.split('/') {
                let above = directory.clone();
                directory.push(part);
                make_one(&directory)?;
                if controller.split(',').any(|one| one == "cpuset") {
                    inherit_cpuset(&above, &directory);
                }
            }
        }
        if let Some(base) = &self.v2 {
            let mut directory = base.clone();
            for part in relative.split('/') {
                // Controllers reach a level only when the level above passes them on, one by one if need be.
                for controller in V2_CONTROLLERS.split(' ') {
                    write(&directory.join("cgroup.subtree_control"), controller);
                }
                directory.push(part);
                make_one(&directory)?;
            }
            for controller in V2_CONTROLLERS.split(' ') {
                write(&directory.join("cgroup.subtree_control"), controller);
            }
        }
        Ok(())
    }

    fn limit(&self, path: &str, resources: PodResources, pids_max: Option<u64>) {
        let relative = path.trim_start_matches('/');
        for (controller, base) in &self.v1 {
            let directory = base.join(relative);
            for (file, value) in settings_v1(controller, resources, pids_max) {
                write(&directory.join(file), &value);
            }
        }
        if let Some(base) = &self.v2 {
            let directory = base.join(relative);
            for (file, value) in settings_v2(resources, pids_max) {
                write(&directory.join(file), &value);
            }
        }
    }
}

/// Version 1 mount points by controller, and version 2's.
fn hierarchies(mounts: &str) -> (Vec<(String, PathBuf)>, Option<PathBuf>) {
    let mut v1: Vec<(String, PathBuf)> = Vec::new();
    let mut v2 = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        match kind {
            "cgroup2" => v2 = v2.or(Some(PathBuf::from(point))),
            "cgroup" => {
                let controllers: Vec<&str> = options.split(',').filter(|one| V1_CONTROLLERS.contains(one)).collect();
                let controllers = controllers.join(",");
                if !controllers.is_empty() && !v1.iter().any(|(known, _)| *known == controllers) {
                    v1.push((controllers, PathBuf::from(point)));
                }
            }
            _ => {}
        }
    }
    (v1, v2)
}

fn settings_v1(controllers: &str, resources: PodResources, pids_max: Option<u64>) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    for controller in controllers.split(',') {
        match controller {
            "cpu" => {
                if resources.cpu_shares > 0 {
                    settings.push(("cpu.shares", resources.cpu_shares.to_string()));
                }
                if resources.cpu_quota > 0 {
                    settings.push(("cpu.cfs_period_us", resources.cpu_period.to_string()));
                    settings.push(("cpu.cfs_quota_us", resources.cpu_quota.to_string()));
                }
            }
            "memory" if resources.memory_limit_bytes > 0 => {
                settings.push(("memory.limit_in_bytes", resources.memory_limit_bytes.to_string()));
            }
            "pids" => settings.extend(pids_max.map(|max| ("pids.max", max.to_string()))),
            _ => {}
        }
    }
    settings
}

fn settings_v2(resources: PodResources, pids_max: Option<u64>) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if resources.cpu_shares > 0 {
        settings.push(("cpu.weight", weight(resources.cpu_shares).to_string()));
    }
    if resources.cpu_quota > 0 {
        settings.push(("cpu.max", format!("{} {}", resources.cpu_quota, resources.cpu_period)));
    }
    if resources.memory_limit_bytes > 0 {
        settings.push(("memory.max", resources.memory_limit_bytes.to_string()));
    }
    settings.extend(pids_max.map(|max| ("pids.max", max.to_string())));
    settings
}

/// Shares (2 to 262144) on version 2's scale (1 to 10000), as upstream maps them.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn make_one(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

/// A new version 1 cpuset is empty and takes no process until it is filled.
fn inherit_cpuset(above: &Path, directory: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let is_empty = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.trim().is_empty());
        if is_empty(&directory.join(file))
            && let Ok(value) = std::fs::read_to_string(above.join(file))
        {
            write(&directory.join(file), value.trim());
        }
    }
}

fn write(path: &Path, value: &str) {
    if let Err(error) = std::fs::write(path, value) {
        tracing::debug!(path = %path.display(), value, %error, "cgroup setting not accepted");
    }
}

/// Depth first; the files of a cgroup are the kernel's and go with it.
fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    #[test]
    fn hierarchies_are_found() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nbroken\n";
        let (v1, v2) = hierarchies(hybrid);
        assert_eq!(v1.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cpu,cpuacct", "memory"]);
        assert_eq!(v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_pods_cgroup_is_made_limited_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let base = |name: &str| {
            let base = directory.path().join(name);
            std::fs::create_dir(&base).unwrap();
            base
        };
        let cgroups = Cgroups {
            v1: vec![("cpu".to_owned(), base("cpu")), ("memory".to_owned(), base("memory"))],
            v2: None,
            root: "node-a".to_owned(),
            pids_max: None,
        };
        let pod = pod(json!({"spec": {"containers": [{"name": "c", "resources":
            {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}}));
        assert_eq!(cgroups.parent_of(&pod), "/node-a/kubepods/burstable/poduid-1");
        cgroups.prepare().unwrap();
        cgroups.create(&pod).unwrap();
        let read = |path: &str| {
            std::fs::read_to_string(directory.path().join(path.replace("POD", "node-a/kubepods/burstable/poduid-1")))
                .unwrap()
        };
        assert_eq!(read("cpu/POD/cpu.shares"), "256");
        assert_eq!(read("cpu/POD/cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory/POD/memory.limit_in_bytes"), (64 << 20).to_string());
        // In a real cgroup the files vanish with the directory.
        for file in ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"] {
            std::fs::remove_file(directory.path().join("cpu/node-a/kubepods/burstable/poduid-1").join(file)).unwrap();
        }
        let memory = directory.path().join("memory/node-a/kubepods/burstable/poduid-1/memory.limit_in_bytes");
        std::fs::remove_file(memory).unwrap();
        cgroups.remove(&pod).unwrap();
        cgroups.remove(&pod).unwrap();
        assert!(!directory.path().join("cpu/node-a/kubepods/burstable/poduid-1").exists());
    }

    #[test]
    fn version_two_has_other_units() {
        let settings = settings_v2(
            PodResources { cpu_shares: 1024, cpu_quota: 50_000, cpu_period: 100_000, memory_limit_bytes: 1 },
            Some(5),
        );
        let settings: Vec<String> = settings.into_iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(settings, ["cpu.weight=39", "cpu.max=50000 100000", "memory.max=1", "pids.max=5"]);
    }
}
