//! The shim: one small process per pod that holds the pod's namespaces and is its containers' parent.
//!
//! It is started by the server, leaves it at once (its parent is the machine's process 1, its cgroup is one below the
//! pod's), and lives until it is told to end or the machine goes down (see [`ending`]): whatever happens to the server
//! and its service, the containers, their output and their exit codes are kept. It has one thread and waits in one place; nothing it does waits for a container or a client.
//!
//! The process runs from a mount of the executable that cannot be written through (see `server::executable`),
//! so that a container that reaches `/proc/<pid>/exe` of a process on its way in cannot change the node's file
//! (CVE-2019-5736).
//!
//! Limitations: user namespaces, AppArmor and SELinux are not used. A container that shares a process ID
//! namespace and was given CAP_SYS_PTRACE can look at a neighbour that is just starting.

mod conn;
mod containers;
mod ending;
mod execs;
mod failure;
mod launch;
mod log;
mod poller;
pub mod protocol;
mod rootfs;
mod stdio;
mod users;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, socket};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use conn::Conn;
pub use conn::{receive_fd, receive_fd_with};
use containers::Container;
use ending::Ending;
use execs::Exec;
use failure::{At, Failure};
use poller::{Poller, Source};
use protocol::{FailureKind, Reply, Request};
use rootfs::PodMounts;

use crate::cgroup::Hierarchy;
use crate::spec::SandboxSpec;
use crate::sys::{self, Forked};

/// Connections at a time; the server uses one per command that runs and a few more.
const CONNECTIONS_MAX: usize = 1024;
/// What the shim says on its stdout when the pod is there, before its process ID; anything else is an error.
pub const READY: &str = "ready ";

pub(crate) struct Shim {
    poller: Poller,
    signals: SignalFd,
    listener: UnixListener,
    spec: SandboxSpec,
    hierarchy: Hierarchy,
    /// The node's mount namespace, and the pod's with its `/dev/shm`.
    host_mounts: OwnedFd,
    pod_mounts: OwnedFd,
    own_pids: OwnedFd,
    /// Process 1 of the process ID namespace that the containers share.
    pod_init: Option<OwnedFd>,
    connections: HashMap<u64, Conn>,
    containers: BTreeMap<Rc<str>, Container>,
    execs: HashMap<i32, Exec>,
    ending: Option<Ending>,
}

/// The face of the executable that is started as `cluster shim <spec file>`. Must be called before the process
/// has a second thread. Returns in the first process at once and in the shim at the pod's end.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(path) = args.into_iter().next() else { return ExitCode::from(2) };
    match fork(Path::new(&path)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(shim)) => {
            let said = say(&format!("{READY}{}\n", std::process::id()));
            detach();
            if said { shim.run() } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The shim in the child, nothing in the process that was started. The child is out of the service's cgroup, so that
/// whatever is done to all of the service's processes spares pods; on v2 it begins there, which takes less time than
/// moving.
fn fork(path: &Path) -> Result<Option<Shim>, Failure> {
    sys::close_from(3).at(|| "close_range".into())?;
    let text = fs::read(path).at(|| format!("read {}", path.display()))?;
    let spec: SandboxSpec =
        serde_json::from_slice(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let hierarchy = Hierarchy::detect().map_err(Failure::from)?;
    let group = hierarchy.unified_fd(&spec.cgroup);
    if group.is_none() && matches!(hierarchy, Hierarchy::Unified(_)) {
        return Err(Failure::new(format!("the cgroup {} is not there", spec.cgroup)));
    }
    match sys::clone3(0, group.as_ref().map(AsFd::as_fd)).at(|| "clone".into())? {
        Forked::Parent { .. } => Ok(None),
        Forked::Child => begin(spec, hierarchy).map(Some),
    }
}

fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Lets go of the server's pipes.
fn detach() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for number in 0..3 {
            let _ = sys::dup_to(null.as_fd(), number);
        }
    }
}

fn begin(spec: SandboxSpec, hierarchy: Hierarchy) -> Result<Shim, Failure> {
    sys::set_name(c"cluster-shim");
    setsid().at(|| "setsid".into())?;
    nix::unistd::chdir("/").at(|| "enter /".into())?;
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).at(|| "become a subreaper".into())?;
    launch::join(&hierarchy, &spec.cgroup)?;

    let mut handled = SigSet::empty();
    handled.add(Signal::SIGCHLD);
    handled.add(Signal::SIGTERM);
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGSEGV);
    blocked.remove(Signal::SIGBUS);
    blocked.remove(Signal::SIGABRT);
    blocked.remove(Signal::SIGILL);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None).at(|| "block signals".into())?;
    let signals =
        SignalFd::with_flags(&handled, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).at(|| "signalfd".into())?;

    let open = |path: &str| File::open(path).map(OwnedFd::from).at(|| format!("open {path}"));
    let host_mounts = open("/proc/thread-self/ns/mnt")?;
    let own_pids = open("/proc/thread-self/ns/pid")?;
    namespaces(&spec)?;
    let pod_mounts = rootfs::pod_shm(&spec.scratch, host_mounts.as_fd())?;
    let pod_init = if spec.shared_pid { Some(pod_init(&pod_mounts)?) } else { None };

    let _ = fs::remove_file(&spec.socket);
    let listener = UnixListener::bind(&spec.socket).at(|| format!("listen on {}", spec.socket.display()))?;
    listener.set_nonblocking(true).at(|| "listen".into())?;
    let mut poller = Poller::new().at(|| "epoll".into())?;
    poller.add(&signals, Source::Signals, EpollFlags::EPOLLIN).at(|| "epoll".into())?;
    poller.add(&listener, Source::Listener, EpollFlags::EPOLLIN).at(|| "epoll".into())?;
    Ok(Shim {
        poller,
        signals,
        listener,
        spec,
        hierarchy,
        host_mounts,
        pod_mounts,
        own_pids,
        pod_init,
        connections: HashMap::new(),
        containers: BTreeMap::new(),
        execs: HashMap::new(),
        ending: None,
    })
}

