//! What a machine must have, asked before anything is written: each lack is one line that says how to mend it.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

/// What this machine lacks, in the words for its administrator.
pub struct Lacks(Vec<String>);

/// What is about to be started.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// The API server's address, on a server.
    pub api: Option<SocketAddr>,
    /// The etcd API's, on a server that serves it.
    pub etcd: Option<SocketAddr>,
    pub node: bool,
}

pub const KUBELET_PORT: u16 = 10250;

/// Looks at the machine; changes nothing.
pub fn check(wanted: Wanted) -> Result<(), Lacks> {
    let mut lacks = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        return Err(Lacks(vec!["cluster must run as root: start it with sudo".to_owned()]));
    }
    if let Some(address) = wanted.api {
        lacks.extend(port_in_use(address, "--https-listen-port chooses another"));
    }
    if let Some(address) = wanted.etcd {
        lacks.extend(port_in_use(address, "--etcd-listen-port chooses another, or none with 0"));
    }
    if wanted.node {
        let address = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), KUBELET_PORT);
        lacks.extend(port_in_use(address, "the kubelet needs it; is another kubelet running?"));
        lacks.extend(network::check().into_iter().map(|missing| missing.to_string()));
        lacks.extend(missing_overlayfs());
        lacks.extend(missing_cgroups());
    }
    if lacks.is_empty() { Ok(()) } else { Err(Lacks(lacks)) }
}

fn port_in_use(address: SocketAddr, mend: &str) -> Option<String> {
    match TcpListener::bind(address) {
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Some(format!("port {} is in use: `ss -ltnp` names the program that has it; {mend}", address.port()))
        }
        Err(error) => Some(format!("cannot listen on {address}: {error}; --bind-address chooses another address")),
    }
}

fn missing_overlayfs() -> Option<String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return None;
    }
    // It may be a module that is loaded when it is first used.
    let release = nix::sys::utsname::uname().map(|uname| uname.release().to_string_lossy().into_owned());
    let modules = format!("/lib/modules/{}/kernel/fs/overlayfs", release.unwrap_or_default());
    (!Path::new(&modules).exists())
        .then(|| "the kernel has no overlayfs: use one with CONFIG_OVERLAY_FS, or load the module `overlay`".to_owned())
}

fn missing_cgroups() -> Option<String> {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let controllers = if v2.exists() {
        std::fs::read_to_string(v2).unwrap_or_default()
    } else {
        std::fs::read_dir("/sys/fs/cgroup")
            .map(|entries| {
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned() + " ").collect()
            })
            .unwrap_or_default()
    };
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split([' ', ',', '\n']).any(|found| found == *wanted))
        .collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "the cgroup controllers {} are missing: mount cgroups at /sys/fs/cgroup, and on a Raspberry Pi add \
         `cgroup_enable=memory cgroup_memory=1` to /boot/firmware/cmdline.txt",
        missing.join(", ")
    ))
}

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}
