//! The server that is measured: one process with directories of its own, in the network namespace that the bench is in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::{Api, Connection};
use crate::support::{both, run};

const STEP: Duration = Duration::from_millis(1);
const START_MAX: Duration = Duration::from_secs(60);
pub const NODE: &str = "bench";

pub struct Server {
    dir: tempfile::TempDir,
    more: &'static [&'static str],
    child: Option<Child>,
}

/// What a process has used, from its files in /proc.
#[derive(Clone, Copy)]
pub struct Used {
    pub at: Instant,
    pub cpu: Duration,
    pub switches: u64,
    pub written_bytes: u64,
}

/// Memory in KiB.
pub struct Memory {
    pub pss: f64,
    pub rss: f64,
    pub anonymous: f64,
    /// The most that was resident since `forget_peak`.
    pub peak: f64,
}

/// The executable: that of `CLUSTER_BINARY`, or the one that cargo built with the bench.
pub fn executable() -> PathBuf {
    std::env::var_os("CLUSTER_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_cluster").into(), PathBuf::from)
}

impl Server {
    pub fn new(more: &'static [&'static str]) -> anyhow::Result<Server> {
        let dir = tempfile::Builder::new().prefix("cluster-bench").tempdir()?;
        for name in ["config.yaml", "resolv.conf", "registries.yaml"] {
            fs::write(dir.path().join(name), "")?;
        }
        Ok(Server { dir, more, child: None })
    }

    /// Starts the process; when that was.
    pub fn spawn(&mut self) -> anyhow::Result<Instant> {
        let mut command = self.command(&["server", "--node-name", NODE]);
        for (flag, name) in [
            ("--config", "config.yaml"),
            ("--private-registry", "registries.yaml"),
            ("--resolv-conf", "resolv.conf"),
            ("--write-kubeconfig", "kubeconfig.yaml"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log"))?;
        command.args(self.more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if std::env::var_os("CLUSTER_BENCH_DEBUG").is_some() {
            command.arg("--debug");
        }
        let began = Instant::now();
        self.child = Some(command.spawn()?);
        Ok(began)
    }

    /// `cluster` with these arguments and this server's directories.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(executable());
        command.args(args).arg("--data-dir").arg(self.path("data")).arg("--run-dir").arg(self.path("run"));
        command
    }

    /// Waits until the API server answers /readyz with 200.
    pub fn serving(&mut self) -> anyhow::Result<(Api, Connection)> {
        let kubeconfig = self.path("kubeconfig.yaml");
        let begin = Instant::now();
        loop {
            self.alive()?;
            if kubeconfig.exists()
                && let Ok(api) = Api::new(&kubeconfig)
                && let Ok(mut connection) = api.connect()
                && let Ok(200) = connection.status("/readyz")
            {
                return Ok((api, connection));
            }
            if begin.elapsed() > START_MAX {
                bail!("not serving within {START_MAX:?}\n{}", self.log_end());
            }
            std::thread::sleep(STEP);
        }
    }

    /// Waits on a watch until the node is Ready; when that was seen. The connection is used up.
    pub fn node_ready(&self, connection: &mut Connection) -> anyhow::Result<Instant> {
        let path = format!("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{NODE}&timeoutSeconds=50");
        let mut ready = None;
        connection.watch(&path, |line| {
            let now = Instant::now();
            let event: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
            let conditions = event.pointer("/object/status/conditions").and_then(|list| list.as_array());
            let is = |condition: &serde_json::Value| condition["type"] == "Ready" && condition["status"] == "True";
            let is_ready = conditions.into_iter().flatten().any(is);
            ready = is_ready.then_some(now);
            is_ready
        })?;
        ready.with_context(|| format!("the node is not Ready\n{}", self.log_end()))
    }

    pub fn start(&mut self) -> anyhow::Result<(Api, Connection)> {
        self.spawn()?;
        self.serving()
    }

    /// Ends the process with a signal and waits for it.
    pub fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        kill(pid(&child)?, signal)?;
        child.wait()?;
        Ok(())
    }

    pub fn import(&self, archive: &Path) {
        run(self.command(&["image", "import"]).arg(archive));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn used(&self) -> anyhow::Result<Used> {
        let proc = self.proc()?;
        let stat = fs::read_to_string(proc.join("stat"))?;
        let after_name = stat.rsplit_once(')').context("no name in stat")?.1;
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        // A tick is 10 ms on every Linux that we run on.
        let cpu = Duration::from_millis(ticks * 10);
        let mut switches = 0;
        for task in fs::read_dir(proc.join("task"))?.flatten() {
            // A thread may end meanwhile.
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            switches += field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
        }
        let written_bytes = field(&fs::read_to_string(proc.join("io"))?, "write_bytes:");
        Ok(Used { at: Instant::now(), cpu, switches, written_bytes })
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        let proc = self.proc()?;
        let rollup = fs::read_to_string(proc.join("smaps_rollup"))?;
        let status = fs::read_to_string(proc.join("status"))?;
        let kib = |text: &str, name: &str| field(text, name) as f64;
        Ok(Memory {
            pss: kib(&rollup, "Pss:"),
            rss: kib(&rollup, "Rss:"),
            anonymous: kib(&rollup, "Anonymous:"),
            peak: kib(&status, "VmHWM:"),
        })
    }

    /// Makes `Memory::peak` begin anew.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.proc()?.join("clear_refs"), "5")?)
    }

    fn proc(&self) -> anyhow::Result<PathBuf> {
        let child = self.child.as_ref().context("it does not run")?;
        Ok(PathBuf::from(format!("/proc/{}", child.id())))
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.as_mut().context("it does not run")?.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("cluster ended: {status}\n{}", self.log_end()),
        }
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(30)).copied().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(keep) = std::env::var_os("CLUSTER_BENCH_LOG") {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let file = fs::OpenOptions::new().create(true).append(true).open(keep);
            file.and_then(|mut file| std::io::Write::write_all(&mut file, log.as_bytes())).ok();
        }
        let output = self.command(&["uninstall"]).output();
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if let Ok(output) = output
            && !output.status.success()
        {
            eprintln!("uninstall: {}", both(&output));
        }
    }
}

fn pid(child: &Child) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// The number behind a name, as in /proc/*/status; a line begins with the name.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
