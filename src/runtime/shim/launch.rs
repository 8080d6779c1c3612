//! What happens in a forked child until it becomes the container's program.
//!
//! The order matters. Control groups are joined and sources taken while the node is still in sight; then
//! namespaces, mounts and the new root; then limits, identity and filters; `execve` is last, and every
//! descriptor but stdin, stdout and stderr closes with it. Until then the process is not dumpable, so that a
//! process in the same container can neither trace it nor open its files through `/proc`.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{Gid, Uid, setresgid, setresuid, setsid};
use serde::{Deserialize, Serialize};

use super::failure::{At, Failure};
use super::rootfs::{self, PodMounts};
use super::users;
use crate::cgroup::Hierarchy;
use crate::seccomp;
use crate::spec::{CapabilitySpec, ContainerSpec, Identity, ProcessSpec};
use crate::sys;

/// Highest capability number that is tried.
const CAPABILITIES: u64 = 64;
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a child tells the shim through its status pipe. The pipe's end without `Failed` is success.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    Identity(Identity),
    Failed(Failure),
}

/// The child's ends of its standard streams. Without any the terminal is used.
pub struct Stdio {
    pub streams: Option<[OwnedFd; 3]>,
    /// Where the master of a new terminal is sent.
    pub console: Option<OwnedFd>,
}

/// Becomes the first process of a container. Returns only what went wrong.
pub fn container(
    spec: &ContainerSpec,
    hierarchy: &Hierarchy,
    pod: PodMounts,
    stdio: Stdio,
    status: &mut dyn Write,
) -> Failure {
    match prepare_container(spec, hierarchy, pod, stdio).and_then(|()| run(&spec.process, None, status)) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn prepare_container(spec: &ContainerSpec, hierarchy: &Hierarchy, pod: PodMounts, stdio: Stdio) -> Result<(), Failure> {
    begin()?;
    join(hierarchy, &spec.cgroup.path)?;
    if let Some(score) = spec.process.oom_score_adj {
        oom_score(score)?;
    }
    let outside = rootfs::take_sources(spec, pod)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP).at(|| "unshare namespaces".into())?;
    rootfs::make_private()?;
    let pty = rootfs::build(spec, outside, hierarchy)?;
    standard_streams(stdio, pty)
}

/// Becomes a further process of a running container, whose first process is `first` (a pidfd).
pub fn exec(
    process: &ProcessSpec,
    args: &[String],
    hierarchy: &Hierarchy,
    cgroup: &str,
    first: BorrowedFd,
    stdio: Stdio,
    status: &mut dyn Write,
) -> Failure {
    let prepare = || -> Result<(), Failure> {
        begin()?;
        join(hierarchy, cgroup)?;
        if let Some(score) = process.oom_score_adj {
            oom_score(score)?;
        }
        let namespaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET;
        sys::setns(first, namespaces.bits()).at(|| "enter the container's namespaces".into())?;
        let root = fs::File::open("/").at(|| "open /".into())?;
        let pty = if stdio.console.is_some() { Some(rootfs::open_pty(root.as_fd())?) } else { None };
        standard_streams(stdio, pty)
    };
    match prepare().and_then(|()| run(process, Some(args), status)) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// Undoes what the shim had set up for itself.
fn begin() -> Result<(), Failure> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(|| "prctl".into())?;
    default_signals()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    setsid().at(|| "setsid".into())?;
    Ok(())
}

#[expect(unsafe_code, reason = "sigaction")]
fn default_signals() -> Result<(), Failure> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours. Rust ignores SIGPIPE, and execve would keep that.
    unsafe { sigaction(Signal::SIGPIPE, &default) }.at(|| "sigaction".into())?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).at(|| "sigprocmask".into())
}

/// On v2 the process was started in its group.
pub fn join(hierarchy: &Hierarchy, path: &str) -> Result<(), Failure> {
    if let Hierarchy::Split(_) = hierarchy {
        hierarchy.join(path).map_err(Failure::from)?;
    }
    Ok(())
}

