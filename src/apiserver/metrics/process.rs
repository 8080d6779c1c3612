//! What the kernel says of this process, as Prometheus' client libraries tell it.

use super::{Kind, Text};

/// Ticks in which the kernel counts time for user space; fixed on all of Linux' architectures but alpha.
const TICKS_PER_SECOND: f64 = 100.0;

struct Process {
    cpu_seconds: f64,
    started_ticks: f64,
    virtual_bytes: u64,
}

pub fn write(out: &mut Text) {
    let Some(process) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| parse(&stat)) else { return };
    let help = "Total user and system CPU time spent in seconds.";
    out.single("process_cpu_seconds_total", Kind::Counter, help, process.cpu_seconds);
    if let Some(resident) = resident_bytes(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        let help = "Resident memory size in bytes.";
        out.single("process_resident_memory_bytes", Kind::Gauge, help, resident);
    }
    let help = "Virtual memory size in bytes.";
    out.single("process_virtual_memory_bytes", Kind::Gauge, help, process.virtual_bytes);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is one of them.
        let open = open.count().saturating_sub(1);
        out.single("process_open_fds", Kind::Gauge, "Number of open file descriptors.", open);
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = open_files_max(&limits) {
        out.single("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.", most);
    }
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    if let Some(booted) = booted {
        let help = "Start time of the process since unix epoch in seconds.";
        let started = booted + process.started_ticks / TICKS_PER_SECOND;
        out.single("process_start_time_seconds", Kind::Gauge, help, started);
    }
}

/// `/proc/self/stat`: the name may hold anything, so fields are counted from behind it.
fn parse(stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        cpu_seconds: (number(11)? + number(12)?) as f64 / TICKS_PER_SECOND,
        started_ticks: number(19)? as f64,
        virtual_bytes: number(20)?,
    })
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000000 256 1844 1 1 0";
        let process = parse(stat).unwrap();
        assert_eq!((process.cpu_seconds, process.started_ticks), (3.0, 12345.0));
        assert_eq!(process.virtual_bytes, 1_000_000);
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t  12 kB\n"), Some(12_288));
        assert_eq!(open_files_max("Max open files            1024                 4096     files\n"), Some(1024));
        let mut text = Text::new(false);
        write(&mut text);
        assert!(text.finish().contains("process_resident_memory_bytes "));
    }
}
