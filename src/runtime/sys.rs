//! System calls that neither std nor nix have, each behind a safe function.
//!
//! Mounts are made by file descriptor throughout (`open_tree`, `fsopen`, `fsmount`, `move_mount`,
//! `mount_setattr`): a path that a container can change is looked up once, inside its root, and from then
//! on only the descriptor counts. Needs Linux 5.12.

#![expect(unsafe_code, reason = "thin wrappers of system calls")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
/// How often a lookup that raced with a rename is tried again.
const LOOKUP_TRIES: usize = 32;

/// What a fork returned, in each of the two processes.
#[derive(Debug)]
pub enum Forked {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(checked(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn c_str(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A child like `fork`'s with the namespaces of `flags` (`CLONE_NEW*`), started in cgroup v2 `cgroup` if given.
/// Only for a process with a single thread: the child may then allocate.
pub fn clone3(flags: i32, cgroup: Option<BorrowedFd>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags as u64 | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child runs on its own copy of this stack; `args` and `pidfd` outlive the call.
    let pid = checked(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent { pid: pid as i32, pidfd })
}

/// Ends a forked child at once, without running anybody's destructors.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// A detached copy of the mount at `path` (relative to `dir`), with everything below it if `recursive`.
pub fn open_tree(dir: BorrowedFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: a valid descriptor and a C string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// [`open_tree`] of a path seen from the working directory or the root.
pub fn open_tree_at(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: a C string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Attaches the detached mount `from` where the descriptor `to` points.
pub fn move_mount(from: BorrowedFd, to: BorrowedFd) -> io::Result<()> {
    let empty = c"";
    // SAFETY: valid descriptors; both paths are empty.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            empty.as_ptr(),
            to.as_raw_fd(),
            empty.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    checked(result).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_*`) and, if not 0, the propagation type (`MS_PRIVATE`...) of a mount.
pub fn mount_setattr(mount: BorrowedFd, recursive: bool, set: u64, propagation: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `attr` has the size that is passed and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    checked(result).map(drop)
}

/// A new filesystem of type `name`, not attached anywhere, with its options and mount attributes.
pub fn new_mount(name: &CStr, options: &[(&str, Option<&str>)], attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: a C string.
    let fs = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), 1u32) })?;
    for (key, value) in options {
        fsconfig(fs.as_fd(), key, *value)?;
    }
    // SAFETY: the command takes no key and no value.
    checked(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            0,
        )
    })?;
    // SAFETY: a valid descriptor.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1u32, attributes as u32) })
}

fn fsconfig(fs: BorrowedFd, key: &str, value: Option<&str>) -> io::Result<()> {
    let key = c_str(key)?;
    let result = match value {
        Some(value) => {
            let value = c_str(value)?;
            // SAFETY: two C strings that outlive the call.
            unsafe {
                libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
            }
        }
        // SAFETY: as above; a flag has no value.
        None => unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                fs.as_raw_fd(),
                FSCONFIG_SET_FLAG,
                key.as_ptr(),
                std::ptr::null::<u8>(),
                0,
            )
        },
    };
    checked(result).map(drop)
}

/// Opens `path` as if `root` were `/`: symbolic links and `..` cannot leave it, magic links are refused.
pub fn open_in_root(root: BorrowedFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = c_path(if path.as_os_str().is_empty() { Path::new(".") } else { path })?;
    // SAFETY: open_how is plain data for which zero is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let mut tries = LOOKUP_TRIES;
    loop {
        // SAFETY: a valid descriptor, a C string and a structure of the size that is passed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match owned(result) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries > 0 => tries -= 1,
            other => return other,
        }
    }
}

/// Enters the namespaces `flags` of the process (pidfd) or the one namespace that `fd` is.
pub fn setns(fd: BorrowedFd, flags: i32) -> io::Result<()> {
    // SAFETY: a valid descriptor.
    checked(unsafe { libc::setns(fd.as_raw_fd(), flags) }.into()).map(drop)
}

/// Marks every descriptor from `first` on as closed at the next `execve`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: changes flags only. CLOSE_RANGE_CLOEXEC is 4.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 4u32) }).map(drop)
}

/// Closes every descriptor from `first` on. Only for the first moments of a process, which owns none of them yet.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called before any descriptor above stdio is owned by a value.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) }).map(drop)
}

/// A `prctl` whose arguments are numbers.
pub fn prctl(option: i32, a: u64, b: u64) -> io::Result<i32> {
    // SAFETY: only used with options that take no pointers.
    let result = unsafe { libc::prctl(option, a, b, 0u64, 0u64) };
    checked(result.into()).map(|value| value as i32)
}

pub fn set_name(name: &CStr) {
    // SAFETY: a C string; the kernel copies at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Effective, permitted and inheritable capabilities of the calling thread, as bit sets.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 of the interface takes a header and two data records.
    checked(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Installs a seccomp filter for the calling thread. Needs CAP_SYS_ADMIN or no_new_privs.
pub fn seccomp(filter: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    let program: Vec<libc::sock_filter> =
        filter.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions that outlive the call; 1 is SECCOMP_SET_MODE_FILTER.
    checked(unsafe { libc::syscall(libc::SYS_seccomp, 1u32, 0u32, &raw const program) }).map(drop)
}

pub fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: a pointer and its length.
    checked(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into()).map(drop)
}

/// The slave of the pseudo terminal `master`, without going through a path (TIOCGPTPEER).
pub fn pty_peer(master: BorrowedFd) -> io::Result<OwnedFd> {
    // SAFETY: the ioctl takes open flags by value and returns a new descriptor.
    let fd =
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    owned(fd.into())
}

pub fn pty_unlock(master: BorrowedFd) -> io::Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    checked(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into()).map(drop)
}

/// Makes `tty` the controlling terminal of this session.
pub fn set_controlling_terminal(tty: BorrowedFd) -> io::Result<()> {
    // SAFETY: takes a number.
    checked(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

pub fn set_window_size(tty: BorrowedFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    checked(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// Makes `fd` this process' descriptor number `number` (0, 1 or 2).
pub fn dup_to(fd: BorrowedFd, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        // dup2 would leave close-on-exec set.
        // SAFETY: changes a flag of a valid descriptor.
        return checked(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: a valid descriptor; the standard ones are owned by nobody.
    checked(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Resource limits by the kernel's number.
pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads one rlimit64.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    };
    checked(result).map(drop)
}

/// Sends `signal` to the process behind `pidfd`, never to one that got its number later.
pub fn pidfd_kill(pidfd: BorrowedFd, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0u32) };
    checked(result).map(drop)
}

/// Takes ownership of descriptors that the kernel put into a control message.
pub fn adopt_fds(fds: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: SCM_RIGHTS made these descriptors for this process and the caller passes each of them once.
    fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// The `bpf` system call with an attribute structure.
pub fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the structure is passed with its own size; pointers in it are the caller's and outlive the call.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, (&raw mut *attributes), size_of::<T>()) })
}

/// Takes ownership of a descriptor that [`bpf`] returned.
pub fn bpf_fd<T>(command: u32, attributes: &mut T) -> io::Result<OwnedFd> {
    owned(bpf(command, attributes)?)
}

/// Switches the loopback interface of this network namespace on.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: makes a new descriptor.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    // SAFETY: ifreq is plain data for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}
