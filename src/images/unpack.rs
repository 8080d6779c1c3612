//! From a layer's blob to an overlayfs lower directory.
//!
//! Every path is resolved by the kernel inside the layer's own directory (`openat2` with `RESOLVE_IN_ROOT`), so
//! symbolic links in an image lead nowhere else; the last component is never followed. Whiteouts become what
//! overlayfs understands. The blob and what it holds are hashed while they stream through; the caller throws the
//! directory away if this returns an error.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::chain::finish;
use crate::error::LayerError;
use crate::untar::{Entry, Kind, Untar};

/// This much of the file system stays free.
const DISK_FREE_BYTES_MIN: u64 = 64 << 20;
/// How often the free space is looked at.
const DISK_CHECK_EVERY_BYTES: u64 = 4 << 20;
/// What an entry counts besides its content, so that entries are bounded too.
const ENTRY_COST_BYTES: u64 = 512;
const COPY_BUFFER_BYTES: usize = 128 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

/// What all layers of one image may take together.
pub(crate) struct Budget {
    used_bytes: AtomicU64,
    max_bytes: u64,
    next_check_bytes: AtomicU64,
}

/// Directories that the layer's archive did not mention though it put something into them.
pub(crate) type ImplicitDirs = BTreeSet<Vec<u8>>;

impl Budget {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { used_bytes: AtomicU64::new(0), max_bytes, next_check_bytes: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64, root: &OwnedFd) -> Result<(), LayerError> {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used > self.max_bytes {
            return Err(LayerError::TooLarge { max_bytes: self.max_bytes });
        }
        if used >= self.next_check_bytes.load(Ordering::Relaxed) {
            self.next_check_bytes.store(used + DISK_CHECK_EVERY_BYTES, Ordering::Relaxed);
            let free_bytes = free_bytes(root);
            if free_bytes < DISK_FREE_BYTES_MIN {
                return Err(LayerError::DiskFull { free_bytes });
            }
        }
        Ok(())
    }
}

fn free_bytes(root: &OwnedFd) -> u64 {
    rustix::fs::fstatvfs(root).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Unpacks the blob that `source` yields into the empty directory `root`, and checks both digests. `blob_digest` is
/// `None` where there is no manifest to name one.
pub(crate) fn unpack(
    source: impl Read,
    blob_digest: Option<&str>,
    diff_id: &str,
    root: &Path,
    budget: &Budget,
) -> Result<ImplicitDirs, LayerError> {
    let mut blob = Hashing { inner: source, hasher: Sha256::new(), failed: false };
    let unpacked = unpack_blob(&mut blob, diff_id, root, budget);
    if matches!(unpacked, Err(LayerError::TooLarge { .. } | LayerError::DiskFull { .. })) {
        return unpacked;
    }
    // A damaged blob is reported as such, whatever the decoder stumbled over. Not if it did not arrive whole.
    let rest = if blob.failed { Ok(0) } else { io::copy(&mut blob, &mut io::sink()) };
    if blob.failed || rest.is_err() {
        return Err(LayerError::Cut);
    }
    let got = finish(blob.hasher);
    match blob_digest {
        Some(expected) if expected != got => Err(LayerError::DigestMismatch { expected: expected.to_owned(), got }),
        _ => unpacked,
    }
}

fn unpack_blob(blob: &mut impl Read, diff_id: &str, root: &Path, budget: &Budget) -> Result<ImplicitDirs, LayerError> {
    let archive = decompressed(blob).map_err(LayerError::Read)?;
    let mut archive = Hashing { inner: archive, hasher: Sha256::new(), failed: false };
    let mut unpacker = Unpacker::new(root, budget)?;
    let mut untar = Untar::new(&mut archive);
    while let Some(entry) = untar.next()? {
        unpacker.apply(&entry, &mut untar)?;
    }
    unpacker.set_directory_times()?;
    let mut trailing = [0; 8192];
    loop {
        match archive.read(&mut trailing).map_err(LayerError::Read)? {
            0 => break,
            count => budget.take(count as u64, &unpacker.root)?,
        }
    }
    let got = finish(archive.hasher);
    if got != diff_id {
        return Err(LayerError::DigestMismatch { expected: diff_id.to_owned(), got });
    }
    Ok(unpacker.implicit)
}

/// Undoes gzip or zstd, told by the first bytes: media types are wrong too often.
pub(crate) fn decompressed<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(COPY_BUFFER_BYTES, source);
    let mut magic = Vec::new();
    (&mut source).take(4).read_to_end(&mut magic)?;
    let source = BufReader::with_capacity(COPY_BUFFER_BYTES, io::Cursor::new(magic.clone()).chain(source));
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        _ => Box::new(source),
    })
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    failed: bool,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(into) {
            Ok(count) => count,
            Err(error) => {
                self.failed |= error.kind() != io::ErrorKind::Interrupted;
                return Err(error);
            }
        };
        self.hasher.update(into.get(..count).unwrap_or_default());
        Ok(count)
    }
}

