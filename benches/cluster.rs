//! Measures the real executable: how fast it starts, how fast pods run, what it needs when nothing happens, and how much the
//! API server does. Nothing is asserted. `RESULTS.md` has the figures and says how to run this.
//!
//! Everything happens in a network namespace that is removed at the end, with directories of its own below `TMPDIR`.
//! Each measure is bounded in time and in number; all of them together take some minutes.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the figures are printed, and what cannot be measured ends the bench"
)]

mod api;
mod http;
mod idle;
mod pods;
mod report;
mod server;
mod starts;
mod support;
mod watches;

use nix::sched::{CloneFlags, setns};
use report::{Report, Samples, Target};
use support::hosts::Lan;

type Measure = fn(&mut Report) -> anyhow::Result<()>;

/// In the order of RESULTS.md.
const MEASURES: [(&str, Measure); 6] = [
    ("size", size),
    ("start", starts::measure),
    ("pod", pods::measure),
    ("idle", idle::measure),
    ("api", api::measure),
    ("watches", watches::measure),
];

fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs benches too, without this flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("run this as root: network namespaces and containers need it");
    }
    let lan = Lan::new();
    let host = lan.host("bench", 1);
    // Before any thread is started, so that all of them are in there.
    setns(std::fs::File::open(format!("/run/netns/{}", host.namespace))?, CloneFlags::CLONE_NEWNET)?;

    let mut report = Report::new();
    for (name, measure) in MEASURES {
        if wanted.as_deref().is_none_or(|wanted| name.contains(wanted)) {
            measure(&mut report)?;
        }
    }
    if wanted.is_none() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md"), report.text())?;
    }
    Ok(())
}

fn size(report: &mut Report) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(server::executable())?.len();
    report.row("executable", "MB", Samples::one(bytes as f64 / 1e6), Target::AtMost(50.0));
    Ok(())
}
