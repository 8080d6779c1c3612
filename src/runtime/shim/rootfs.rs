//! A container's file system, built in a mount namespace of its own by the container's first process.
//!
//! Every destination is looked up once inside the root (`openat2` with `RESOLVE_IN_ROOT`), and the mount goes
//! onto that descriptor: neither symbolic links in the image nor a neighbour that renames directories in a
//! shared volume can direct a mount elsewhere. Bind sources are taken as detached copies of the node's mounts
//! before the namespace is left.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{fchdir, pivot_root};

use super::failure::{At, Failure};
use crate::cgroup::Hierarchy;
use crate::spec::{ContainerSpec, MountKind, MountSpec, Propagation, RootfsSpec};
use crate::sys::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// Mount options longer than this go through `fsconfig`, one layer at a time (Linux 6.5).
const MOUNT_OPTIONS_BYTES_MAX: usize = 4000;
const SHM_SIZE: &str = "65536k";
/// Name, major, minor of the device nodes in every `/dev`.
const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
const NOTHING: u64 = 0;
const QUIET: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// What must be taken from outside the new mount namespace.
pub struct Outside {
    /// Per mount of the spec, its detached source if it has one on the node.
    sources: Vec<Option<OwnedFd>>,
    /// Per device, its number and kind, or a detached copy where it cannot be made.
    devices: Vec<(SFlag, u64, u32)>,
}

/// The pod's own mount namespace with its `/dev/shm`, and the way back.
#[derive(Clone, Copy)]
pub struct PodMounts<'a> {
    pub host: BorrowedFd<'a>,
    pub shm: Option<BorrowedFd<'a>>,
}

/// Takes the sources, in the node's mount namespace.
pub fn take_sources(spec: &ContainerSpec, pod: PodMounts) -> Result<Outside, Failure> {
    let mut sources = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        sources.push(match &mount.kind {
            MountKind::Bind { source, propagation, recursive_readonly } => {
                Some(bind_source(source, *propagation, mount.readonly, *recursive_readonly)?)
            }
            MountKind::Shm => Some(shm_source(pod)?),
            _ => None,
        });
    }
    let mut devices = Vec::with_capacity(spec.devices.len());
    for device in &spec.devices {
        let meta = std::fs::metadata(&device.host_path).at(|| format!("stat device {}", device.host_path.display()))?;
        let kind = if meta.file_type().is_block_device() {
            SFlag::S_IFBLK
        } else if meta.file_type().is_char_device() {
            SFlag::S_IFCHR
        } else {
            return Err(Failure::new(format!("{} is not a device", device.host_path.display())));
        };
        devices.push((kind, meta.rdev(), meta.mode() & 0o777));
    }
    Ok(Outside { sources, devices })
}

fn bind_source(
    source: &Path,
    propagation: Propagation,
    readonly: bool,
    recursive_readonly: bool,
) -> Result<OwnedFd, Failure> {
    let what = || format!("bind source {}", source.display());
    let tree = sys::open_tree_at(source, true).at(what)?;
    let propagation = match propagation {
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::HostToContainer => MsFlags::MS_SLAVE,
        // The copy already is in the peer group of the node's mount.
        Propagation::Bidirectional => MsFlags::empty(),
    };
    sys::mount_setattr(tree.as_fd(), true, 0, propagation.bits()).at(what)?;
    if readonly {
        sys::mount_setattr(tree.as_fd(), recursive_readonly, MOUNT_ATTR_RDONLY, 0).at(what)?;
    }
    Ok(tree)
}

fn shm_source(pod: PodMounts) -> Result<OwnedFd, Failure> {
    let Some(shm) = pod.shm else {
        return sys::open_tree_at(Path::new("/dev/shm"), false).at(|| "bind the node's /dev/shm".into());
    };
    let newns = CloneFlags::CLONE_NEWNS.bits();
    sys::setns(shm, newns).at(|| "enter the pod's mount namespace".into())?;
    let tree = sys::open_tree_at(Path::new("/"), false).at(|| "copy the pod's /dev/shm".into());
    sys::setns(pod.host, newns).at(|| "leave the pod's mount namespace".into())?;
    let tree = tree?;
    sys::mount_setattr(tree.as_fd(), true, 0, MsFlags::MS_PRIVATE.bits()).at(|| "copy the pod's /dev/shm".into())?;
    Ok(tree)
}