struct Unpacker<'a> {
    root: OwnedFd,
    budget: &'a Budget,
    implicit: ImplicitDirs,
    directory_times: HashMap<Vec<u8>, Timestamps>,
    /// The directory of the entry before: entries come in runs.
    parent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

type Applied<T> = Result<T, Refused>;

/// Why an entry was refused, before its path is put to it.
enum Refused {
    Reason(&'static str),
    Errno(Errno),
    Layer(LayerError),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl<'a> Unpacker<'a> {
    fn new(root: &Path, budget: &'a Budget) -> Result<Self, LayerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| LayerError::Read(errno.into()))?;
        Ok(Self {
            root,
            budget,
            implicit: BTreeSet::from([Vec::new()]),
            directory_times: HashMap::new(),
            parent: None,
            buffer: vec![0; COPY_BUFFER_BYTES],
        })
    }

    fn apply(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), LayerError> {
        self.budget.take(ENTRY_COST_BYTES, &self.root)?;
        self.place(entry, content).map_err(|refused| {
            let path = String::from_utf8_lossy(&entry.path).chars().take(500).collect();
            match refused {
                Refused::Errno(Errno::NOSPC | Errno::DQUOT) => {
                    LayerError::DiskFull { free_bytes: free_bytes(&self.root) }
                }
                Refused::Errno(errno) => LayerError::EntryIo { path, source: errno.into() },
                Refused::Reason(reason) => LayerError::Entry { path, reason },
                Refused::Layer(error) => error,
            }
        })
    }

    fn place(&mut self, entry: &Entry, content: &mut impl Read) -> Applied<()> {
        let path = clean(&entry.path)?;
        let Some((directory, name)) = split(&path) else {
            return self.root_entry(entry);
        };
        if name == OPAQUE {
            let parent = self.open_parent(directory)?;
            let opened = opened_path(&parent, b".");
            return Ok(lsetxattr(opened, OVERLAY_OPAQUE, b"y", XattrFlags::empty())?);
        }
        if name.starts_with(b".wh..wh.") {
            // Bookkeeping of aufs.
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(directory, hidden);
        }
        match entry.kind {
            Kind::Directory => self.directory(&path, directory, name, entry),
            Kind::HardLink => self.hard_link(directory, name, &entry.link),
            _ => {
                let parent = self.open_parent(directory)?;
                if occupied(&parent, name)? {
                    remove(&parent, name)?;
                    self.forget();
                }
                let parent = self.open_parent(directory)?;
                self.leaf(&parent, name, entry, content)
            }
        }
    }

    /// Owner, mode and time of the layer's root directory itself.
    fn root_entry(&mut self, entry: &Entry) -> Applied<()> {
        if entry.kind != Kind::Directory {
            return Err(Refused::Reason("only a directory can be the root"));
        }
        set_metadata(self.root.as_fd(), b".", entry)?;
        self.implicit.remove(b"".as_slice());
        self.directory_times.insert(b".".to_vec(), times(entry));
        Ok(())
    }

    fn whiteout(&mut self, directory: &[u8], hidden: &[u8]) -> Applied<()> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Refused::Reason("a whiteout that hides nothing"));
        }
        let parent = self.open_parent(directory)?;
        match statat(&parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            // A whiteout speaks of the layers below; what this layer has put there stays.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Ok(lsetxattr(opened_path(&parent, hidden), OVERLAY_OPAQUE, b"y", XattrFlags::empty())?)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Ok(mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?),
            Err(errno) => Err(errno.into()),
        }
    }

    fn directory(&mut self, path: &[u8], directory: &[u8], name: &[u8], entry: &Entry) -> Applied<()> {
        let parent = self.open_parent(directory)?;
        let mut opaque = false;
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(stat) => {
                opaque = is_whiteout(&stat);
                unlinkat(&parent, name, AtFlags::empty())?;
                self.forget();
                mkdirat(&parent, name, Mode::RWXU)?;
            }
            Err(Errno::NOENT) => mkdirat(&parent, name, Mode::RWXU)?,
            Err(errno) => return Err(errno.into()),
        }
        set_metadata(parent.as_fd(), name, entry)?;
        if opaque {
            lsetxattr(opened_path(&parent, name), OVERLAY_OPAQUE, b"y", XattrFlags::empty())?;
        }
        self.implicit.remove(path);
        self.directory_times.insert(path.to_vec(), times(entry));
        Ok(())
    }

    fn hard_link(&mut self, directory: &[u8], name: &[u8], target: &[u8]) -> Applied<()> {
        let target = clean(target)?;
        let (target_directory, target_name) = split(&target).ok_or(Refused::Reason("a hard link to the root"))?;
        let from = open_in_root(&self.root, target_directory).map_err(|_| MISSING_LINK_TARGET)?;
        let parent = self.open_parent(directory)?;
        match statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => return Err(MISSING_LINK_TARGET),
            Ok(_) => {}
            Err(_) => return Err(MISSING_LINK_TARGET),
        }
        match linkat(&from, target_name, &parent, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                let (there, here) = (
                    statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW)?,
                    statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?,
                );
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) {
                    return Ok(());
                }
                remove(&parent, name)?;
                self.forget();
                let parent = self.open_parent(directory)?;
                linkat(&from, target_name, &parent, name, AtFlags::empty()).map_err(|_| MISSING_LINK_TARGET)
            }
            other => Ok(other?),
        }
    }

    /// Makes what is neither a directory nor a hard link; nothing has the name yet.
    fn leaf(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry, content: &mut impl Read) -> Applied<()> {
        let device = |kind| mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, dev(entry));
        match entry.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
                self.copy(content, &mut file)?;
            }
            Kind::Symlink if entry.link.is_empty() => return Err(Refused::Reason("a symbolic link to nowhere")),
            Kind::Symlink => symlinkat(entry.link.as_slice(), parent, name)?,
            Kind::CharDevice => device(FileType::CharacterDevice)?,
            Kind::BlockDevice => device(FileType::BlockDevice)?,
            Kind::Fifo => device(FileType::Fifo)?,
            Kind::Directory | Kind::HardLink => return Ok(()),
        }
        set_metadata(parent.as_fd(), name, entry)?;
        Ok(utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn copy(&mut self, content: &mut impl Read, file: &mut File) -> Applied<()> {
        loop {
            let count = content.read(&mut self.buffer).map_err(|error| Refused::Layer(LayerError::Read(error)))?;
            if count == 0 {
                return Ok(());
            }
            self.budget.take(count as u64, &self.root).map_err(Refused::Layer)?;
            file.write_all(self.buffer.get(..count).unwrap_or_default())
                .map_err(|error| Refused::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        }
    }

    /// The directory `path`, made together with those above it where they are missing.
    fn open_parent(&mut self, path: &[u8]) -> Applied<OwnedFd> {
        if let Some((cached, fd)) = &self.parent
            && cached == path
        {
            return Ok(rustix::io::fcntl_dupfd_cloexec(fd, 0)?);
        }
        let fd = match open_in_root(&self.root, path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_directories(path)?,
            Err(errno) => return Err(errno.into()),
        };
        self.parent = Some((path.to_vec(), rustix::io::fcntl_dupfd_cloexec(&fd, 0)?));
        Ok(fd)
    }

    fn make_directories(&mut self, path: &[u8]) -> Applied<OwnedFd> {
        let mut above = open_in_root(&self.root, b"")?;
        let mut made = Vec::new();
        for name in path.split(|byte| *byte == b'/') {
            if !made.is_empty() {
                made.push(b'/');
            }
            made.extend_from_slice(name);
            above = match open_in_root(&self.root, &made) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let opaque = match statat(&above, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) if is_whiteout(&stat) => {
                            unlinkat(&above, name, AtFlags::empty())?;
                            true
                        }
                        Ok(_) => return Err(Refused::Reason("what should be a directory above it is none")),
                        Err(_) => false,
                    };
                    self.budget.take(ENTRY_COST_BYTES, &self.root).map_err(Refused::Layer)?;
                    mkdirat(&above, name, Mode::RWXU)?;
                    chmodat(&above, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
                    if opaque {
                        lsetxattr(opened_path(&above, name), OVERLAY_OPAQUE, b"y", XattrFlags::empty())?;
                    } else {
                        self.implicit.insert(made.clone());
                    }
                    open_in_root(&self.root, &made)?
                }
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(above)
    }

    /// Something that may have been a directory is gone.
    fn forget(&mut self) {
        self.parent = None;
    }

    /// Last, since every file made in a directory changes its time.
    fn set_directory_times(&mut self) -> Result<(), LayerError> {
        for (path, times) in &self.directory_times {
            let Some((directory, name)) = split(path) else { continue };
            // What was replaced meanwhile has the time of what replaced it.
            let Ok(parent) = open_in_root(&self.root, directory) else { continue };
            match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                _ => continue,
            }
            utimensat(&parent, name, times, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| LayerError::EntryIo {
                path: String::from_utf8_lossy(path).into_owned(),
                source: errno.into(),
            })?;
        }
        Ok(())
    }
}

