//! How a pod ends: at once when the server says so, in order when the machine goes down.
//!
//! The server says [`Request::Shutdown`](super::protocol::Request::Shutdown). It has stopped the containers as their
//! pod wants it by then, and what still runs is killed.
//!
//! SIGTERM means that the machine goes down. Once its services are stopped, an init sends it to every process that is
//! left and waits for them, systemd for 90 s. Nobody else sends it to a shim, which has a session of its own and is in
//! its pod's cgroup, not in that of the service whose server started it: stopping, restarting or killing the service
//! (`systemctl stop`, `systemctl kill -s KILL`) reaches neither the shim nor its containers. So on SIGTERM each
//! container gets its own stop signal, what still runs after [`GRACE`] is killed, and the shim ends. How the containers
//! ended is on disk for the server of the next boot.
//!
//! Limitations: the pods' own grace periods and `preStop` hooks are the kubelet's, which is gone before.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Shim;
use super::protocol::Reply;
use crate::sys;

/// How long containers may take when the machine goes down, all at the same time.
const GRACE: Duration = Duration::from_secs(10);

/// The end has begun.
#[derive(Debug)]
pub struct Ending {
    /// Whom to tell.
    asked_by: Option<u64>,
    /// When what still runs is killed; `None` once it was.
    kill_at: Option<Instant>,
}

impl Shim {
    /// Asks all containers to end.
    pub(super) fn terminate(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Ending { asked_by: None, kill_at: Some(Instant::now() + GRACE) });
        self.containers.values().for_each(|container| container.kill(container.spec.stop_signal));
    }

    /// Kills all containers.
    pub(super) fn shut_down(&mut self, asked_by: u64) {
        self.ending = Some(Ending { asked_by: Some(asked_by), kill_at: None });
        self.kill_all();
    }

    fn kill_all(&self) {
        self.containers.values().for_each(|container| container.kill(libc::SIGKILL));
        for container in self.containers.values().filter(|container| container.is_alive()) {
            container.kill_group(&self.hierarchy);
        }
    }

    /// How long to wait for what comes next.
    pub(super) fn patience(&self) -> Option<Duration> {
        let kill_at = self.ending.as_ref()?.kill_at?;
        Some(kill_at.saturating_duration_since(Instant::now()))
    }

    /// Whether the pod has ended; kills what has had its time.
    pub(super) fn is_over(&mut self) -> bool {
        let Some(ending) = &mut self.ending else { return false };
        let asked_by = ending.asked_by;
        if ending.kill_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.kill_all();
        }
        if self.containers.values().any(|container| container.is_alive()) {
            return false;
        }
        if let Some(connection) = asked_by {
            self.reply(connection, &Reply::Done);
        }
        let _ = fs::remove_file(&self.spec.socket);
        if let Some(init) = &self.pod_init {
            let _ = sys::pidfd_kill(init.as_fd(), libc::SIGKILL);
        }
        true
    }
}