/// Makes the pod's `/dev/shm` as the only mount of a new mount namespace and returns that namespace.
/// The calling process ends where it was.
pub fn pod_shm(scratch: &Path, host: BorrowedFd) -> Result<OwnedFd, Failure> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).at(|| "unshare mount namespace".into())?;
    let namespace = File::open("/proc/thread-self/ns/mnt").at(|| "open mount namespace".into())?;
    let make = || -> Result<(), Failure> {
        make_private()?;
        let tmpfs = sys::new_mount(
            c"tmpfs",
            &[("mode", Some("1777")), ("size", Some(SHM_SIZE))],
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        )
        .at(|| "make /dev/shm".into())?;
        let target = File::open(scratch).at(|| format!("open {}", scratch.display()))?;
        sys::move_mount(tmpfs.as_fd(), target.as_fd()).at(|| "mount /dev/shm".into())?;
        drop(target);
        become_root(tmpfs.as_fd())
    };
    let made = make();
    sys::setns(host, CloneFlags::CLONE_NEWNS.bits()).at(|| "return to the node's mount namespace".into())?;
    made.map(|()| namespace.into())
}

/// Nothing that is mounted from here on is seen outside this namespace.
pub fn make_private() -> Result<(), Failure> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).at(|| "make mounts private".into())
}

/// Makes the mount `root` the root of this namespace and lets go of everything else.
fn become_root(root: BorrowedFd) -> Result<(), Failure> {
    fchdir(root).at(|| "enter the new root".into())?;
    pivot_root(".", ".").at(|| "pivot_root".into())?;
    umount2(".", MntFlags::MNT_DETACH).at(|| "detach the old root".into())?;
    nix::unistd::chdir("/").at(|| "enter /".into())
}

/// Builds the whole tree in this (new, private) mount namespace and makes it the root. With `console` the
/// slave it returns is on `/dev/console`, and the first of the pair is the master.
pub fn build(spec: &ContainerSpec, outside: Outside, hierarchy: &Hierarchy) -> Result<Option<Pty>, Failure> {
    mount_overlay(&spec.rootfs)?;
    let root: OwnedFd =
        nix::fcntl::open(&spec.rootfs.target, path_flags() | nix::fcntl::OFlag::O_DIRECTORY, Mode::empty())
            .at(|| "open the root filesystem".into())?;
    let root = root.as_fd();
    for (mount, source) in spec.mounts.iter().zip(outside.sources) {
        one_mount(root, mount, source, spec, hierarchy)
            .map_err(|failure| failure.within(|| format!("mount {}", mount.destination.display())))?;
    }
    for (device, (kind, number, mode)) in spec.devices.iter().zip(outside.devices) {
        make_node(root, &device.container_path, kind, number, mode)?;
    }
    let pty = if spec.process.tty { Some(console(root)?) } else { None };
    for path in &spec.readonly_paths {
        readonly(root, path)?;
    }
    mask(root, &spec.masked_paths)?;
    if spec.rootfs.readonly {
        sys::mount_setattr(root, false, MOUNT_ATTR_RDONLY, 0).at(|| "make the root filesystem read-only".into())?;
    }
    become_root(root)?;
    Ok(pty)
}

fn path_flags() -> nix::fcntl::OFlag {
    nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC
}

fn mount_overlay(rootfs: &RootfsSpec) -> Result<(), Failure> {
    nix::unistd::chdir(&rootfs.base).at(|| format!("enter {}", rootfs.base.display()))?;
    overlay(&rootfs.lowers, Some((&rootfs.upper, &rootfs.work)), &rootfs.target)
        .at(|| "mount the root filesystem (overlay)".into())
}

/// Mounts an overlay on `target`; relative layers are looked up from the working directory.
fn overlay(lowers: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    let escape = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:");
    let lower = lowers.iter().map(|path| escape(path)).collect::<Vec<_>>().join(":");
    let mut options = format!("lowerdir={lower}");
    if let Some((upper, work)) = writable {
        options.push_str(&format!(",upperdir={},workdir={}", escape(upper), escape(work)));
    }
    if options.len() < MOUNT_OPTIONS_BYTES_MAX {
        let none = MsFlags::empty();
        return Ok(mount(Some("overlay"), target, Some("overlay"), none, Some(options.as_str()))?);
    }
    let texts: Vec<String> = lowers.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let mut options: Vec<(&str, Option<&str>)> = texts.iter().map(|path| ("lowerdir+", Some(path.as_str()))).collect();
    let texts = writable.map(|(upper, work)| (upper.to_string_lossy(), work.to_string_lossy()));
    if let Some((upper, work)) = &texts {
        options.push(("upperdir", Some(upper)));
        options.push(("workdir", Some(work)));
    }
    let made = sys::new_mount(c"overlay", &options, NOTHING)?;
    sys::move_mount(made.as_fd(), File::open(target)?.as_fd())
}