const MISSING_LINK_TARGET: Refused = Refused::Reason("a hard link to what is not in this layer");

/// Gives the directories that a layer did not mention the owner, mode and time they have in the layers below;
/// `lowers` are those, uppermost first.
pub(crate) fn adopt_implicit(root: &Path, implicit: &ImplicitDirs, lowers: &[std::path::PathBuf]) -> io::Result<()> {
    if implicit.is_empty() || lowers.is_empty() {
        return Ok(());
    }
    let open =
        |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = open(root)?;
    let lowers = lowers.iter().map(|lower| open(lower)).collect::<Result<Vec<_>, _>>()?;
    // Deepest first, so that the times of those above are set after.
    for path in implicit.iter().rev() {
        let directory = open_in_root(&root, path)?;
        for lower in &lowers {
            let Ok(below) = open_in_root(lower, path) else { continue };
            let stat = rustix::fs::fstat(&below)?;
            chownat(
                &directory,
                c".",
                Some(Uid::from_raw(stat.st_uid)),
                Some(Gid::from_raw(stat.st_gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            chmodat(&directory, c".", Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
            let time = Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as _ };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(&directory, c".", &times, AtFlags::SYMLINK_NOFOLLOW)?;
            break;
        }
    }
    Ok(())
}

/// Opens a directory as if `root` were the root of everything.
fn open_in_root(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Components joined by single slashes, without `.`; empty for the root.
fn clean(path: &[u8]) -> Applied<Vec<u8>> {
    let mut cleaned = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Refused::Reason("the path leads out of the layer")),
            _ if component.contains(&0) => return Err(Refused::Reason("the path has a zero byte")),
            _ => {}
        }
        if !cleaned.is_empty() {
            cleaned.push(b'/');
        }
        cleaned.extend_from_slice(component);
    }
    Ok(cleaned)
}

/// Directory and last component of a clean path; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((path.get(..slash)?, path.get(slash + 1..)?)),
        None => Some((b"", path)),
    }
}

