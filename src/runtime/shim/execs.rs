//! Commands that are run in a container beside its program. They belong to the connection that asked for them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::epoll::EpollFlags;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::containers::{REPORT_BYTES_MAX, report_pipe};
use super::failure::{At, Failure};
use super::launch::{self, Report};
use super::poller::Source;
use super::protocol::{FailureKind, Reply};
use super::{Shim, conn};
use crate::sys::Forked;

pub(crate) struct Exec {
    connection: u64,
    /// Until its program runs.
    status: Option<(File, u64)>,
    received: Vec<u8>,
    ended: Option<i32>,
}

impl Shim {
    pub(super) fn exec(&mut self, from: u64, id: &str, args: &[String], tty: bool, streams: [Option<OwnedFd>; 3]) {
        let running = match self.containers.get(id) {
            None => Err((FailureKind::NotFound, format!("container {id} is not known"))),
            Some(container) if !container.status.is_running() || container.process.is_none() => {
                Err((FailureKind::NotRunning, format!("container {id} is not running")))
            }
            Some(_) => Ok(()),
        };
        let launched = running.and_then(|()| {
            self.launch_exec(from, id, args, tty, streams).map_err(|failure| (FailureKind::Other, failure.to_string()))
        });
        if let Err((kind, message)) = launched {
            self.reply(from, &Reply::Failed { kind, message });
        }
    }

    fn launch_exec(
        &mut self,
        from: u64,
        id: &str,
        args: &[String],
        tty: bool,
        streams: [Option<OwnedFd>; 3],
    ) -> Result<(), Failure> {
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        let Some((_, first)) = &container.process else { return Ok(()) };
        let [stdin, stdout, stderr] = streams;
        let stdio = if tty {
            launch::Stdio { streams: None, console: stdin }
        } else {
            let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
            let or_null = |end: Option<OwnedFd>| match end {
                Some(end) => Ok(end),
                None => null().at(|| "open /dev/null".into()),
            };
            launch::Stdio { streams: Some([or_null(stdin)?, or_null(stdout)?, or_null(stderr)?]), console: None }
        };
        let (report, mut status) = report_pipe().at(|| "pipe".into())?;
        let group = &container.spec.cgroup.path;
        let pid = match self.fork_beside(first, group)? {
            Forked::Parent { pid, .. } => pid,
            Forked::Child => {
                let process = &container.spec.process;
                let failure = launch::exec(process, args, &self.hierarchy, group, first.as_fd(), stdio, &mut status);
                launch::give_up(failure, &mut status)
            }
        };
        drop((status, stdio));
        let token = self.poller.add(&report, Source::ExecStatus(pid), EpollFlags::EPOLLIN).at(|| "epoll".into())?;
        let exec = Exec { connection: from, status: Some((report, token)), received: Vec::new(), ended: None };
        self.execs.insert(pid, exec);
        Ok(())
    }

    pub(super) fn exec_status(&mut self, pid: i32) {
        let Some(exec) = self.execs.get_mut(&pid) else { return };
        let Some((status, _)) = &exec.status else { return };
        if !conn::read_all(status, &mut exec.received, REPORT_BYTES_MAX) {
            return;
        }
        if let Some((status, token)) = exec.status.take() {
            self.poller.remove(&status, token);
        }
        let mut identified = false;
        let mut failure = None;
        for line in exec.received.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Report::Identity(_)) => identified = true,
                Ok(Report::Failed(why)) => failure = Some(why.to_string()),
                Err(_) => {}
            }
        }
        if failure.is_none() && !identified {
            failure = Some("the process ended while it was being set up".into());
        }
        let (connection, ended) = (exec.connection, exec.ended);
        if let Some(message) = failure {
            // Its end, when it comes, is nobody's business any more.
            self.execs.remove(&pid);
            return self.reply(connection, &Reply::Failed { kind: FailureKind::Other, message });
        }
        self.reply(connection, &Reply::Started { pid });
        if let Some(code) = ended {
            self.exec_ended(pid, code);
        }
    }

    pub(super) fn exec_ended(&mut self, pid: i32, code: i32) {
        let Some(exec) = self.execs.get_mut(&pid) else { return };
        if exec.status.is_some() {
            exec.ended = Some(code);
            return self.exec_status(pid);
        }
        let connection = exec.connection;
        self.execs.remove(&pid);
        self.reply(connection, &Reply::Exited { code });
    }

    /// Commands lead a process group of their own, which ends with them. Their numbers cannot have been given
    /// to others: they are children that have not been collected.
    pub(super) fn kill_execs_of(&mut self, connection: u64) {
        for (pid, exec) in &self.execs {
            if exec.connection == connection && exec.ended.is_none() {
                let _ = killpg(Pid::from_raw(*pid), Signal::SIGKILL);
                let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
    }
}