/// The pod's own namespaces; the shim lives in them, and so its children do from the start.
fn namespaces(spec: &SandboxSpec) -> Result<(), Failure> {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS, !spec.host_network);
    flags.set(CloneFlags::CLONE_NEWIPC, !spec.host_ipc);
    unshare(flags).at(|| "unshare namespaces".into())?;
    if !spec.host_network {
        sys::loopback_up().at(|| "switch on the loopback interface".into())?;
        if !spec.hostname.is_empty() {
            nix::unistd::sethostname(&spec.hostname).at(|| format!("set hostname {}", spec.hostname))?;
        }
    }
    for (name, value) in &spec.sysctls {
        // Both forms are in use: net.ipv4.ip_forward and net/ipv4/conf/eth0.1/forwarding.
        let file = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if file.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Failure::new(format!("sysctl {name:?} is not a name")));
        }
        fs::write(Path::new("/proc/sys").join(file), value).at(|| format!("set sysctl {name}={value}"))?;
    }
    Ok(())
}

/// Process 1 of a process ID namespace: takes in orphans and ends with the shim. It sees nothing of the node:
/// its root is the pod's `/dev/shm`.
fn pod_init(pod_mounts: &OwnedFd) -> Result<OwnedFd, Failure> {
    match sys::clone3(libc::CLONE_NEWPID, None).at(|| "clone".into())? {
        Forked::Parent { pidfd, .. } => Ok(pidfd),
        Forked::Child => {
            let ready = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).is_ok()
                && sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).is_ok()
                && sys::setns(pod_mounts.as_fd(), libc::CLONE_NEWNS).is_ok();
            sys::set_name(c"init");
            if !ready || sys::close_from(0).is_err() {
                sys::exit_now(1);
            }
            let mut set = SigSet::empty();
            set.add(Signal::SIGCHLD);
            loop {
                while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                    if status == WaitStatus::StillAlive {
                        break;
                    }
                }
                let _ = set.wait();
            }
        }
    }
}

impl Shim {
    fn run(mut self) -> ExitCode {
        loop {
            let Ok(ready) = self.poller.wait(self.patience()) else { return ExitCode::FAILURE };
            for token in ready {
                if let Some(source) = self.poller.source(token) {
                    self.ready(token, source);
                }
            }
            if self.is_over() {
                return ExitCode::SUCCESS;
            }
        }
    }

    fn ready(&mut self, token: u64, source: Source) {
        match source {
            Source::Signals => self.signalled(),
            Source::Listener => self.accept(),
            Source::Connection => self.connection_ready(token),
            Source::StartStatus(id) => self.start_status(&id),
            Source::ExecStatus(pid) => self.exec_status(pid),
            Source::Output(id, stream) => self.stdio(&id, |stdio, poller| stdio.output_ready(stream, poller)),
            Source::Input(id) => self.stdio(&id, stdio::Stdio::feed),
            Source::AttachedInput(id, number) => self.stdio(&id, |stdio, poller| stdio.attached_input(number, poller)),
            Source::AttachedOutput(id, number) => {
                self.stdio(&id, |stdio, poller| stdio.attached_output(number, poller));
            }
        }
    }

    fn stdio(&mut self, id: &str, act: impl FnOnce(&mut stdio::Stdio, &mut Poller)) {
        if let Some(container) = self.containers.get_mut(id) {
            act(&mut container.stdio, &mut self.poller);
        }
    }

