//! Control groups, unified (v2) and split (v1), by their files ("cgroupfs" driver).
//!
//! A group is named by its path from the root, the same in every hierarchy. On a hybrid machine the v1
//! controllers are used; in the v2 tree, which then has none, processes are only put where they belong, since an
//! init that goes by it would else take them for those of the service that started them.

mod device;
mod limits;
mod stats;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use limits::Write;
pub use stats::Stats;

use crate::spec::{CgroupSpec, Resources};

/// How long a group that should be empty is given before its removal fails.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);
/// How often all processes are killed again while new ones appear.
const KILL_ROUNDS: u32 = 50;

/// Where the machine's hierarchies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    Unified(PathBuf),
    /// Each mount with its controllers (or `name=...`); the v2 tree of a hybrid machine has none.
    Split(Vec<(Vec<String>, PathBuf)>),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no cgroup hierarchy is mounted under /sys/fs/cgroup")]
    None,
    #[error("cgroup {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cgroup {0:?} is not an absolute path without \"..\"")]
    BadPath(String),
}

impl Hierarchy {
    /// Looks at what is mounted.
    pub fn detect() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        let text =
            fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
        Self::from_mountinfo(&text).ok_or(Error::None)
    }

    fn from_mountinfo(text: &str) -> Option<Self> {
        let mut split = Vec::new();
        let mut unified = None;
        for line in text.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let Some(target) = front.split(' ').nth(4) else { continue };
            let mut back = back.split(' ');
            let (kind, options) = (back.next().unwrap_or_default(), back.nth(1).unwrap_or_default());
            if !target.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match kind {
                "cgroup2" if target == "/sys/fs/cgroup" => return Some(Self::Unified(target.into())),
                "cgroup2" => unified = unified.or(Some(target)),
                "cgroup" => {
                    let flags = ["rw", "ro", "xattr", "noprefix", "clone_children"];
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| !flags.contains(option) && !option.starts_with("release_agent"))
                        .map(str::to_owned)
                        .collect();
                    if !split.iter().any(|(_, path)| path == Path::new(target)) {
                        split.push((controllers, target.into()));
                    }
                }
                _ => {}
            }
        }
        if split.is_empty() {
            return None;
        }
        split.extend(unified.map(|path| (Vec::new(), path.into())));
        Some(Self::Split(split))
    }

    /// The directory of group `path` for a v1 `controller`; on v2 there is one for all.
    pub fn dir(&self, path: &str, controller: &str) -> Option<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Self::Unified(root) => Some(root.join(relative)),
            Self::Split(mounts) => mounts
                .iter()
                .find(|(controllers, _)| controllers.iter().any(|name| name == controller))
                .map(|(_, root)| root.join(relative)),
        }
    }

    /// The directories of group `path` in all hierarchies.
    pub fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Self::Unified(root) => vec![root.join(relative)],
            Self::Split(mounts) => mounts.iter().map(|(_, root)| root.join(relative)).collect(),
        }
    }

    /// Makes the group and its parents, and sets its limits. Returns the topmost group that was missing, if any.
    pub fn create(&self, spec: &CgroupSpec) -> Result<(), Error> {
        self.make(&spec.path)?;
        self.update(&spec.path, &spec.resources)?;
        match self {
            Self::Unified(root) => device::restrict(&root.join(spec.path.trim_start_matches('/')), spec),
            Self::Split(_) => match self.dir(&spec.path, "devices") {
                Some(dir) => apply(&dir, &limits::devices_v1(spec)),
                None => Ok(()),
            },
        }
    }

    /// Makes the group and its parents, each with the controllers of the one above.
    pub fn make(&self, path: &str) -> Result<(), Error> {
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(Error::BadPath(path.to_owned()));
        }
        match self {
            Self::Unified(root) => {
                let mut dir = root.clone();
                for part in path.split('/').filter(|part| !part.is_empty()) {
                    enable_controllers(&dir);
                    dir.push(part);
                    make_dir(&dir)?;
                }
            }
            Self::Split(mounts) => {
                for (controllers, root) in mounts {
                    let mut dir = root.clone();
                    for part in path.split('/').filter(|part| !part.is_empty()) {
                        dir.push(part);
                        if make_dir(&dir)? && controllers.iter().any(|name| name == "cpuset") {
                            inherit_cpuset(&dir)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes limits; what is "not set" stays as it is.
    pub fn update(&self, path: &str, resources: &Resources) -> Result<(), Error> {
        match self {
            Self::Unified(root) => apply(&root.join(path.trim_start_matches('/')), &limits::v2(resources)),
            Self::Split(_) => {
                for (controller, writes) in limits::v1(resources) {
                    let Some(dir) = self.dir(path, controller) else { continue };
                    if controller == "memory" {
                        apply_memory_v1(&dir, &writes)?;
                    } else {
                        apply(&dir, &writes)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Puts the calling process into the group.
    pub fn join(&self, path: &str) -> Result<(), Error> {
        for dir in self.dirs(path) {
            let file = dir.join("cgroup.procs");
            fs::write(&file, "0").map_err(|source| Error::Io { action: "join", path: file, source })?;
        }
        Ok(())
    }

    /// On v2, the group as a descriptor to start a process in.
    pub fn unified_fd(&self, path: &str) -> Option<OwnedFd> {
        match self {
            Self::Unified(root) => fs::File::open(root.join(path.trim_start_matches('/'))).ok().map(OwnedFd::from),
            Self::Split(_) => None,
        }
    }

    /// Kills every process of the group and waits, briefly, until they are gone.
    pub fn kill(&self, path: &str) {
        if let Self::Unified(root) = self
            && fs::write(root.join(path.trim_start_matches('/')).join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for _ in 0..KILL_ROUNDS {
            let pids = self.pids(path);
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
    }

    /// The processes of the group itself.
    pub fn pids(&self, path: &str) -> Vec<i32> {
        let dir = self.dir(path, "pids").or_else(|| self.dirs(path).into_iter().next());
        let text = dir.and_then(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect()
    }

    /// How many processes of the group the kernel killed for want of memory.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let Some(dir) = self.dir(path, "memory") else { return 0 };
        let file = match self {
            Self::Unified(_) => "memory.events",
            Self::Split(_) => "memory.oom_control",
        };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        stats::field(&text, "oom_kill").unwrap_or(0)
    }

    /// Removes the empty group from every hierarchy. One that is not there is no error.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        for dir in self.dirs(path) {
            remove_dir(&dir)?;
        }
        Ok(())
    }

    /// Removes the group with all groups below it, killing what runs in them.
    pub fn remove_tree(&self, path: &str) -> Result<(), Error> {
        for dir in self.dirs(path) {
            let mut below: Vec<PathBuf> = Vec::new();
            collect_dirs(&dir, &mut below);
            for dir in below.iter().rev() {
                let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1) {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
                }
                remove_dir(dir)?;
            }
        }
        Ok(())
    }

    /// Removes the group if it exists and has neither processes nor children; else does nothing.
    pub fn remove_if_empty(&self, path: &str) {
        for dir in self.dirs(path) {
            let _ = fs::remove_dir(dir);
        }
    }

    /// The same, but only in hierarchies without controllers: who makes groups to limit them does not know those.
    pub fn remove_unlimited_if_empty(&self, path: &str) {
        let Self::Split(mounts) = self else { return };
        let relative = path.trim_start_matches('/');
        for (controllers, root) in mounts {
            if controllers.iter().all(|name| name.starts_with("name=")) {
                let _ = fs::remove_dir(root.join(relative));
            }
        }
    }

    pub fn exists(&self, path: &str) -> bool {
        self.dirs(path).iter().any(|dir| dir.exists())
    }

    pub fn stats(&self, path: &str) -> Stats {
        match self {
            Self::Unified(root) => stats::v2(&root.join(path.trim_start_matches('/'))),
            Self::Split(_) => stats::v1(&|controller| self.dir(path, controller)),
        }
    }
}

fn collect_dirs(dir: &Path, into: &mut Vec<PathBuf>) {
    if !dir.is_dir() {
        return;
    }
    into.push(dir.to_owned());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_dirs(&entry.path(), into);
        }
    }
}

/// Whether the directory was missing.
fn make_dir(dir: &Path) -> Result<bool, Error> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(Error::Io { action: "create", path: dir.to_owned(), source }),
    }
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    let mut tries = REMOVE_TRIES;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Processes that were killed may take a moment to leave.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries > 0 => {
                tries -= 1;
                std::thread::sleep(REMOVE_PAUSE);
            }
            Err(source) => return Err(Error::Io { action: "remove", path: dir.to_owned(), source }),
        }
    }
}

/// Hands all controllers of `dir` to its children. Best effort: a controller that cannot be handed on is then
/// missing below, and setting its limit says so.
fn enable_controllers(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in available.split_whitespace() {
        if !enabled.split_whitespace().any(|name| name == controller) {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

/// A new v1 cpuset has no CPUs and no memory nodes; nothing can run in it until it does.
fn inherit_cpuset(dir: &Path) -> Result<(), Error> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(file);
        let value = fs::read_to_string(parent.join(file)).unwrap_or_default();
        fs::write(&path, value.trim()).map_err(|source| Error::Io { action: "write", path, source })?;
    }
    Ok(())
}

fn apply(dir: &Path, writes: &[Write]) -> Result<(), Error> {
    for write in writes {
        let path = dir.join(&write.file);
        match fs::write(&path, &write.value) {
            Ok(()) => {}
            Err(error) if write.optional && error.kind() == io::ErrorKind::NotFound => {}
            // Writing to a file of /sys/fs/cgroup that does not exist is refused as "permission denied".
            Err(_) if write.optional && !path.exists() => {}
            Err(source) => return Err(Error::Io { action: "write", path, source }),
        }
    }
    Ok(())
}

/// v1 refuses memory > memory+swap at any moment, so the order depends on whether the limits grow or shrink.
fn apply_memory_v1(dir: &Path, writes: &[Write]) -> Result<(), Error> {
    match apply(dir, writes) {
        Ok(()) => Ok(()),
        Err(_) => {
            let reversed: Vec<Write> = writes.iter().rev().cloned().collect();
            apply(dir, &reversed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let unified = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchy::from_mountinfo(unified), Some(Hierarchy::Unified("/sys/fs/cgroup".into())));
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchy::from_mountinfo(hybrid).unwrap();
        assert_eq!(found.dir("/a/b", "cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b".into()));
        assert_eq!(found.dir("/a/b", "name=systemd"), Some("/sys/fs/cgroup/systemd/a/b".into()));
        assert_eq!(found.dir("/a/b", "memory"), None);
        let all = ["cpu,cpuacct", "systemd", "unified"].map(|name| Path::new("/sys/fs/cgroup").join(name).join("a"));
        assert_eq!(found.dirs("/a"), all, "the v2 tree comes along, last");
        assert_eq!(Hierarchy::from_mountinfo("22 27 0:21 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn a_path_that_leaves_the_tree_is_refused() {
        let here = Hierarchy::Unified("/nonexistent".into());
        assert!(matches!(here.make("/a/../../b"), Err(Error::BadPath(_))));
        assert!(matches!(here.make("a"), Err(Error::BadPath(_))));
    }
}
