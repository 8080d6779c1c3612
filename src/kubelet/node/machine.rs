//! What the machine is: processors, memory, disk, system. Read once when the process starts.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Config;
use crate::containers::fields::NodeFacts;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub swap_bytes: i64,
    pub ephemeral_storage_bytes: i64,
    /// Bytes reserved by page size, `2Mi` and so on.
    pub huge_pages: BTreeMap<String, i64>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: &'static str,
    /// `name://version`; empty until the runtime has answered.
    pub runtime_version: String,
}

impl Machine {
    /// `data_dir` exists: its file system holds what pods write.
    pub fn read(data_dir: &Path) -> Machine {
        let line = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let meminfo = line("/proc/meminfo");
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        let cpus = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
        let disk = nix::sys::statvfs::statvfs(data_dir);
        let disk_bytes = disk.map_or(0, |disk| disk.blocks().saturating_mul(disk.fragment_size()));
        Machine {
            cpus,
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            swap_bytes: meminfo_bytes(&meminfo, "SwapTotal"),
            ephemeral_storage_bytes: i64::try_from(disk_bytes).unwrap_or(i64::MAX),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
            architecture: architecture(std::env::consts::ARCH),
            runtime_version: String::new(),
        }
    }

    pub fn facts(&self, config: &Config) -> NodeFacts {
        NodeFacts {
            name: config.node_name.clone(),
            ips: config.node_ips.iter().map(std::net::IpAddr::to_string).collect(),
            cpu_milli: self.cpus.saturating_mul(1000).saturating_sub(config.reserved.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(config.reserved.memory_bytes),
            ephemeral_storage_bytes: self
                .ephemeral_storage_bytes
                .saturating_sub(config.reserved.ephemeral_storage_bytes),
        }
    }
}

fn meminfo_bytes(meminfo: &str, name: &str) -> i64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<i64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "Linux".to_owned())
}

fn huge_pages(dir: &Path) -> BTreeMap<String, i64> {
    let mut pages = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size =
            name.to_str().and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i64>().ok());
        let Some(size_bytes) = size.and_then(|kilobytes| kilobytes.checked_mul(1024)) else { continue };
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        let count = count.trim().parse::<i64>().unwrap_or(0);
        pages.insert(api::Quantity::bytes(size_bytes).to_string(), size_bytes.saturating_mul(count));
    }
    pages
}

fn architecture(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "riscv64" | "s390x" | "arm" => rust,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system() {
        assert_eq!(meminfo_bytes("MemTotal:       16 kB\nMemFree: 1 kB", "MemTotal"), 16 * 1024);
        assert_eq!(meminfo_bytes("", "MemTotal"), 0);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_image("garbage"), "Linux");
        let machine = Machine::read(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty());
    }
}
