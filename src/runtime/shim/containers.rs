//! Containers from start to exit.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use jiff::Timestamp;
use nix::fcntl::OFlag;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use super::failure::{At, Failure};
use super::launch::{self, Report};
use super::log::Log;
use super::poller::{Poller, Source};
use super::protocol::{FailureKind, Reply};
use super::stdio::{Ends, Stdio};
use super::{Shim, conn};
use crate::cgroup::Hierarchy;
use crate::spec::{ContainerSpec, ContainerStatus, PidMode};
use crate::sys::{self, Forked};

/// What a child may say about itself before its program runs.
pub const REPORT_BYTES_MAX: usize = 64 * 1024;
/// Exit code and reason of a container whose program could not be run, as containerd reports it.
const START_ERROR_CODE: i32 = 128;
const START_ERROR: &str = "StartError";

/// A container that is on its way.
pub(crate) struct Starting {
    connection: u64,
    status: File,
    token: u64,
    received: Vec<u8>,
    /// The receiving side of its terminal.
    console: Option<OwnedFd>,
    /// It ended before the end of the pipe was seen.
    ended: Option<i32>,
}

pub(crate) struct Container {
    pub spec: ContainerSpec,
    pub status: ContainerStatus,
    pub stdio: Stdio,
    /// Set from the fork to the exit.
    pub process: Option<(i32, OwnedFd)>,
    starting: Option<Starting>,
}

impl Container {
    pub fn is_alive(&self) -> bool {
        self.process.is_some()
    }

    pub fn is_starting(&self) -> bool {
        self.starting.is_some()
    }

    /// Signals the first process, if there still is one.
    pub fn kill(&self, signal: i32) {
        if let Some((_, pidfd)) = &self.process {
            let _ = sys::pidfd_kill(pidfd.as_fd(), signal);
        }
    }

    /// In a process ID namespace of its own the first process takes all others with it.
    pub fn kill_group(&self, hierarchy: &Hierarchy) {
        if self.spec.pid != PidMode::Container {
            hierarchy.kill(&self.spec.cgroup.path);
        }
    }

    /// Written aside and renamed, so that a reader finds the old or the new one. Not synced: after a power cut
    /// no container runs, and that is all that anybody needs to know.
    fn persist(&self) {
        let path = self.spec.dir.join("status.json");
        let _ = serde_json::to_vec(&self.status).map(|bytes| crate::disk::replace(&path, &bytes));
    }
}

impl Shim {
    pub(super) fn start(&mut self, from: u64, spec: ContainerSpec) {
        let id: Rc<str> = spec.id.as_str().into();
        if self.ending.is_some() || self.containers.contains_key(&id) {
            let message = format!("container {id} was started before, or the pod is ending");
            return self.reply(from, &Reply::Failed { kind: FailureKind::Other, message });
        }
        let log = Log::open(spec.log_path.clone()).at(|| "open log".into());
        let stdio = match log {
            Ok(log) => Stdio::new(id.clone(), log, spec.stdin_once),
            Err(failure) => {
                let message = failure.to_string();
                return self.reply(from, &Reply::Failed { kind: FailureKind::Other, message });
            }
        };
        let mut container =
            Container { spec, status: ContainerStatus::default(), stdio, process: None, starting: None };
        match self.launch(from, &id, &mut container) {
            Ok(()) => drop(self.containers.insert(id, container)),
            Err(failure) => {
                self.containers.insert(id.clone(), container);
                self.start_failed(&id, from, failure);
            }
        }
    }