fn one_mount(
    root: BorrowedFd,
    mount: &MountSpec,
    source: Option<OwnedFd>,
    spec: &ContainerSpec,
    hierarchy: &Hierarchy,
) -> Result<(), Failure> {
    let readonly = if mount.readonly { MOUNT_ATTR_RDONLY } else { 0 };
    let make = |kind: &std::ffi::CStr, options: &[(&str, Option<&str>)], attributes: u64| {
        sys::new_mount(kind, options, attributes | readonly).at(|| format!("{kind:?}"))
    };
    let tree = match (&mount.kind, source) {
        (_, Some(source)) => source,
        (MountKind::Proc, _) => make(c"proc", &[], QUIET)?,
        (MountKind::Sysfs, _) => match make(c"sysfs", &[], QUIET) {
            Ok(tree) => tree,
            // Not the network namespace's owner: the node's own is all there is.
            Err(_) => {
                let tree = sys::open_tree_at(Path::new("/sys"), false).at(|| "bind /sys".into())?;
                sys::mount_setattr(tree.as_fd(), false, QUIET | readonly, 0).at(|| "bind /sys".into())?;
                tree
            }
        },
        (MountKind::Dev, _) => make(c"tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))], MOUNT_ATTR_NOSUID)?,
        (MountKind::Devpts, _) => make(
            c"devpts",
            &[("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))],
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
        )?,
        (MountKind::Mqueue, _) => make(c"mqueue", &[], QUIET)?,
        (MountKind::Tmpfs { size, mode }, _) => {
            let mode = format!("{mode:o}");
            let mut options = vec![("mode", Some(mode.as_str()))];
            options.extend(size.as_deref().map(|size| ("size", Some(size))));
            make(c"tmpfs", &options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?
        }
        (MountKind::Cgroup, _) => return cgroup(root, mount, hierarchy),
        (MountKind::Image { lowers, sub_path }, _) => image_tree(lowers, sub_path, &spec.rootfs.target)?,
        (MountKind::Bind { .. } | MountKind::Shm, None) => return Err(Failure::new("has no source".into())),
    };
    let is_file = File::from(tree.try_clone().at(|| "duplicate".into())?)
        .metadata()
        .at(|| "stat the source".into())
        .map(|meta| !meta.is_dir())?;
    let target = if is_file { file_in_root(root, &mount.destination) } else { dir_in_root(root, &mount.destination) };
    let target = target.at(|| "make the mount point".into())?;
    sys::move_mount(tree.as_fd(), target.as_fd()).at(|| "attach".into())?;
    if mount.kind == MountKind::Dev {
        populate_dev(root, &mount.destination)?;
    }
    Ok(())
}

/// A read-only view of another image. It is put together on the (already covered) root's mount point.
fn image_tree(lowers: &[PathBuf], sub_path: &Path, target: &Path) -> Result<OwnedFd, Failure> {
    let mut options: Vec<PathBuf> = lowers.to_vec();
    let whole = if lowers.len() == 1 {
        sys::open_tree_at(&options.remove(0), false).at(|| "bind the image".into())?
    } else {
        overlay(lowers, None, target).at(|| "mount the image (overlay)".into())?;
        let tree = sys::open_tree_at(target, false).at(|| "take the image's mount".into())?;
        umount2(target, MntFlags::MNT_DETACH).at(|| "release the image's mount".into())?;
        tree
    };
    sys::mount_setattr(whole.as_fd(), false, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, MsFlags::MS_PRIVATE.bits())
        .at(|| "make the image read-only".into())?;
    if sub_path.as_os_str().is_empty() {
        return Ok(whole);
    }
    // A detached mount cannot be copied in part before Linux 6.15, so it is attached for a moment.
    let place = File::open(target).at(|| "open the mount point".into())?;
    sys::move_mount(whole.as_fd(), place.as_fd()).at(|| "attach the image".into())?;
    let part = sys::open_in_root(whole.as_fd(), sub_path, libc::O_PATH)
        .and_then(|part| sys::open_tree(part.as_fd(), Path::new(""), false))
        .at(|| format!("image has no {}", sub_path.display()));
    umount2(target, MntFlags::MNT_DETACH).at(|| "release the image's mount".into())?;
    part
}

fn cgroup(root: BorrowedFd, mount: &MountSpec, hierarchy: &Hierarchy) -> Result<(), Failure> {
    let readonly = if mount.readonly { MOUNT_ATTR_RDONLY } else { 0 };
    let attach = |tree: OwnedFd, destination: &Path| -> Result<(), Failure> {
        let target = dir_in_root(root, destination).at(|| "make the mount point".into())?;
        sys::move_mount(tree.as_fd(), target.as_fd()).at(|| "attach".into())
    };
    match hierarchy {
        Hierarchy::Unified(_) => {
            let tree = sys::new_mount(c"cgroup2", &[], QUIET | readonly).at(|| "cgroup2".into())?;
            attach(tree, &mount.destination)
        }
        Hierarchy::Split(mounts) => {
            let tmpfs = sys::new_mount(c"tmpfs", &[("mode", Some("755"))], QUIET).at(|| "tmpfs for cgroups".into())?;
            let again = tmpfs.try_clone().at(|| "duplicate".into())?;
            attach(tmpfs, &mount.destination)?;
            for (controllers, path) in mounts.iter().filter(|(controllers, _)| !controllers.is_empty()) {
                let Some(name) = path.file_name() else { continue };
                let mut options: Vec<(&str, Option<&str>)> = Vec::new();
                for controller in controllers {
                    match controller.split_once('=') {
                        Some((key, value)) => {
                            options.push((key, Some(value)));
                            options.push(("none", None));
                        }
                        None => options.push((controller, None)),
                    }
                }
                let tree = sys::new_mount(c"cgroup", &options, QUIET | readonly)
                    .at(|| format!("cgroup {}", controllers.join(",")))?;
                attach(tree, &mount.destination.join(name))?;
            }
            sys::mount_setattr(again.as_fd(), false, readonly, 0).at(|| "cgroups read-only".into())
        }
    }
}

fn populate_dev(root: BorrowedFd, at: &Path) -> Result<(), Failure> {
    for (name, major, minor) in NODES {
        make_node(root, &at.join(name), SFlag::S_IFCHR, makedev(major, minor), 0o666)?;
    }
    let dev = dir_in_root(root, at).at(|| "open /dev".into())?;
    for (name, target) in LINKS {
        match nix::unistd::symlinkat(target, dev.as_fd(), name) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(Failure::os(format!("link /dev/{name}"), error)),
        }
    }
    Ok(())
}

fn make_node(root: BorrowedFd, path: &Path, kind: SFlag, number: u64, mode: u32) -> Result<(), Failure> {
    let what = || format!("make device {}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::new(format!("{} is not a device's path", path.display())));
    };
    let dir = dir_in_root(root, parent).at(what)?;
    match mknodat(dir.as_fd(), name, kind, Mode::from_bits_truncate(mode), number) {
        Ok(()) => {}
        Err(nix::errno::Errno::EEXIST) => return Ok(()),
        Err(error) => return Err(Failure::os(what(), error)),
    }
    // mknod obeys the umask; devices are for everybody.
    nix::sys::stat::fchmodat(
        dir.as_fd(),
        name,
        Mode::from_bits_truncate(mode),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )
    .at(what)
}

/// A pseudo terminal of the container.
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// A new terminal from the devpts at `/dev/pts` below `root`, which must really be one.
pub fn open_pty(root: BorrowedFd) -> Result<Pty, Failure> {
    let what = || "open a terminal in /dev/pts".to_owned();
    let master = sys::open_in_root(root, Path::new("dev/pts/ptmx"), libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW)
        .at(what)?;
    let stat = nix::sys::stat::fstat(master.as_fd()).at(what)?;
    let kind = nix::sys::statfs::fstatfs(&master).at(what)?.filesystem_type();
    if stat.st_rdev != makedev(5, 2) || kind != nix::sys::statfs::DEVPTS_SUPER_MAGIC {
        return Err(Failure::new("/dev/pts/ptmx is not a terminal multiplexer".into()));
    }
    sys::pty_unlock(master.as_fd()).at(what)?;
    let slave = sys::pty_peer(master.as_fd()).at(what)?;
    Ok(Pty { master, slave })
}

/// A terminal whose slave is also `/dev/console`.
fn console(root: BorrowedFd) -> Result<Pty, Failure> {
    let pty = open_pty(root)?;
    let tree = sys::open_tree(pty.slave.as_fd(), Path::new(""), false).at(|| "copy the console".into())?;
    let target = file_in_root(root, Path::new("/dev/console")).at(|| "make /dev/console".into())?;
    sys::move_mount(tree.as_fd(), target.as_fd()).at(|| "attach /dev/console".into())?;
    Ok(pty)
}

fn readonly(root: BorrowedFd, path: &Path) -> Result<(), Failure> {
    let what = || format!("make {} read-only", path.display());
    let Some(place) = existing(root, path).at(what)? else { return Ok(()) };
    let tree = sys::open_tree(place.as_fd(), Path::new(""), true).at(what)?;
    sys::mount_setattr(tree.as_fd(), true, MOUNT_ATTR_RDONLY, 0).at(what)?;
    sys::move_mount(tree.as_fd(), place.as_fd()).at(what)
}

/// Hides files behind the node's `/dev/null` and directories behind an empty, read-only tmpfs.
fn mask(root: BorrowedFd, paths: &[PathBuf]) -> Result<(), Failure> {
    if paths.is_empty() {
        return Ok(());
    }
    // The node's, not the container's; and what it is, not what it is called.
    let null: OwnedFd = nix::fcntl::open("/dev/null", path_flags(), Mode::empty()).at(|| "open /dev/null".into())?;
    let stat = nix::sys::stat::fstat(null.as_fd()).at(|| "stat /dev/null".into())?;
    if stat.st_rdev != makedev(1, 3) || stat.st_mode & libc::S_IFMT != libc::S_IFCHR {
        return Err(Failure::new("/dev/null is not the null device".into()));
    }
    for path in paths {
        let what = || format!("mask {}", path.display());
        let Some(place) = existing(root, path).at(what)? else { continue };
        let is_dir = nix::sys::stat::fstat(place.as_fd()).at(what)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let cover = if is_dir {
            sys::new_mount(c"tmpfs", &[("size", Some("0")), ("nr_inodes", Some("1"))], QUIET | MOUNT_ATTR_RDONLY)
        } else {
            sys::open_tree(null.as_fd(), Path::new(""), false)
        };
        sys::move_mount(cover.at(what)?.as_fd(), place.as_fd()).at(what)?;
    }
    Ok(())
}

fn existing(root: BorrowedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    match sys::open_in_root(root, path, libc::O_PATH) {
        Ok(place) => Ok(Some(place)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The directory `path` inside `root`, with what is missing of it made.
pub fn dir_in_root(root: BorrowedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match sys::open_in_root(root, path, flags) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let mut here = PathBuf::from("/");
    let mut dir = sys::open_in_root(root, &here, flags)?;
    for part in path.components() {
        match part {
            Component::Normal(name) => here.push(name),
            Component::ParentDir => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
            _ => continue,
        }
        dir = match sys::open_in_root(root, &here, flags) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let Component::Normal(name) = part else { continue };
                match nix::sys::stat::mkdirat(dir.as_fd(), name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                sys::open_in_root(root, &here, flags)?
            }
            other => other?,
        };
    }
    Ok(dir)
}

/// The file `path` inside `root`, made empty if it is missing.
fn file_in_root(root: BorrowedFd, path: &Path) -> io::Result<OwnedFd> {
    match sys::open_in_root(root, path, libc::O_PATH) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let dir = dir_in_root(root, parent)?;
    let name = CString::new(name.as_encoded_bytes()).map_err(io::Error::other)?;
    let flags = nix::fcntl::OFlag::O_CREAT
        | nix::fcntl::OFlag::O_EXCL
        | nix::fcntl::OFlag::O_NOFOLLOW
        | nix::fcntl::OFlag::O_CLOEXEC
        | nix::fcntl::OFlag::O_WRONLY;
    match nix::fcntl::openat(dir.as_fd(), name.as_c_str(), flags, Mode::from_bits_truncate(0o644)) {
        Ok(_) | Err(nix::errno::Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    sys::open_in_root(root, path, libc::O_PATH)
}