fn occupied(parent: &OwnedFd, name: &[u8]) -> Applied<bool> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn remove(parent: &OwnedFd, name: &[u8]) -> Applied<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {
            let path = opened_path(parent, name);
            let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path);
            std::fs::remove_dir_all(path)
                .map_err(|error| Refused::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
        }
        other => Ok(other?),
    }
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0)
}

fn dev(entry: &Entry) -> Dev {
    match entry.kind {
        Kind::CharDevice | Kind::BlockDevice => makedev(entry.device.0, entry.device.1),
        _ => 0,
    }
}

/// A path to `name` in an opened directory, for system calls that take no directory.
fn opened_path(parent: &impl AsRawFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Owner, then mode, then attributes: a change of owner clears set-user-ID bits and capabilities.
fn set_metadata(parent: std::os::fd::BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Applied<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind != Kind::Symlink {
        chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    for (attribute, value) in entry.xattrs.iter().filter(|(attribute, _)| may_set(attribute)) {
        match lsetxattr(opened_path(&parent, name), attribute.as_str(), value, XattrFlags::empty()) {
            // The file system has no such attributes, or not on this kind of file.
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Attributes that an image may bring. Those of overlayfs itself could lead it to other layers' files.
fn may_set(attribute: &str) -> bool {
    attribute == "security.capability"
        || attribute.starts_with("system.posix_acl_")
        || (attribute.starts_with("user.") && !attribute.starts_with("user.overlay."))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime_s, tv_nsec: entry.mtime_ns.into() };
    Timestamps { last_access: time, last_modification: time }
}