    /// Makes the group and the streams and forks.
    fn launch(&mut self, from: u64, id: &Rc<str>, container: &mut Container) -> Result<(), Failure> {
        let spec = &container.spec;
        self.hierarchy.create(&spec.cgroup).map_err(Failure::from)?;
        let (report, mut status) = report_pipe().at(|| "pipe".into())?;
        let mut ends = Ends::default();
        let mut console = None;
        let stdio = if spec.process.tty {
            let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
                .at(|| "socketpair".into())?;
            console = Some(ours);
            launch::Stdio { streams: None, console: Some(theirs) }
        } else {
            let (stdout, their_stdout) = pipe().at(|| "pipe".into())?;
            let (stderr, their_stderr) = pipe().at(|| "pipe".into())?;
            let their_stdin = if spec.stdin {
                let (theirs, stdin) = pipe().at(|| "pipe".into())?;
                ends.stdin = Some(stdin.into());
                theirs.into()
            } else {
                OwnedFd::from(File::open("/dev/null").at(|| "open /dev/null".into())?)
            };
            (ends.stdout, ends.stderr) = (Some(stdout.into()), Some(stderr.into()));
            launch::Stdio { streams: Some([their_stdin, their_stdout.into(), their_stderr.into()]), console: None }
        };

        let (pid, pidfd) = match self.fork_into(&spec.pid, &spec.cgroup.path)? {
            Forked::Parent { pid, pidfd } => (pid, pidfd),
            Forked::Child => {
                let failure = launch::container(spec, &self.hierarchy, self.pod(), stdio, &mut status);
                launch::give_up(failure, &mut status)
            }
        };
        drop((status, stdio));
        let token =
            self.poller.add(&report, Source::StartStatus(id.clone()), EpollFlags::EPOLLIN).at(|| "epoll".into())?;
        container.process = Some((pid, pidfd));
        container.stdio.open(ends, &mut self.poller).at(|| "watch output".into())?;
        container.starting =
            Some(Starting { connection: from, status: report, token, received: Vec::new(), console, ended: None });
        Ok(())
    }

    /// Forks into the process ID namespace that `mode` says. The others are the shim's own.
    fn fork_into(&self, mode: &PidMode, cgroup: &str) -> Result<Forked, Failure> {
        let group = self.hierarchy.unified_fd(cgroup);
        let group = group.as_ref().map(AsFd::as_fd);
        let target = match mode {
            PidMode::Container => return sys::clone3(libc::CLONE_NEWPID, group).at(|| "clone".into()),
            PidMode::Node => return sys::clone3(0, group).at(|| "clone".into()),
            PidMode::Pod => self.pod_init.as_ref(),
            PidMode::Target(id) => {
                self.containers.get(id.as_str()).and_then(|target| target.process.as_ref()).map(|(_, pidfd)| pidfd)
            }
        };
        let target = target.ok_or_else(|| Failure::new("the process ID namespace to join does not exist".into()))?;
        self.fork_beside(target, cgroup)
    }

    /// Forks into the process ID namespace of the process behind `target`.
    pub(super) fn fork_beside(&self, target: &OwnedFd, cgroup: &str) -> Result<Forked, Failure> {
        let group = self.hierarchy.unified_fd(cgroup);
        sys::setns(target.as_fd(), libc::CLONE_NEWPID).at(|| "enter process ID namespace".into())?;
        let forked = sys::clone3(0, group.as_ref().map(AsFd::as_fd));
        if let Ok(Forked::Child) = forked {
            return Ok(Forked::Child);
        }
        sys::setns(self.own_pids.as_fd(), libc::CLONE_NEWPID).at(|| "leave process ID namespace".into())?;
        forked.at(|| "clone".into())
    }

