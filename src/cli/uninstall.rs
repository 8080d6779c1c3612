//! `cluster uninstall`: removes everything that cluster put on this machine, in the reverse order of its coming: the
//! service, the pods, the network, the files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::config_file;
use crate::instance;
use crate::node::{Detached, image_store, runtime_config};
use crate::options::{DEFAULT_CONFIG_FILE, PathOptions, UninstallOptions};

const UNITS: [&str; 2] = ["cluster.service", "cluster-agent.service"];
const UNIT_DIR: &str = "/etc/systemd/system";
const EXECUTABLE: &str = "/usr/local/bin/cluster";
const STOPPING_MAX: Duration = Duration::from_secs(60);

pub async fn run(options: UninstallOptions, out: &mut impl Write) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("cluster uninstall must run as root: start it with sudo");
    }
    let paths = options.paths.absolute()?;
    let of_service = paths.data_dir == config_file::data_dir_of_service()?;
    if of_service {
        stop_units();
    }
    stop_process(&paths, out)?;
    writeln!(out, "removing pods")?;
    if paths.agent().exists() {
        let images = image_store(&paths, None).await?;
        runtime::teardown(runtime_config(&paths), images, Arc::new(Detached)).await?;
    }
    writeln!(out, "removing the network")?;
    network::teardown(network::Names::default()).await?;
    writeln!(out, "removing files")?;
    remove(&paths.run_dir)?;
    if !options.keep_data {
        remove(&paths.data_dir)?;
        if of_service {
            remove(Path::new(DEFAULT_CONFIG_FILE).parent().unwrap_or(Path::new(DEFAULT_CONFIG_FILE)))?;
        }
    }
    if of_service {
        remove_units()?;
        remove(Path::new("/var/log/cluster.log"))?;
        // This very program: it runs on until it ends.
        remove(Path::new(EXECUTABLE))?;
    }
    let kept =
        if options.keep_data { format!("; its data is still in {}", paths.data_dir.display()) } else { String::new() };
    writeln!(out, "cluster is removed from this machine{kept}")?;
    Ok(())
}

/// systemd starts a service again that is only killed.
fn stop_units() {
    for unit in UNITS {
        if Path::new(UNIT_DIR).join(unit).exists() {
            // Where systemd does not run there is nothing to stop, and where it fails the process is stopped below.
            Command::new("systemctl").args(["disable", "--now", unit]).output().ok();
        }
    }
}

fn stop_process(paths: &PathOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(pid) = instance::running(paths) else { return Ok(()) };
    writeln!(out, "stopping process {pid}")?;
    let pid_of = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid_of, nix::sys::signal::Signal::SIGTERM).with_context(|| format!("cannot stop {pid}"))?;
    let began = Instant::now();
    // A process that has ended and was not waited for has no executable any more.
    let executable = PathBuf::from(format!("/proc/{pid}/exe"));
    while instance::running(paths).is_some() || std::fs::read_link(&executable).is_ok() {
        if began.elapsed() > STOPPING_MAX {
            bail!("process {pid} does not stop; end it with `kill -9 {pid}` and run this again");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn remove_units() -> anyhow::Result<()> {
    let mut removed = false;
    for unit in UNITS {
        let path = Path::new(UNIT_DIR).join(unit);
        if path.exists() {
            remove(&path)?;
            removed = true;
        }
    }
    if removed {
        Command::new("systemctl").arg("daemon-reload").output().ok();
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            unmount_below(path)?;
            std::fs::remove_dir_all(path)
        }
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Volumes in memory of pods that were killed with their kubelet are mounts. Nothing is deleted through a mount.
fn unmount_below(dir: &Path) -> anyhow::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(field.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.sort();
    for point in points.iter().rev() {
        nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}
