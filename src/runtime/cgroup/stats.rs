//! What a group uses, read from its files. A file that is missing counts as zero.

use std::fs;
use std::path::{Path, PathBuf};

/// Usage of one group, with all groups below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_ns: u64,
    pub memory_usage_bytes: u64,
    /// Usage without the inactive page cache.
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    /// `None` is no limit.
    pub memory_limit_bytes: Option<u64>,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_bytes: u64,
    pub processes: u64,
}

/// v1 shows "no limit" as the largest multiple of the page size; anything above this is that.
const NO_LIMIT_FROM: u64 = 1 << 60;

/// The number after the first word `name` in lines of `name number`.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

fn number(dir: &Path, file: &str) -> u64 {
    text(dir, file).trim().parse().unwrap_or(0)
}

pub fn v2(dir: &Path) -> Stats {
    let memory = text(dir, "memory.stat");
    let usage = number(dir, "memory.current");
    Stats {
        cpu_ns: field(&text(dir, "cpu.stat"), "usage_usec").unwrap_or(0).saturating_mul(1000),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(field(&memory, "inactive_file").unwrap_or(0)),
        memory_rss_bytes: field(&memory, "anon").unwrap_or(0),
        memory_limit_bytes: text(dir, "memory.max").trim().parse().ok(),
        page_faults: field(&memory, "pgfault").unwrap_or(0),
        major_page_faults: field(&memory, "pgmajfault").unwrap_or(0),
        swap_bytes: number(dir, "memory.swap.current"),
        processes: number(dir, "pids.current"),
    }
}

pub fn v1(dir: &dyn Fn(&str) -> Option<PathBuf>) -> Stats {
    let mut stats = Stats::default();
    if let Some(dir) = dir("cpuacct") {
        stats.cpu_ns = number(&dir, "cpuacct.usage");
    }
    if let Some(dir) = dir("memory") {
        let memory = text(&dir, "memory.stat");
        stats.memory_usage_bytes = number(&dir, "memory.usage_in_bytes");
        let inactive = field(&memory, "total_inactive_file").unwrap_or(0);
        stats.memory_working_set_bytes = stats.memory_usage_bytes.saturating_sub(inactive);
        stats.memory_rss_bytes = field(&memory, "total_rss").unwrap_or(0);
        stats.page_faults = field(&memory, "total_pgfault").unwrap_or(0);
        stats.major_page_faults = field(&memory, "total_pgmajfault").unwrap_or(0);
        stats.swap_bytes = field(&memory, "total_swap").unwrap_or(0);
        stats.memory_limit_bytes = Some(number(&dir, "memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT_FROM);
    }
    if let Some(dir) = dir("pids") {
        stats.processes = number(&dir, "pids.current");
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), None);
        assert_eq!(field("broken", "broken"), None);
    }
}