    /// The status pipe has something, or has ended.
    pub(super) fn start_status(&mut self, id: &Rc<str>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(starting) = &mut container.starting else { return };
        if !conn::read_all(&starting.status, &mut starting.received, REPORT_BYTES_MAX) {
            return;
        }
        let Some(mut starting) = container.starting.take() else { return };
        self.poller.remove(&starting.status, starting.token);
        let mut failure = None;
        for line in starting.received.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Report::Identity(identity)) => container.status.identity = Some(identity),
                Ok(Report::Failed(why)) => failure = Some(why),
                Err(_) => {}
            }
        }
        if container.status.identity.is_none() && failure.is_none() {
            failure = Some(Failure::new("the first process ended while it was being set up".into()));
        }
        if failure.is_none() {
            failure = container.take_console(&mut starting, &mut self.poller).err();
        }
        if let Some(failure) = failure {
            return self.start_failed(id, starting.connection, failure);
        }
        container.status.pid = container.process.as_ref().map_or(0, |(pid, _)| *pid);
        container.status.started_at_ns = now_ns();
        container.persist();
        let status = container.status.clone();
        self.publish(id);
        self.reply(starting.connection, &Reply::Status { container: id.to_string(), status });
        if let Some(code) = starting.ended {
            self.finish(id, code);
        }
    }

    fn start_failed(&mut self, id: &Rc<str>, connection: u64, failure: Failure) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some((pid, pidfd)) = container.process.take() {
            // It is about to end by itself; it may also have been collected already.
            let _ = sys::pidfd_kill(pidfd.as_fd(), libc::SIGKILL);
            let _ = waitpid(Pid::from_raw(pid), None);
        }
        container.stdio.finish(&mut self.poller);
        container.starting = None;
        let message = format!("unable to start container process: {failure}");
        let now = now_ns();
        container.status = ContainerStatus {
            pid: 0,
            started_at_ns: 0,
            finished_at_ns: now,
            exit_code: START_ERROR_CODE,
            reason: START_ERROR.into(),
            message: message.clone(),
            identity: container.status.identity.take(),
        };
        let _ = self.hierarchy.remove(&container.spec.cgroup.path);
        container.persist();
        self.publish(id);
        self.reply(connection, &Reply::Failed { kind: FailureKind::Other, message });
    }

    /// A child that is no command has ended: a container's first process, or an orphan.
    pub(super) fn container_ended(&mut self, pid: i32, code: i32) {
        let found = self
            .containers
            .iter_mut()
            .find(|(_, container)| container.process.as_ref().is_some_and(|(known, _)| *known == pid));
        let Some((id, container)) = found else { return };
        let id = id.clone();
        match &mut container.starting {
            // What it said comes first.
            Some(starting) => {
                starting.ended = Some(code);
                self.start_status(&id);
            }
            None => self.finish(&id, code),
        }
    }

    fn finish(&mut self, id: &Rc<str>, code: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.process = None;
        container.kill_group(&self.hierarchy);
        let path = &container.spec.cgroup.path;
        let oom_killed = self.hierarchy.oom_kills(path) > 0;
        container.stdio.finish(&mut self.poller);
        let status = &mut container.status;
        status.finished_at_ns = now_ns().max(status.started_at_ns);
        status.exit_code = code;
        status.reason = match (oom_killed, code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        }
        .into();
        let _ = self.hierarchy.remove(path);
        container.persist();
        self.publish(id);
    }

    pub(super) fn kill(&mut self, id: &str, signal: i32, all: bool) -> Result<(), (FailureKind, String)> {
        let container = self.container(id)?;
        if !container.is_alive() {
            return Err((FailureKind::NotRunning, format!("container {id} is not running")));
        }
        container.kill(signal);
        if let (true, Some(container)) = (all, self.containers.get(id)) {
            container.kill_group(&self.hierarchy);
        }
        Ok(())
    }
}

impl Container {
    /// The terminal was sent before the program ran, so it is there or will never be.
    fn take_console(&mut self, starting: &mut Starting, poller: &mut Poller) -> Result<(), Failure> {
        let Some(socket) = starting.console.take() else { return Ok(()) };
        let console = conn::receive_fd(socket.as_fd())
            .at(|| "receive the terminal".into())?
            .ok_or_else(|| Failure::new("no terminal was made".into()))?;
        self.stdio.open(Ends { console: Some(console), ..Ends::default() }, poller).at(|| "watch the terminal".into())
    }
}

/// A pipe: what is read, what is written.
pub(super) fn pipe() -> io::Result<(File, File)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}

/// A pipe whose read end does not wait.
pub(super) fn report_pipe() -> io::Result<(File, File)> {
    let (read, write) = pipe()?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// The time, in nanoseconds since 1970, as the CRI counts.
pub(super) fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
