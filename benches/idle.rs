//! What a server with its node needs when nothing is deployed and nothing happens.

use std::time::Duration;

use crate::report::{Report, Samples, Target};
use crate::server::Server;

const SETTLE: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(20);
const WINDOWS: usize = 3;

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let mut server = Server::new(&[])?;
    let (_, mut connection) = server.start()?;
    server.node_ready(&mut connection)?;
    drop(connection);
    std::thread::sleep(SETTLE);
    let (mut pss, mut rss, mut anonymous) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut switches, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WINDOWS {
        let before = server.used()?;
        std::thread::sleep(WINDOW);
        let after = server.used()?;
        let seconds = (after.at - before.at).as_secs_f64();
        cpu.push((after.cpu - before.cpu).as_secs_f64() / seconds * 100.0);
        switches.push(after.switches.saturating_sub(before.switches) as f64 / seconds);
        written.push((after.written_bytes - before.written_bytes) as f64 / 1024.0 / seconds * 60.0);
        // After the counters: reading it makes the kernel look at each page.
        let memory = server.memory()?;
        pss.push(memory.pss / 1e6 * 1024.0);
        rss.push(memory.rss / 1e6 * 1024.0);
        anonymous.push(memory.anonymous / 1e6 * 1024.0);
    }
    report.row("idle: memory (PSS)", "MB", Samples::new(pss), Target::AtMost(100.0));
    report.row("idle: resident", "MB", Samples::new(rss), Target::None);
    report.row("idle: of it anonymous", "MB", Samples::new(anonymous), Target::None);
    report.row("idle: processor", "% of a core", Samples::new(cpu), Target::AtMost(1.0));
    report.row("idle: context switches", "/s", Samples::new(switches), Target::None);
    report.row("idle: written to disk", "KiB/min", Samples::new(written), Target::None);
    Ok(())
}