/// Lowering the score needs CAP_SYS_RESOURCE, which a machine may withhold even from root: then the lowest
/// that is allowed, which is the score this process already has, stays.
fn oom_score(score: i32) -> Result<(), Failure> {
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        other => other.at(|| "set oom_score_adj".into()),
    }
}

fn standard_streams(stdio: Stdio, pty: Option<rootfs::Pty>) -> Result<(), Failure> {
    let what = || "set up standard streams".to_owned();
    if let Some(pty) = pty {
        if let Some(console) = &stdio.console {
            super::conn::send_fd(console.as_fd(), pty.master.as_fd()).at(|| "hand over the terminal".into())?;
        }
        sys::set_controlling_terminal(pty.slave.as_fd()).at(|| "make it the controlling terminal".into())?;
        for number in 0..3 {
            sys::dup_to(pty.slave.as_fd(), number).at(what)?;
        }
    } else if let Some(streams) = stdio.streams {
        for (number, stream) in streams.iter().enumerate() {
            sys::dup_to(stream.as_fd(), number as i32).at(what)?;
        }
    }
    Ok(())
}

/// A value that does not exist: `execve` does not return.
pub enum Never {}

/// Inside the container's root: takes on limits and identity, and runs the program.
fn run(process: &ProcessSpec, args: Option<&[String]>, status: &mut dyn Write) -> Result<Never, Failure> {
    let args = args.unwrap_or(&process.args);
    let root = fs::File::open("/").at(|| "open /".into())?;
    let passwd = users::read(root.as_fd(), "etc/passwd");
    let group = users::read(root.as_fd(), "etc/group");
    let found = users::resolve(&process.user, &passwd, &group).map_err(Failure::new)?;
    let identity = found.identity.clone();
    report(status, &Report::Identity(found.identity))?;
    own_streams(identity.uid);

    for &(resource, soft, hard) in &process.rlimits {
        sys::setrlimit(resource, soft, hard).at(|| format!("set resource limit {resource}"))?;
    }
    let cwd = &process.cwd;
    let _ = rootfs::dir_in_root(root.as_fd(), cwd);
    drop(root);
    // Perhaps only the user may enter it (a network file system), perhaps only root.
    let entered = nix::unistd::chdir(cwd);
    let (argv, env) = arguments(process, args, &found.home)?;
    let filter = seccomp::filters(&process.seccomp, process.capabilities.bounding)
        .map_err(|message| Failure::new(format!("seccomp: {message}")))?;

    if process.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).at(|| "set no_new_privs".into())?;
    } else {
        // Needs CAP_SYS_ADMIN, so it comes before that is given up.
        load(&filter)?;
    }
    become_user(&identity, process.capabilities)?;
    if entered.is_err() {
        nix::unistd::chdir(cwd).at(|| format!("enter working directory {}", cwd.display()))?;
    }
    // A directory that a leaked descriptor led to is outside the root, and the kernel says so (CVE-2024-21626).
    let here = nix::unistd::getcwd().at(|| "look up the working directory".into())?;
    if !here.is_absolute() {
        return Err(Failure::new("the working directory is outside the container's root".into()));
    }
    sys::close_on_exec_from(3).at(|| "close_range".into())?;
    if process.no_new_privileges {
        load(&filter)?;
    }
    Err(execute(&argv, &env, process))
}

fn report(status: &mut dyn Write, report: &Report) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(report).map_err(|error| Failure::new(error.to_string()))?;
    line.push(b'\n');
    status.write_all(&line).at(|| "report to the shim".into())
}

/// Tells the shim why there will be no program, and ends.
pub fn give_up(failure: Failure, status: &mut dyn Write) -> ! {
    let _ = report(status, &Report::Failed(failure));
    sys::exit_now(1)
}

