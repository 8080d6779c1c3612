//! The file that shims run from.
//!
//! A process on its way into a container shows its executable to the container (`/proc/<pid>/exe`). Were that
//! the node's file, a container could wait for it to be unused and overwrite it (CVE-2019-5736). So shims are
//! started from a detached, read-only mount of the file: opening it for writing through any process that runs
//! from it fails, and there is no path on the node that leads to the mount. It costs no memory; where the
//! mount cannot be made the file is copied to a sealed memory file instead.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys;

#[derive(Debug)]
pub struct Executable(OwnedFd);

impl Executable {
    pub fn open(path: &Path) -> io::Result<Self> {
        // The link of a running executable leads to its mount even in another mount namespace, of which no
        // copy can be taken; the path that it names may do.
        let named = std::fs::read_link(path).unwrap_or_else(|_| path.to_owned());
        let mount = [path, &named].into_iter().find_map(|path| readonly_mount(path).ok());
        mount.map_or_else(|| memory_copy(path), Ok).map(Self)
    }

    /// A path that leads to the file in this process and in its children until they run a program.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

fn readonly_mount(path: &Path) -> io::Result<OwnedFd> {
    let tree = sys::open_tree_at(path, false)?;
    let private = nix::mount::MsFlags::MS_PRIVATE.bits();
    sys::mount_setattr(tree.as_fd(), false, sys::MOUNT_ATTR_RDONLY, private)?;
    Ok(tree)
}

fn memory_copy(path: &Path) -> io::Result<OwnedFd> {
    let copy = memfd_create(c"cluster-shim", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let (mut from, mut to) = (File::open(path)?, File::from(copy.try_clone()?));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            count => to.write_all(buffer.get(..count).unwrap_or_default())?,
        }
    }
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_form_can_be_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::copy("/bin/busybox", &program).unwrap();
        for fd in [readonly_mount(&program).unwrap(), memory_copy(&program).unwrap()] {
            let executable = Executable(fd);
            // busybox looks at its name, which is a number here; that it runs at all is the point.
            assert!(std::process::Command::new(executable.path()).output().is_ok());
            let written = File::options().write(true).open(executable.path()).and_then(|mut file| file.write(b"x"));
            assert!(written.is_err());
        }
        assert_eq!(std::fs::read("/bin/busybox").unwrap(), std::fs::read(program).unwrap());
    }
}
