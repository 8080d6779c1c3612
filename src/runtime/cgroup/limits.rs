//! Which value goes into which file, for both versions. Pure.

use crate::spec::{CgroupSpec, Resources};

/// A file of a group and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub file: String,
    pub value: String,
    /// Whether a kernel without this file is fine.
    pub optional: bool,
}

const CPU_PERIOD_DEFAULT_US: i64 = 100_000;
/// Bounds of `cpu.shares` (v1) and `cpu.weight` (v2).
const SHARES: (i64, i64) = (2, 262_144);

/// Devices that every container may use: null, zero, full, random, urandom, tty, console, ptmx and the ptys.
pub const DEVICES: [(char, u64, Option<u64>); 9] = [
    ('c', 1, Some(3)),
    ('c', 1, Some(5)),
    ('c', 1, Some(7)),
    ('c', 1, Some(8)),
    ('c', 1, Some(9)),
    ('c', 5, Some(0)),
    ('c', 5, Some(1)),
    ('c', 5, Some(2)),
    ('c', 136, None),
];

fn must(file: impl Into<String>, value: impl ToString) -> Write {
    Write { file: file.into(), value: value.to_string(), optional: false }
}

fn may(file: impl Into<String>, value: impl ToString) -> Write {
    Write { file: file.into(), value: value.to_string(), optional: true }
}

/// Writes for v1, by controller.
pub fn v1(resources: &Resources) -> Vec<(&'static str, Vec<Write>)> {
    let mut cpu = Vec::new();
    if resources.cpu_shares > 0 {
        cpu.push(must("cpu.shares", resources.cpu_shares));
    }
    if resources.cpu_period_us > 0 {
        cpu.push(must("cpu.cfs_period_us", resources.cpu_period_us));
    }
    if resources.cpu_quota_us != 0 {
        cpu.push(must("cpu.cfs_quota_us", resources.cpu_quota_us.max(-1)));
    }
    let mut memory = Vec::new();
    if resources.memory_limit_bytes != 0 {
        memory.push(must("memory.limit_in_bytes", resources.memory_limit_bytes));
    }
    if resources.memory_swap_limit_bytes != 0 {
        memory.push(may("memory.memsw.limit_in_bytes", resources.memory_swap_limit_bytes));
    }
    let mut cpuset = Vec::new();
    if !resources.cpuset_cpus.is_empty() {
        cpuset.push(must("cpuset.cpus", &resources.cpuset_cpus));
    }
    if !resources.cpuset_mems.is_empty() {
        cpuset.push(must("cpuset.mems", &resources.cpuset_mems));
    }
    let hugetlb =
        resources.hugepages.iter().map(|(size, bytes)| may(format!("hugetlb.{size}.limit_in_bytes"), bytes)).collect();
    vec![("cpu", cpu), ("memory", memory), ("cpuset", cpuset), ("hugetlb", hugetlb)]
}

/// Writes for v2.
pub fn v2(resources: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    if resources.cpu_shares > 0 {
        writes.push(must("cpu.weight", weight(resources.cpu_shares)));
    }
    if resources.cpu_quota_us != 0 || resources.cpu_period_us > 0 {
        let period = if resources.cpu_period_us > 0 { resources.cpu_period_us } else { CPU_PERIOD_DEFAULT_US };
        let value = match resources.cpu_quota_us {
            quota if quota > 0 => format!("{quota} {period}"),
            _ => format!("max {period}"),
        };
        writes.push(must("cpu.max", value));
    }
    let limit = resources.memory_limit_bytes;
    if limit != 0 {
        writes.push(must("memory.max", if limit < 0 { "max".to_owned() } else { limit.to_string() }));
    }
    match resources.memory_swap_limit_bytes {
        0 => {}
        both if both < 0 => writes.push(may("memory.swap.max", "max")),
        // v2 counts swap apart from memory.
        both => writes.push(may("memory.swap.max", both.saturating_sub(limit.max(0)).max(0))),
    }
    if !resources.cpuset_cpus.is_empty() {
        writes.push(must("cpuset.cpus", &resources.cpuset_cpus));
    }
    if !resources.cpuset_mems.is_empty() {
        writes.push(must("cpuset.mems", &resources.cpuset_mems));
    }
    for (size, bytes) in &resources.hugepages {
        writes.push(may(format!("hugetlb.{size}.max"), bytes));
    }
    for (file, value) in &resources.unified {
        if !file.contains('/') {
            writes.push(must(file.clone(), value));
        }
    }
    writes
}

/// v1 shares as a v2 weight: the curve that runc and crun share since 2025, which maps 1024 shares to
/// weight 100 and keeps both ends.
fn weight(shares: i64) -> i64 {
    if shares <= SHARES.0 {
        return 1;
    }
    if shares >= SHARES.1 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as i64
}

/// Writes to the v1 devices controller.
pub fn devices_v1(spec: &CgroupSpec) -> Vec<Write> {
    if spec.all_devices {
        return vec![must("devices.allow", "a")];
    }
    let mut writes = vec![must("devices.deny", "a")];
    // Any node may be made; only those listed may be used.
    writes.push(must("devices.allow", "c *:* m"));
    writes.push(must("devices.allow", "b *:* m"));
    for (kind, major, minor) in DEVICES {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        writes.push(must("devices.allow", format!("{kind} {major}:{minor} rwm")));
    }
    for (kind, major, minor, access) in &spec.devices {
        writes.push(must("devices.allow", format!("{kind} {major}:{minor} {access}")));
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_that_runc_documents() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (0, 1), (512, 59)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn v2_limits() {
        let resources = Resources {
            cpu_shares: 1024,
            cpu_quota_us: 50_000,
            memory_limit_bytes: 100,
            memory_swap_limit_bytes: 150,
            unified: [("memory.oom.group".to_owned(), "1".to_owned()), ("../x".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let lines: Vec<String> = v2(&resources).iter().map(|write| format!("{}={}", write.file, write.value)).collect();
        assert_eq!(
            lines,
            ["cpu.weight=100", "cpu.max=50000 100000", "memory.max=100", "memory.swap.max=50", "memory.oom.group=1"]
        );
    }

    #[test]
    fn nothing_set_writes_nothing() {
        assert!(v2(&Resources::default()).is_empty());
        assert!(v1(&Resources::default()).iter().all(|(_, writes)| writes.is_empty()));
    }
}