    fn pod(&self) -> PodMounts<'_> {
        let shm = if self.spec.host_ipc { None } else { Some(self.pod_mounts.as_fd()) };
        PodMounts { host: self.host_mounts.as_fd(), shm }
    }

    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGTERM as u32 {
                self.terminate();
            }
        }
        self.reap();
    }

    /// Collects every child that has ended.
    fn reap(&mut self) {
        loop {
            let (pid, code) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return,
                // Others are not asked for.
                _ => continue,
            };
            if self.execs.contains_key(&pid) {
                self.exec_ended(pid, code);
            } else {
                self.container_ended(pid, code);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            if let Ok(token) = self.poller.add(&stream, Source::Connection, EpollFlags::EPOLLIN) {
                self.connections.insert(token, Conn::new(stream, token));
            }
        }
    }

    fn connection_ready(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if !connection.flush(&self.poller) || !connection.receive() {
            return self.disconnect(token);
        }
        loop {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            match connection.request() {
                Ok(Some((request, fds))) => self.request(token, request, fds),
                Ok(None) => return,
                Err(_) => return self.disconnect(token),
            }
        }
    }

    /// A client is gone, and with it the commands that it ran.
    fn disconnect(&mut self, token: u64) {
        if let Some(connection) = self.connections.remove(&token) {
            connection.close(&mut self.poller);
            self.kill_execs_of(token);
        }
    }

    fn request(&mut self, from: u64, request: Request, fds: Vec<OwnedFd>) {
        let done = match request {
            Request::Start(spec) => return self.start(from, *spec),
            Request::Exec { container, args, tty, streams } => {
                return self.exec(from, &container, &args, tty, protocol::by_stream(streams, fds));
            }
            Request::Watch => return self.watch(from),
            Request::Connect { port, ipv6 } => return self.connect(from, port, ipv6),
            Request::Shutdown => return self.shut_down(from),
            Request::Kill { container, signal, all } => self.kill(&container, signal, all),
            Request::Attach { container, streams } => self.attach(&container, protocol::by_stream(streams, fds)),
            Request::Resize { container, columns, rows } => self.container(&container).and_then(|container| {
                container.stdio.resize(columns, rows).map_err(|error| (FailureKind::Other, error.to_string()))
            }),
            Request::ReopenLog { container } => self.container(&container).and_then(|container| {
                container.stdio.reopen_log().map_err(|error| (FailureKind::Other, error.to_string()))
            }),
            Request::Forget { container } => {
                self.containers.retain(|id, known| **id != *container || known.is_alive());
                Ok(())
            }
        };
        match done {
            Ok(()) => self.reply(from, &Reply::Done),
            Err((kind, message)) => self.reply(from, &Reply::Failed { kind, message }),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, (FailureKind, String)> {
        self.containers.get_mut(id).ok_or_else(|| (FailureKind::NotFound, format!("container {id} is not known")))
    }

    fn attach(&mut self, id: &str, streams: [Option<OwnedFd>; 3]) -> Result<(), (FailureKind, String)> {
        let Some(container) = self.containers.get_mut(id) else {
            return Err((FailureKind::NotFound, format!("container {id} is not known")));
        };
        if !container.status.is_running() {
            return Err((FailureKind::NotRunning, format!("container {id} is not running")));
        }
        container.stdio.attach(streams, &mut self.poller).map_err(|error| (FailureKind::Other, error.to_string()))
    }

    fn watch(&mut self, from: u64) {
        let all: Vec<Reply> = self
            .containers
            .iter()
            .filter(|(_, container)| !container.is_starting())
            .map(|(id, container)| Reply::Status { container: id.to_string(), status: container.status.clone() })
            .collect();
        for reply in &all {
            self.reply(from, reply);
        }
        if let Some(connection) = self.connections.get_mut(&from) {
            connection.watches = true;
        }
        self.reply(from, &Reply::Synced { pid: std::process::id() as i32 });
    }

    /// Tells every watcher how a container is.
    fn publish(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let reply = Reply::Status { container: id.to_owned(), status: container.status.clone() };
        let watchers: Vec<u64> =
            self.connections.iter().filter(|(_, connection)| connection.watches).map(|(token, _)| *token).collect();
        for token in watchers {
            self.reply(token, &reply);
        }
    }

    fn reply(&mut self, to: u64, reply: &Reply) {
        if let Some(connection) = self.connections.get_mut(&to)
            && !connection.send(reply, None, &self.poller)
        {
            self.disconnect(to);
        }
    }

    /// The shim is in the pod's network, so a socket that it makes is, whoever uses it.
    fn connect(&mut self, from: u64, port: u16, ipv6: bool) {
        let open = || -> Result<OwnedFd, nix::errno::Errno> {
            let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(family, SockType::Stream, flags, None)?;
            use std::os::fd::AsRawFd;
            let connected = if ipv6 {
                let to = std::net::SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0);
                connect(socket.as_raw_fd(), &SockaddrIn6::from(to))
            } else {
                let to = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
                connect(socket.as_raw_fd(), &SockaddrIn::from(to))
            };
            match connected {
                Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(socket),
                Err(error) => Err(error),
            }
        };
        match open() {
            Ok(socket) => {
                let sent = match self.connections.get_mut(&from) {
                    Some(connection) => connection.send(&Reply::Done, Some(socket.as_fd()), &self.poller),
                    None => true,
                };
                if !sent {
                    self.disconnect(from);
                }
            }
            Err(error) => {
                let message = format!("connect to port {port} in the pod: {}", error.desc());
                self.reply(from, &Reply::Failed { kind: FailureKind::Other, message });
            }
        }
    }
}