/// The program may open its own stdout by path (`/dev/stdout`), so the pipes must be its user's. `/dev/null` is
/// everybody's and stays root's.
fn own_streams(uid: u32) {
    for fd in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let Ok(stat) = nix::sys::stat::fstat(fd) else { continue };
        if stat.st_uid != uid && stat.st_rdev != nix::sys::stat::makedev(1, 3) {
            let _ = nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), None);
        }
    }
}

fn arguments(process: &ProcessSpec, args: &[String], home: &str) -> Result<(Vec<CString>, Vec<CString>), Failure> {
    let c_string = |text: &str| {
        CString::new(text).map_err(|_| Failure::new(format!("a NUL byte in argument or variable {text:?}")))
    };
    let argv = args.iter().map(|arg| c_string(arg)).collect::<Result<Vec<_>, _>>()?;
    let mut env = process.env.iter().map(|pair| c_string(pair)).collect::<Result<Vec<_>, _>>()?;
    if !process.env.iter().any(|pair| pair.starts_with("HOME=")) {
        env.push(c_string(&format!("HOME={home}"))?);
    }
    Ok((argv, env))
}

fn load(filters: &[seccomp::Filter]) -> Result<(), Failure> {
    for filter in filters {
        sys::seccomp(filter).at(|| "load seccomp filter".into())?;
    }
    Ok(())
}

fn become_user(identity: &Identity, capabilities: CapabilitySpec) -> Result<(), Failure> {
    let mut available = 0;
    for number in 0..CAPABILITIES {
        match sys::prctl(libc::PR_CAPBSET_READ, number, 0) {
            Ok(1) => available |= 1 << number,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    for number in 0..CAPABILITIES {
        if available & !capabilities.bounding & (1 << number) != 0 {
            sys::prctl(libc::PR_CAPBSET_DROP, number, 0).at(|| format!("drop capability {number}"))?;
        }
    }
    let wanted = capabilities.bounding & available;
    let ambient = capabilities.ambient & wanted;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).at(|| "keep capabilities".into())?;
    sys::setgroups(&identity.groups).at(|| "set supplementary groups".into())?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid).at(|| format!("become group {gid}"))?;
    setresuid(uid, uid, uid).at(|| format!("become user {uid}"))?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0, 0).at(|| "keep capabilities".into())?;
    sys::capset(wanted, wanted, ambient).at(|| "set capabilities".into())?;
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).at(|| "clear ambient set".into())?;
    for number in (0..CAPABILITIES).filter(|number| ambient & (1 << number) != 0) {
        sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, number)
            .at(|| format!("raise ambient capability {number}"))?;
    }
    Ok(())
}

/// Tries the program, along `PATH` if it has no slash. Returns why nothing ran, in the words users know.
fn execute(argv: &[CString], env: &[CString], process: &ProcessSpec) -> Failure {
    let Some(program) = argv.first() else { return Failure::new("no command specified".into()) };
    let shown = program.to_string_lossy();
    if program.as_bytes().contains(&b'/') {
        let errno = try_execute(program, argv, env);
        return Failure::new(match errno {
            Errno::ENOENT if !Path::new(&*shown).exists() => {
                format!("exec: \"{shown}\": stat {shown}: no such file or directory")
            }
            Errno::EACCES => format!("exec: \"{shown}\": permission denied"),
            other => format!("exec {shown}: {}", other.desc().to_lowercase()),
        });
    }
    let path = process.env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT);
    let mut denied = false;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let Ok(candidate) = CString::new([dir.as_bytes(), b"/", program.as_bytes()].concat()) else { continue };
        match try_execute(&candidate, argv, env) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => denied = true,
            other => {
                let candidate = candidate.to_string_lossy();
                return Failure::new(format!("exec {candidate}: {}", other.desc().to_lowercase()));
            }
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Failure::new(format!("exec: \"{shown}\": {why}"))
}

fn try_execute(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    match nix::unistd::execve(program, argv, env) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}
